//! The queue between the listener's task and one subscription: bounded, and never silently short.
//!
//! The task pushes and never waits; the subscription pops. When there is no room, a single `Lost`
//! replaces everything in the queue. A slow reader loses its own events, and costs other readers
//! nothing.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::event::{Event, LostReason};

/// The smallest queue that makes sense: room for a `Lost`, `Listening`, `InSync` and something between.
pub(crate) const QUEUE_EVENTS_MIN: usize = 8;
/// The largest queue; at 8 kB a payload this is already a lot.
pub(crate) const QUEUE_EVENTS_CEILING: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
    events_max: usize,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    /// The task will push no more.
    ended: bool,
    /// The subscription is dropped and will not pop any more.
    abandoned: bool,
}

/// What became of a pushed event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Pushed {
    Queued,
    /// No room: the queue now holds a single `Lost(Overflow)`, and the event is gone.
    Overflowed,
}

#[derive(Debug)]
pub(crate) enum Popped {
    Event(Event),
    Empty,
    Ended,
}

impl Queue {
    pub(crate) fn new(events_max: usize) -> Self {
        debug_assert!((QUEUE_EVENTS_MIN..=QUEUE_EVENTS_CEILING).contains(&events_max));
        Self { state: Mutex::default(), changed: Notify::new(), events_max }
    }

    pub(crate) fn push(&self, event: Event) -> Pushed {
        let mut state = self.lock();
        if state.abandoned || state.ended {
            return Pushed::Queued;
        }
        let full = state.events.len() >= self.events_max;
        let pushed = match (event, state.events.back_mut()) {
            // Nothing happened between two barriers: the later says all that the earlier said.
            (Event::InSync { as_of }, Some(Event::InSync { as_of: last })) => {
                *last = as_of;
                Pushed::Queued
            }
            // `Lost` covers all events before it, so it always finds room.
            (event @ Event::Lost(_), _) => {
                if full {
                    state.events.clear();
                }
                state.events.push_back(event);
                Pushed::Queued
            }
            (_, _) if full => {
                state.events.clear();
                state.events.push_back(Event::Lost(LostReason::Overflow));
                Pushed::Overflowed
            }
            (event, _) => {
                state.events.push_back(event);
                Pushed::Queued
            }
        };
        // Under a reader that does not read, it would fill the memory.
        assert!(state.events.len() <= self.events_max, "a queue never outgrows its bound");
        drop(state);
        self.changed.notify_one();
        pushed
    }

    pub(crate) fn pop(&self) -> Popped {
        let mut state = self.lock();
        match state.events.pop_front() {
            Some(event) => Popped::Event(event),
            None if state.ended => Popped::Ended,
            None => Popped::Empty,
        }
    }

    /// Waits for a push or the end since the last `changed`. There is one reader, so a stored permit is never
    /// lost.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// No more events: what is queued can still be popped.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// The reader is gone.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.events = VecDeque::new();
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock leaves the state half-changed, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Queue {
    /// What is queued, one letter for each event.
    pub(crate) fn letters(&self) -> String {
        let mut letters = String::new();
        while let Popped::Event(event) = self.pop() {
            letters.push(match event {
                Event::Listening => 'L',
                Event::Notification(_) => 'n',
                Event::InSync { .. } => 's',
                Event::Lost(LostReason::Overflow) => 'O',
                Event::Lost(_) => 'X',
            });
        }
        letters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn overflow_leaves_one_lost_and_nothing_else() {
        let queue = Queue::new(QUEUE_EVENTS_MIN);
        for _ in 0..QUEUE_EVENTS_MIN {
            assert_eq!(queue.push(Event::Listening), Pushed::Queued);
        }
        assert_eq!(queue.push(Event::Listening), Pushed::Overflowed);
        assert_eq!(queue.letters(), "O");
    }

    #[test]
    fn lost_always_finds_room_and_barriers_do_not_pile_up() {
        let queue = Queue::new(QUEUE_EVENTS_MIN);
        for _ in 0..100 {
            assert_eq!(queue.push(Event::InSync { as_of: clock::now() }), Pushed::Queued);
        }
        assert_eq!(queue.letters(), "s");
        for _ in 0..QUEUE_EVENTS_MIN {
            let _ = queue.push(Event::Listening);
        }
        assert_eq!(queue.push(Event::Lost(LostReason::Connection)), Pushed::Queued);
        assert_eq!(queue.letters(), "X");
    }

    #[test]
    fn what_was_queued_can_be_read_after_the_end() {
        let queue = Queue::new(QUEUE_EVENTS_MIN);
        let _ = queue.push(Event::Listening);
        queue.end();
        assert!(matches!(queue.pop(), Popped::Event(Event::Listening)));
        assert!(matches!(queue.pop(), Popped::Ended));
    }
}
