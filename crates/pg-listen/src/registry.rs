//! Who subscribes to what, and what each subscription has been promised. Owned by the task; no locks, no I/O.
//!
//! A subscription is in one [`Reception`]. It receives `Lost` exactly once per loss, because only
//! one that `Listens` can lose anything. It receives `InSync` only for barriers sent after its
//! `Listening`: an earlier one proves nothing about it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::barrier::BarrierNumber;
use crate::channel::Channel;
use crate::error::Error;
use crate::error_kind::ErrorKind;
use crate::event::{Event, LostReason, Notification};
use crate::queue::{Pushed, Queue};

/// Channels a listener may listen on at once.
pub(crate) const CHANNELS_MAX: usize = 1_024;
/// Subscriptions a listener may have at once, over all channels.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    channels: HashMap<Channel, Vec<Subscriber>>,
    subscriptions: usize,
    /// Channels came or went since [`Registry::changes`] was asked.
    changed: bool,
}

#[derive(Debug)]
struct Subscriber {
    queue: Arc<Queue>,
    reception: Reception,
}

/// What a subscription gets now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reception {
    /// LISTEN is not in force: nothing.
    Disconnected,
    /// Every notification; `InSync` for barriers from this number on.
    Listens(BarrierNumber),
    /// Nothing, until a barrier of this number or a later one is back.
    Overflowed(BarrierNumber),
}

/// Whether a subscription overflowed, and so a barrier is needed to bring it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Delivered {
    All,
    SomeOverflowed,
}

/// LISTEN and UNLISTEN statements to be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) listen: Vec<Channel>,
    pub(crate) unlisten: Vec<Channel>,
}

impl Registry {
    pub(crate) fn add(&mut self, channel: Channel, queue: Arc<Queue>) -> Result<(), Error> {
        let limit = if self.subscriptions >= SUBSCRIPTIONS_MAX {
            Some(format!(
                "{SUBSCRIPTIONS_MAX} subscriptions are open already; drop some, or start another listener"
            ))
        } else if self.channels.len() >= CHANNELS_MAX && !self.channels.contains_key(&channel) {
            Some(format!(
                "{CHANNELS_MAX} channels are listened on already; put more into one, or start another listener"
            ))
        } else {
            None
        };
        if let Some(message) = limit {
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        self.channels
            .entry(channel)
            .or_default()
            .push(Subscriber { queue, reception: Reception::Disconnected });
        self.subscriptions += 1;
        self.changed = true;
        Ok(())
    }

    /// Removes the subscriptions that have been dropped.
    pub(crate) fn sweep(&mut self) {
        self.channels.retain(|_, subscribers| {
            subscribers.retain(|subscriber| !subscriber.queue.is_abandoned());
            !subscribers.is_empty()
        });
        self.subscriptions = self.channels.values().map(Vec::len).sum();
        self.changed = true;
    }

    /// What has to be sent so that exactly the subscribed channels are listened on, if anything changed.
    pub(crate) fn changes(&mut self, listened: &BTreeSet<Channel>) -> Option<Changes> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let listen: Vec<_> =
            self.channels.keys().filter(|&channel| !listened.contains(channel)).cloned().collect();
        let unlisten: Vec<_> =
            listened.iter().filter(|&channel| !self.channels.contains_key(channel)).cloned().collect();
        (!listen.is_empty() || !unlisten.is_empty()).then_some(Changes { listen, unlisten })
    }

    /// All channels, for a new connection.
    pub(crate) fn all(&mut self) -> Changes {
        self.changed = false;
        Changes { listen: self.channels.keys().cloned().collect(), unlisten: Vec::new() }
    }

    /// LISTEN is in force for `channel`. Its new subscriptions listen from here on, and are in sync
    /// with a barrier numbered `barrier` or later. True if there was any.
    pub(crate) fn listening(&mut self, channel: &Channel, barrier: BarrierNumber) -> bool {
        let mut any = false;
        for subscriber in self.channels.get_mut(channel).into_iter().flatten() {
            if subscriber.reception == Reception::Disconnected {
                subscriber.reception = Reception::Listens(barrier);
                let _ = subscriber.push(Event::Listening, barrier);
                any = true;
            }
        }
        any
    }

    /// Hands a notification to all who listen on its channel.
    pub(crate) fn deliver(&mut self, notification: &Notification, barrier: BarrierNumber) -> Delivered {
        let mut delivered = Delivered::All;
        for subscriber in self.channels.get_mut(notification.channel()).into_iter().flatten() {
            if let Reception::Listens(_) = subscriber.reception {
                let event = Event::Notification(notification.clone());
                if subscriber.push(event, barrier) == Pushed::Overflowed {
                    delivered = Delivered::SomeOverflowed;
                }
            }
        }
        delivered
    }

    /// Barrier `number` came back.
    pub(crate) fn in_sync(
        &mut self,
        number: BarrierNumber,
        as_of: Instant,
        barrier: BarrierNumber,
    ) -> Delivered {
        let mut delivered = Delivered::All;
        for subscriber in self.channels.values_mut().flatten() {
            let resumed = match subscriber.reception {
                Reception::Listens(from) if from <= number => Pushed::Queued,
                Reception::Overflowed(from) if from <= number => {
                    subscriber.reception = Reception::Listens(number);
                    subscriber.push(Event::Listening, barrier)
                }
                _ => continue,
            };
            if resumed == Pushed::Overflowed
                || subscriber.push(Event::InSync { as_of }, barrier) == Pushed::Overflowed
            {
                delivered = Delivered::SomeOverflowed;
            }
        }
        delivered
    }

