//! The reading end of one channel.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::channel::Channel;
use crate::event::Event;
use crate::queue::{Popped, Queue};

/// The events of one channel, from [`Listener::subscribe`](crate::Listener::subscribe).
///
/// Dropping it ends it; when the last subscription of a channel is dropped the listener sends UNLISTEN. It
/// does not keep the listener alive: after the last [`Listener`](crate::Listener) is gone, `recv` returns
/// what is queued and then `None`.
#[derive(Debug)]
#[must_use = "a subscription ends when it is dropped"]
pub struct Subscription {
    channel: Channel,
    queue: Arc<Queue>,
    dropped: Arc<Notify>,
}

impl Subscription {
    pub(crate) fn new(channel: Channel, queue: Arc<Queue>, dropped: Arc<Notify>) -> Self {
        Self { channel, queue, dropped }
    }

    /// The channel's name.
    #[must_use]
    pub fn channel(&self) -> &str {
        self.channel.as_str()
    }

    /// Waits for the next event; `None` when the listener has been shut down and the queue is empty.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an event is taken only in the moment it is returned.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            match self.queue.pop() {
                Popped::Event(event) => return Some(event),
                Popped::Ended => return None,
                Popped::Empty => self.queue.changed().await,
            }
        }
    }

    /// The next event if there is one already. `None` does not tell an empty queue from the end;
    /// [`recv`](Self::recv) does.
    pub fn try_recv(&mut self) -> Option<Event> {
        match self.queue.pop() {
            Popped::Event(event) => Some(event),
            Popped::Empty | Popped::Ended => None,
        }
    }
}

impl Drop for Subscription {
    /// Only marks: the task finds the mark and sends UNLISTEN.
    fn drop(&mut self) {
        self.queue.abandon();
        self.dropped.notify_one();
    }
}
