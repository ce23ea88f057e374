//! Single steps of the cache's operations, for `torture/model/cache` only. Its controls put them together in a wrong
//! order, or leave one out, and must fail.

use super::Cache;
use crate::id::{SessionId, UserId};
use crate::version::Version;

impl Cache {
    /// Removes one entry, as an eviction does: without the stripe's lock.
    pub(crate) fn evict(&self, id: SessionId) {
        self.take(id);
    }

    /// Removes all entries and starts no new generation.
    pub(crate) fn drain(&self) {
        self.slots.drain().for_each(|(id, slot)| self.unindex(id, &slot.record));
    }

    /// Revokes older tickets for `id` and leaves the entry.
    pub(crate) fn revoke_tickets(&self, id: SessionId, version: Version) {
        self.stripe(id).note(id, version, self.next());
    }

    pub(crate) fn sessions_of(&self, user: UserId) -> Vec<SessionId> {
        self.users.list(user.as_uuid(), SessionId::MIN, usize::MAX)
    }

    /// Entries of the indices of users and of groups.
    pub(crate) fn indexed(&self) -> (usize, usize) {
        (self.users.len(), self.groups.len())
    }
}
