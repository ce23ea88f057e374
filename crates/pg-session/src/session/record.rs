//! One version of a session, as the database holds it: immutable but for the last access.
//!
//! I6: a record's row and attributes always belong to one version. There are two ways to make one, and both keep
//! that: from one statement's snapshot, and from a record plus the changes that directly follow its version.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::attributes::Attributes;
use super::decoded::Decoded;
use super::expiry::{Access, IdleLimit, Touch, Unflushed};
use super::limits::Limits;
use crate::clock::{Clock, DbTime};
use crate::id::{GroupId, SessionId, UserId};
use crate::version::Version;

/// What every session of one manager is judged by.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    pub(crate) idle_timeout: Duration,
    /// Accesses closer together than this are one.
    pub(crate) touch_resolution: Duration,
}

/// A record and the count of its holders.
///
/// The standard library's `Arc` also has a weak count. Without it, the count and the last access, which a hit reads,
/// are the first 16 bytes of an allocation. Allocators align that to 16 bytes on 64-bit machines, so they are in one
/// cache line. If the sessions exceed the processor's caches, each fetched line costs as much as the rest of a hit.
pub(crate) type SharedRecord = triomphe::Arc<Record>;

/// A session's row and attributes at one version. What a hit reads comes first; see [`SharedRecord`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Record {
    pub(crate) access: Access,
    pub(crate) row: Row,
    pub(crate) policy: Arc<Policy>,
    pub(crate) attributes: Attributes,
    unflushed: Unflushed,
    /// When memory is to read the session again although nothing happened.
    stale_at: AtomicI64,
    /// What the application keeps beside this version.
    pub(crate) attached: Decoded,
}

/// The columns of `sessions`, but for the last access, which moves without a new version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(crate) struct Row {
    pub(crate) expires_at: DbTime,
    pub(crate) idle_limit: IdleLimit,
    /// The session was rotated; this is the row of a retired id.
    pub(crate) rotated: bool,
    pub(crate) version: Version,
    pub(crate) id: SessionId,
    /// `None` for an anonymous session.
    pub(crate) user_id: Option<UserId>,
    pub(crate) group_id: Option<GroupId>,
    pub(crate) created_at: DbTime,
    pub(crate) updated_at: DbTime,
}

/// Identifies one content of a session.
///
/// A version number alone does not. After a restored backup, or a failover that lost commits, the
/// database gives a number again, to other content. The time of the commit tells the two apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Revision {
    pub(crate) version: Version,
    pub(crate) updated_at: DbTime,
}

impl Row {
    pub(crate) fn revision(&self) -> Revision {
        Revision { version: self.version, updated_at: self.updated_at }
    }
}

impl Record {
    pub(crate) fn new(
        policy: Arc<Policy>,
        row: Row,
        attributes: Attributes,
        last_accessed_at: DbTime,
    ) -> Self {
        debug_assert!(row.version > Version::ABSENT, "the table's check keeps versions positive");
        let (access, unflushed) = (Access::new(last_accessed_at), Unflushed::default());
        Self {
            access,
            row,
            policy,
            attributes,
            unflushed,
            stale_at: AtomicI64::new(DbTime::NEVER.nanos()),
            attached: Decoded::new(),
        }
    }

    /// When the session ends, by everything that the database has confirmed.
    pub(crate) fn ends_at(&self) -> DbTime {
        match self.row.idle_limit {
            IdleLimit::Enforced => {
                self.row.expires_at.min(self.access.confirmed().plus(self.policy.idle_timeout))
            }
            IdleLimit::Exempt => self.row.expires_at,
        }
    }

    /// I4: at `ends_at` itself the session is gone, as in the statements' `expires_at > now`.
    pub(crate) fn is_live(&self, now: DbTime) -> bool {
        now < self.ends_at()
    }

    /// It enters memory, for at most `lifetime`. Returns until when it can be served without another look at it; after that
    /// see [`lives_on`](Record::lives_on).
    pub(crate) fn enter_memory(&self, lifetime: Duration) -> DbTime {
        let stale_at = self.policy.clock.database_now().plus(lifetime);
        self.stale_at.store(stale_at.nanos(), Ordering::Relaxed);
        stale_at.min(self.ends_at())
    }

    /// Whether it can be served although its end, as it was when it entered memory, has passed.
    /// Accesses that were confirmed since may have moved it.
    #[cold]
    pub(crate) fn lives_on(&self, now: DbTime) -> bool {
        now < DbTime::from_nanos(self.stale_at.load(Ordering::Relaxed)) && self.is_live(now)
    }

    /// Records an access; the caller queues the record as the result says. What a rotation left behind ends with its grace,
    /// no matter who reads it. A hit has the policy at hand; to follow the record's own pointer would fetch a line more.
    #[inline]
    pub(crate) fn touch(&self, policy: &Policy, now: DbTime) -> Touch {
        if self.access.is_recent(now, policy.touch_resolution) || self.row.rotated {
            return Touch::Nothing;
        }
        let urgent_after = match self.row.idle_limit {
            IdleLimit::Enforced => Some(policy.idle_timeout / 2),
            IdleLimit::Exempt => None,
        };
        self.access.touch(&self.unflushed, now, urgent_after)
    }

    /// The access to flush; see [`Access::take`].
    pub(crate) fn take_access(&self) -> DbTime {
        self.access.take(&self.unflushed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hit_looks_at_is_on_one_cache_line() {
        const LINE: usize = 64;
        let limits =
            Limits { key_bytes_max: 9, value_bytes_max: 9, attributes_max: 9, session_bytes_max: 99 };
        let hour = Duration::from_secs(3_600);
        let policy = Arc::new(Policy {
            clock: Clock::monotonic(),
            limits,
            idle_timeout: hour,
            touch_resolution: hour,
        });
        let now = policy.clock.database_now();
        let row = Row {
            expires_at: DbTime::NEVER,
            idle_limit: IdleLimit::Enforced,
            rotated: false,
            version: Version::new(1),
            id: SessionId::random(),
            user_id: None,
            group_id: None,
            created_at: now,
            updated_at: now,
        };
        for _ in 0..100 {
            let record = SharedRecord::new(Record::new(Arc::clone(&policy), row, Attributes::default(), now));
            let count = SharedRecord::heap_ptr(&record).addr();
            let last = (&raw const record.access).addr() + std::mem::offset_of!(Access, last);
            assert_eq!(last - count, 8, "nothing lies between them");
            assert_eq!(count / LINE, (last + 7) / LINE);
        }
    }
}
