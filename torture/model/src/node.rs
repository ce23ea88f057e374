//! A node: its memory and its three lanes.

use crate::cache::Cache;
use crate::hearing::Hearing;
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
    pub hearing: Hearing,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            cache: Cache::new(),
            reading: Reading::new(),
            writing: Writing::new(),
            hearing: Hearing::new(),
        }
    }

    pub(crate) fn tick(&mut self, policy: &Policy) {
        self.reading.tick(policy);
        self.hearing.tick(policy);
    }

    /// A session that a caller on this node holds, and may update.
    pub(crate) fn holds_session(&self) -> bool {
        self.reading.answered.is_live()
    }

    pub(crate) fn canonical(&mut self, policy: &Policy) {
        self.reading.canonical(policy, &self.cache);
        let load = self.reading.flight.as_mut().map(|flight| &mut flight.ticket);
        let write = self.writing.ticket();
        let verify = self.hearing.ticket();
        self.cache.canonical(load.into_iter().chain(write).chain(verify));
    }

    /// Whether the node gets from here to serving hits, by itself, if nothing else happens.
    pub(crate) fn recovers(&self, policy: &Policy) -> bool {
        let mut node = self.clone();
        for _ in 0..RECOVERY_STEPS_MAX {
            if node.hearing.trust > 0 && node.cache.is_listening() {
                return true;
            }
            node.recover(policy);
        }
        false
    }

    fn recover(&mut self, policy: &Policy) {
        let hearing = &mut self.hearing;
        if hearing.may_notice_loss() {
            hearing.lost();
        } else if hearing.may_listen(policy) {
            hearing.listen();
        } else if !hearing.events.is_empty() {
            hearing.hear(policy, &mut self.cache);
        } else if hearing.may_send_barrier() {
            hearing.send_barrier(policy);
        }
    }
}
