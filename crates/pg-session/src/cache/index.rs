//! Which cached sessions belong to a user or a group, to drop them all without knowing their ids.
//!
//! The index counts: an entry that is replaced, evicted or removed takes away one, an install adds one first. So a
//! late removal by an eviction can never take away what a newer install has added.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::PoisonError;

use uuid::Uuid;

use super::fill::Ticket;
use super::sync::{Mutex, MutexGuard, SHARDS};
use crate::failpoints::{Guard, Probes};
use crate::id::SessionId;

/// The cached sessions by owner.
#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[Mutex<Shard>]>,
    probes: Probes,
}

#[derive(Debug, Default)]
struct Shard {
    /// By owner and session, as numbers: they are compared in registers, bytes by a call.
    counts: BTreeMap<(u128, u128), u32>,
    /// The sequence of the last invalidation of an owner in this shard.
    dropped_at: u64,
}

impl Index {
    pub(super) fn new(probes: Probes) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), probes }
    }

    /// Adds an entry, unless its owner was dropped after `ticket` was taken: the load may have missed it.
    ///
    /// One lock covers check and add. A drop calls [`refuse_older`](Index::refuse_older) before it
    /// lists. So either the install sees that, or the drop sees the entry.
    #[must_use]
    pub(super) fn add(&self, owner: Uuid, id: SessionId, ticket: Ticket) -> bool {
        let mut shard = self.shard(owner);
        if shard.dropped_at > ticket.sequence {
            return false;
        }
        let count = shard.counts.entry(key(owner, id)).or_insert(0);
        *count = if self.probes.holds(Guard::IndexCount) { *count + 1 } else { 1 };
        true
    }

    pub(super) fn remove(&self, owner: Uuid, id: SessionId) {
        let mut shard = self.shard(owner);
        match shard.counts.entry(key(owner, id)) {
            Entry::Occupied(count) if *count.get() == 1 => {
                count.remove();
            }
            Entry::Occupied(mut count) => *count.get_mut() -= 1,
            Entry::Vacant(_) => debug_assert!(false, "removed more often than added"),
        }
    }

    /// From now on, loads that began earlier are refused for this owner.
    pub(super) fn refuse_older(&self, owner: Uuid, sequence: impl FnOnce() -> u64) {
        let mut shard = self.shard(owner);
        shard.dropped_at = sequence();
    }

    /// The owner's entries in the order of their ids: at most `entries_max` of them, from `first` on.
    pub(super) fn list(&self, owner: Uuid, first: SessionId, entries_max: usize) -> Vec<SessionId> {
        let shard = self.shard(owner);
        let of_owner = shard.counts.range(key(owner, first)..=key(owner, SessionId::MAX)).take(entries_max);
        of_owner.map(|(&(_, id), _)| SessionId::from_uuid(Uuid::from_u128(id))).collect()
    }

    #[cfg(any(test, shuttle))]
    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).counts.len())
            .sum()
    }

    fn shard(&self, owner: Uuid) -> MutexGuard<'_, Shard> {
        let shard = SessionId::from_uuid(owner).spread() % SHARDS;
        // Each critical section leaves the shard consistent, so a panic elsewhere does not spoil it.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(owner: Uuid, id: SessionId) -> (u128, u128) {
    (owner.as_u128(), id.expose().as_u128())
}
