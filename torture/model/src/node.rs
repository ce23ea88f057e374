//! A node: its memory and its three lanes.

use crate::cache::Cache;
use crate::database::Database;
use crate::listening::{Event, Listening, Resync};
use crate::policy::Policy;
use crate::reading::Reading;
use crate::writing::Writing;

/// More than the longest queue, a reconnect and a barrier take.
const RECOVERY_STEPS_MAX: usize = 20;

/// One process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    pub cache: Cache,
    pub reading: Reading,
    pub writing: Writing,
    pub listening: Listening,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            cache: Cache::new(),
            reading: Reading::new(),
            writing: Writing::new(),
            listening: Listening::new(),
        }
    }

    pub(crate) fn tick(&mut self, policy: &Policy) {
        self.reading.tick(policy);
        self.listening.tick(policy);
    }

    /// A session that a caller on this node holds, and may update.
    pub(crate) fn holds_session(&self) -> bool {
        self.reading.answered.is_live()
    }

    pub(crate) fn canonical(&mut self, policy: &Policy) {
        self.reading.canonical(policy, &self.cache);
        let load = self.reading.flight.as_mut().map(|flight| &mut flight.ticket);
        let write = self.writing.ticket();
        let verify = self.listening.ticket();
        self.cache.canonical(load.into_iter().chain(write).chain(verify));
    }

    /// Whether the node gets from here to serving hits, by itself, if nothing else happens.
    pub(crate) fn recovers(&self, policy: &Policy, database: &Database) -> bool {
        let mut node = self.clone();
        for _ in 0..RECOVERY_STEPS_MAX {
            if node.listening.trust > 0 && node.cache.is_listening() {
                return true;
            }
            node.recover(policy, database);
        }
        false
    }

    /// Whether nothing in memory is served that is older than the database holds, once `notified` has come as well.
    pub(crate) fn learns(mut self, policy: &Policy, notified: Option<Event>, database: &Database) -> bool {
        if let Some(event) = notified {
            self.listening.notify(event);
        }
        for _ in 0..RECOVERY_STEPS_MAX {
            self.recover(policy, database);
        }
        if self.reading.flight.is_some_and(|flight| flight.read.is_some()) {
            self.reading.arrive(policy, &mut self.cache, database);
        }
        !self.cache.is_outdated(database.row)
    }

    fn recover(&mut self, policy: &Policy, database: &Database) {
        let listening = &mut self.listening;
        if listening.may_notice_loss() {
            listening.lost();
        } else if listening.may_listen(policy) {
            listening.listen();
        } else if !listening.events.is_empty() {
            listening.receive(policy, &mut self.cache);
        } else if listening.resync != Resync::Idle {
            listening.resync(policy, &mut self.cache, database);
        } else if listening.may_send_barrier() {
            listening.send_barrier(policy);
        }
    }
}
