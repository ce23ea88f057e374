//! The handle: cheap to clone, talks to the one task over bounded channels.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::channel::Channel;
use crate::error::Error;
use crate::notify_query::NotifyQuery;
use crate::queue::Queue;
use crate::status::{Phase, Status};
use crate::subscription::Subscription;
use crate::task::{Command, Inbox, NotifyRequest};

/// Listens on any number of channels over one connection of its own, and connects again when that is lost.
///
/// A handle: clones share the connection. When the last is dropped, or with [`shutdown`](Self::shutdown), the
/// connection is closed and all subscriptions end.
#[derive(Debug, Clone)]
pub struct Listener {
    commands: mpsc::Sender<Command>,
    notifies: mpsc::Sender<NotifyRequest>,
    status: watch::Receiver<Status>,
    dropped: Arc<Notify>,
    stop: Arc<Notify>,
    queue_events_max: usize,
}

impl Listener {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        notifies: mpsc::Sender<NotifyRequest>,
        status: watch::Receiver<Status>,
        inbox: &Inbox,
        queue_events_max: usize,
    ) -> Self {
        let (dropped, stop) = (Arc::clone(&inbox.dropped), Arc::clone(&inbox.stop));
        Self { commands, notifies, status, dropped, stop, queue_events_max }
    }

    /// Subscribes to a channel, by its exact name: quoted, so case counts. Returns at once, connected or not;
    /// the first event is `Listening`. Subscriptions of one channel are independent of each other.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Channel`](crate::ErrorKind::Channel) for an invalid name,
    /// [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded) beyond 1 024 channels or 16 384 subscriptions,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after shutdown.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future undoes the subscription.
    pub async fn subscribe(&self, channel: &str) -> Result<Subscription, Error> {
        let channel = Channel::new(channel)?;
        let queue = Arc::new(Queue::new(self.queue_events_max));
        // Made before the task learns of the queue: if this future is dropped, the task forgets the queue.
        let subscription = Subscription::new(channel.clone(), Arc::clone(&queue), Arc::clone(&self.dropped));
        let (reply, answer) = oneshot::channel();
        let command = Command::Subscribe { channel, queue, reply };
        self.commands.send(command).await.map_err(|_| Error::closed())?;
        answer.await.map_err(|_| Error::closed())??;
        Ok(subscription)
    }

    /// Sends a barrier and waits until it is back. What was committed before the returned instant is then in the
    /// queues of all subscriptions that were `Listening`. Each has its `InSync`. One that overflowed meanwhile has
    /// its `Lost`. Callers who ask before it is sent share one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Connection`](crate::ErrorKind::Connection) when there is no connection now (see
    /// [`wait_connected`](Self::wait_connected)) or it is lost meanwhile, found after
    /// [`barrier_timeout`](crate::Builder::barrier_timeout) at the latest;
    /// [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded) if 4 096 callers wait already;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after shutdown.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the barrier may be sent all the same.
    pub async fn barrier(&self) -> Result<Instant, Error> {
        let (caller, answer) = oneshot::channel();
        self.commands.send(Command::Barrier(caller)).await.map_err(|_| Error::closed())?;
        answer.await.map_err(|_| Error::closed())?
    }

    /// Sends a notification over the listening connection, in a transaction of its own. When this returns, it
    /// is committed: every listener will learn of it. To notify inside your own transaction, use
    /// [`NotifyQuery`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Channel`](crate::ErrorKind::Channel) and
    /// [`ErrorKind::Payload`](crate::ErrorKind::Payload) for what cannot be sent;
    /// [`ErrorKind::Connection`](crate::ErrorKind::Connection) when there is no connection now, or it is lost
    /// meanwhile: **then it may have been sent or not**; [`ErrorKind::Database`](crate::ErrorKind::Database)
    /// if PostgreSQL refuses; [`ErrorKind::Closed`](crate::ErrorKind::Closed) after shutdown.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the notification back once it is in flight.
    pub async fn notify(&self, channel: &str, payload: impl Into<String>) -> Result<(), Error> {
        let query = NotifyQuery::new(channel, payload)?;
        let (sender, answer) = oneshot::channel();
        self.notifies.send(NotifyRequest { query, sender }).await.map_err(|_| Error::closed())?;
        match answer.await {
            Ok(answer) => answer,
            Err(_) if self.status.borrow().phase == Phase::Closed => Err(Error::closed()),
            Err(_) => Err(Error::connection_lost()),
        }
    }

    /// What the listener is doing now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until LISTEN is in force on a connection; returns at once if it is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Pooler`](crate::ErrorKind::Pooler) if the last attempt has met a connection
    /// pooler. [`ErrorKind::Refused`](crate::ErrorKind::Refused) if the server refused the
    /// configuration. The listener goes on trying, and fails again until the configuration is
    /// corrected. [`ErrorKind::Closed`](crate::ErrorKind::Closed) after shutdown.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_connected(&self) -> Result<(), Error> {
        let mut status = self.status.clone();
        let is_settled = |status: &Status| {
            status.is_connected() || status.refusal().is_some() || status.phase == Phase::Closed
        };
        match status.wait_for(is_settled).await {
            Ok(status) if status.is_connected() => Ok(()),
            Ok(status) if status.phase != Phase::Closed => {
                Err(status.refusal().unwrap_or_else(Error::closed))
            }
            Ok(_) | Err(_) => Err(Error::closed()),
        }
    }

    /// Ends all subscriptions; queued events can still be read. Closes the connection, with a
    /// message to the server for at most 1 s. Waits until the task has ended. Any number of callers
    /// may do so, any number of times.
    ///
    /// # Cancel safety
    ///
    /// The listener shuts down even if the future is dropped after its first poll.
    pub async fn shutdown(&self) {
        self.stop.notify_one();
        let mut status = self.status.clone();
        while status.changed().await.is_ok() {} // an error says that the task is gone
    }
}