    /// The connection is lost: each listening subscription receives `Lost`.
    pub(crate) fn lost(&mut self, reason: LostReason) {
        for subscriber in self.channels.values_mut().flatten() {
            if let Reception::Listens(_) = subscriber.reception {
                let _ = subscriber.queue.push(Event::Lost(reason));
            }
            subscriber.reception = Reception::Disconnected;
        }
    }

    /// Ends all subscriptions.
    pub(crate) fn end(&mut self) {
        for subscriber in self.channels.values().flatten() {
            subscriber.queue.end();
        }
        self.channels.clear();
        self.subscriptions = 0;
    }
}

impl Drop for Registry {
    /// Even if the task is aborted with its runtime, no reader waits for ever.
    fn drop(&mut self) {
        self.end();
    }
}

impl Subscriber {
    /// Pushes; after an overflow nothing more is pushed before barrier `barrier`, the next to be sent, is
    /// back.
    fn push(&mut self, event: Event, barrier: BarrierNumber) -> Pushed {
        let pushed = self.queue.push(event);
        if pushed == Pushed::Overflowed {
            self.reception = Reception::Overflowed(barrier);
        }
        pushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::queue::QUEUE_EVENTS_MIN;

    fn one_subscription() -> (Registry, Channel, Arc<Queue>) {
        let mut registry = Registry::default();
        let channel = Channel::new("c").unwrap();
        let queue = Arc::new(Queue::new(QUEUE_EVENTS_MIN));
        registry.add(channel.clone(), Arc::clone(&queue)).unwrap();
        (registry, channel, queue)
    }

    fn in_sync(registry: &mut Registry, number: u64) {
        let _ = registry.in_sync(BarrierNumber(number), clock::now(), BarrierNumber(number + 1));
    }

    #[test]
    fn a_barrier_sent_before_listening_proves_nothing_about_it() {
        let (mut registry, channel, queue) = one_subscription();
        in_sync(&mut registry, 6);
        assert_eq!(queue.letters(), "");
        assert!(registry.listening(&channel, BarrierNumber(8)), "barrier 7 is in flight");
        in_sync(&mut registry, 7);
        assert_eq!(queue.letters(), "L");
        in_sync(&mut registry, 8);
        assert_eq!(queue.letters(), "s");
    }

    #[test]
    fn listening_is_reported_once() {
        let (mut registry, channel, queue) = one_subscription();
        assert!(registry.listening(&channel, BarrierNumber(0)));
        assert!(!registry.listening(&channel, BarrierNumber(1)));
        assert_eq!(queue.letters(), "L");
    }

    #[test]
    fn a_loss_is_reported_once_to_listening_subscriptions() {
        let (mut registry, channel, queue) = one_subscription();
        registry.lost(LostReason::Connection);
        assert_eq!(queue.letters(), "", "nothing was promised, so nothing is lost");
        registry.listening(&channel, BarrierNumber(0));
        registry.lost(LostReason::Connection);
        registry.lost(LostReason::Connection);
        in_sync(&mut registry, 5);
        assert_eq!(queue.letters(), "LX");
    }

    #[test]
    fn overflow_recovers_at_later_barrier_and_is_lost_only_once() {
        let (mut registry, channel, queue) = one_subscription();
        registry.listening(&channel, BarrierNumber(0));
        in_sync(&mut registry, 0);
        while registry.fill_one(&channel) == Delivered::All {}
        in_sync(&mut registry, 0);
        assert_eq!(queue.letters(), "O", "barrier 0 was sent before the overflow");
        in_sync(&mut registry, 1);
        assert_eq!(queue.letters(), "Ls");

        while registry.fill_one(&channel) == Delivered::All {}
        registry.lost(LostReason::Connection);
        assert_eq!(queue.letters(), "O");
    }

    #[test]
    fn changes_are_the_difference_and_are_reported_once() {
        let (mut registry, channel, queue) = one_subscription();
        let other = Channel::new("other").unwrap();
        let listened = BTreeSet::from([other.clone()]);
        let expected = Changes { listen: vec![channel.clone()], unlisten: vec![other] };
        assert_eq!(registry.changes(&listened), Some(expected));
        assert_eq!(registry.changes(&listened), None);

        queue.abandon();
        registry.sweep();
        let listened = BTreeSet::from([channel.clone()]);
        assert_eq!(registry.changes(&listened), Some(Changes { listen: vec![], unlisten: vec![channel] }));
    }

    impl Registry {
        /// One more event in the queue of every subscription of `channel`, as a notification would be.
        fn fill_one(&mut self, channel: &Channel) -> Delivered {
            let mut delivered = Delivered::All;
            for subscriber in self.channels.get_mut(channel).into_iter().flatten() {
                if subscriber.push(Event::Listening, BarrierNumber(1)) == Pushed::Overflowed {
                    delivered = Delivered::SomeOverflowed;
                }
            }
            delivered
        }
    }
}
