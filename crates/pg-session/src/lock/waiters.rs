//! Who waits on this node, and for which lock: notifications of releases wake them.
//!
//! For each lock, one waiter of the node has the turn. It alone asks the database and is woken. The
//! others queue behind it, first come, first served, without a statement. So a release costs each
//! node one statement, however many wait.
//!
//! A release cannot be missed between a waiter's look and its sleep. The waiter enters before it looks, and a
//! wake that finds no waiter asleep is kept for the next one. While the node is disconnected, it looks more
//! often. When it listens again, all waiters are woken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::notification::LockTopic;

/// How long a waiter sleeps at most while the node listens, and while it does not.
const POLL_LISTENING: Duration = Duration::from_secs(10);
const POLL_DISCONNECTED: Duration = Duration::from_millis(500);

/// The node's waiters.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    gates: Mutex<HashMap<LockTopic, Entry>>,
    listening: AtomicBool,
}

#[derive(Debug)]
struct Entry {
    gate: Arc<Gate>,
    /// Places at this gate; the entry goes with the last.
    places: usize,
}

#[derive(Debug)]
struct Gate {
    turn: Semaphore,
    /// For the statements of those that wait and those that do not: one at a time. In the database they would wait for
    /// the same row, each with a connection.
    statement: Semaphore,
    released: Notify,
}

/// A waiter's place at a lock's gate.
#[derive(Debug)]
pub(super) struct Place {
    waiters: Arc<Waiters>,
    wake: LockTopic,
    gate: Arc<Gate>,
}

impl Waiters {
    /// A release was received.
    pub(crate) fn wake(&self, wake: LockTopic) {
        if let Some(entry) = self.gates().get(&wake) {
            entry.gate.released.notify_one();
        }
    }

    /// From now on, releases are received. An earlier one may have been missed by a waiter that is about to sleep.
    pub(crate) fn connect(&self) {
        self.listening.store(true, Ordering::Relaxed);
        self.wake_all();
    }

    /// From now on, releases are missed.
    pub(crate) fn disconnect(&self) {
        self.listening.store(false, Ordering::Relaxed);
        self.wake_all();
    }

    pub(super) fn enter(self: &Arc<Self>, wake: LockTopic) -> Place {
        let mut gates = self.gates();
        let entry = gates.entry(wake).or_insert_with(|| Entry {
            gate: Arc::new(Gate {
                turn: Semaphore::new(1),
                statement: Semaphore::new(1),
                released: Notify::new(),
            }),
            places: 0,
        });
        entry.places += 1;
        Place { waiters: Arc::clone(self), wake, gate: Arc::clone(&entry.gate) }
    }

    fn wake_all(&self) {
        self.gates().values().for_each(|entry| entry.gate.released.notify_one());
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<LockTopic, Entry>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for the turn. The semaphore is never closed, so there always is one.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.gate.turn.acquire().await.ok()
    }

    /// Waits until no other statement of the node takes this lock. The semaphore is never closed.
    pub(super) async fn statement(&self) -> Option<SemaphorePermit<'_>> {
        self.gate.statement.acquire().await.ok()
    }

    /// Waits for a release, or for what may be one.
    pub(super) async fn released(&self) {
        self.gate.released.notified().await;
    }

    /// How long to sleep without being woken.
    pub(super) fn poll(&self) -> Duration {
        if self.waiters.listening.load(Ordering::Relaxed) { POLL_LISTENING } else { POLL_DISCONNECTED }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut gates = self.waiters.gates();
        if let Some(entry) = gates.get_mut(&self.wake) {
            entry.places -= 1;
            if entry.places == 0 {
                gates.remove(&self.wake);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn wake() -> LockTopic {
        LockTopic(Uuid::new_v4())
    }

    #[tokio::test]
    async fn a_release_between_look_and_sleep_is_kept() {
        let (waiters, wake) = (Arc::new(Waiters::default()), wake());
        let place = waiters.enter(wake);
        waiters.wake(wake);
        place.released().await;
    }

    #[tokio::test]
    async fn one_waiter_of_a_lock_has_the_turn() {
        let (waiters, wake) = (Arc::new(Waiters::default()), wake());
        let (first, second) = (waiters.enter(wake), waiters.enter(wake));
        let turn = first.turn().await.unwrap();
        assert!(second.gate.turn.try_acquire().is_err());
        drop(turn);
        assert!(second.turn().await.is_some());
    }

    #[test]
    fn a_gate_goes_with_its_last_waiter() {
        let (waiters, wake) = (Arc::new(Waiters::default()), wake());
        let (first, second) = (waiters.enter(wake), waiters.enter(wake));
        drop(first);
        assert_eq!(waiters.gates().len(), 1);
        drop(second);
        assert!(waiters.gates().is_empty());
        waiters.wake(wake);
    }

    #[tokio::test]
    async fn disconnected_node_polls_locks_more_often() {
        let waiters = Arc::new(Waiters::default());
        let place = waiters.enter(wake());
        assert_eq!(place.poll(), POLL_DISCONNECTED);
        waiters.connect();
        assert_eq!(place.poll(), POLL_LISTENING);
        place.released().await;
        waiters.disconnect();
        place.released().await;
    }
}
