//! What the stories call: the library's cache as it is, or with one guard missing.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::cache::{self, Cache};
use crate::clock::{Clock, DbTime, Tick};
use crate::failpoints::{Guard, Probes};
use crate::id::{GroupId, SessionId, UserId};
use crate::session::IdleLimit;
use crate::session::attributes::Attributes;
use crate::session::limits::Limits;
use crate::session::record::{Policy, Record, Revision, Row, SharedRecord};
use crate::version::Version;

/// A guard of the cache that a control leaves out. Some are switches of the library. For the others, [`Memory`] puts
/// the library's single steps together without the guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// An install does not look at the ticket.
    FillTicket,
    /// An invalidation removes the entry, then revokes the tickets.
    TicketsBeforeEntry,
    /// A stripe loses its oldest invalidation without a trace.
    Forgotten,
    /// A write in flight has no mark.
    WriteMark,
    /// A publish does not revoke older tickets.
    PublishRevokes,
    /// A publish replaces what is in memory.
    PublishOrder,
    /// A load that found nothing does not revoke older tickets.
    AbsenceRevokes,
    /// A drop of a user's sessions does not revoke tickets.
    OwnerRevokes,
    /// A drop of a user's sessions removes the entries, then revokes the tickets.
    OwnerTicketsFirst,
    /// A drop of all sessions removes the entries and begins no generation.
    Generation,
    /// An index does not count.
    IndexCount,
    /// A refused fill stays in the user's index.
    IndexRollback,
    /// An entry belongs to the epoch of its arrival.
    TicketEpoch,
    /// An install does not look at a newer entry.
    NewerEntry,
    /// A load that found nothing does not look at the ticket.
    EndedTicket,
}

impl Missing {
    pub const ALL: [Self; 15] = [
        Self::FillTicket,
        Self::TicketsBeforeEntry,
        Self::Forgotten,
        Self::WriteMark,
        Self::PublishRevokes,
        Self::PublishOrder,
        Self::AbsenceRevokes,
        Self::OwnerRevokes,
        Self::OwnerTicketsFirst,
        Self::Generation,
        Self::IndexCount,
        Self::IndexRollback,
        Self::TicketEpoch,
        Self::NewerEntry,
        Self::EndedTicket,
    ];
}

/// A fill ticket.
#[derive(Clone, Copy, Debug)]
pub struct Ticket(cache::Ticket);

/// A cache that listens.
#[derive(Debug)]
pub struct Memory {
    cache: Cache,
    missing: Option<Missing>,
}

/// The sessions of the stories; they are all one user's, and of one group.
#[must_use]
pub fn id(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

fn user() -> UserId {
    UserId::from(7_i64)
}

fn group() -> GroupId {
    GroupId::from(8_i64)
}

fn record(id: SessionId, version: i64) -> SharedRecord {
    let limits = Limits { key_bytes_max: 9, value_bytes_max: 9, attributes_max: 9, session_bytes_max: 99 };
    let hour = Duration::from_secs(3_600);
    let policy =
        Arc::new(Policy { clock: Clock::monotonic(), limits, idle_timeout: hour, touch_resolution: hour });
    let row = Row {
        id,
        user_id: Some(user()),
        group_id: Some(group()),
        version: Version::new(version),
        created_at: DbTime::NEVER,
        updated_at: DbTime::NEVER,
        expires_at: DbTime::NEVER,
        idle_limit: IdleLimit::Exempt,
        rotated: false,
    };
    SharedRecord::new(Record::new(policy, row, Attributes::default(), DbTime::NEVER))
}

impl Memory {
    #[must_use]
    pub fn new(sessions_max: usize, missing: Option<Missing>) -> Self {
        let probes = Probes::default();
        let removed = match missing {
            Some(Missing::FillTicket) => Some(Guard::FillTicket),
            Some(Missing::Forgotten) => Some(Guard::Forgotten),
            Some(Missing::PublishOrder) => Some(Guard::PublishOrder),
            Some(Missing::IndexCount) => Some(Guard::IndexCount),
            Some(Missing::IndexRollback) => Some(Guard::IndexRollback),
            Some(Missing::EndedTicket) => Some(Guard::EndedTicket),
            _ => None,
        };
        removed.into_iter().for_each(|guard| probes.remove(guard));
        let cache = Cache::new(sessions_max, Duration::from_secs(3_600), probes);
        cache.start_listening();
        Self { cache, missing }
    }

    fn lacks(&self, guard: Missing) -> bool {
        self.missing == Some(guard)
    }

    pub fn ticket(&self) -> Ticket {
        Ticket(self.cache.ticket())
    }

    pub fn install(&self, ticket: Ticket, id: SessionId, version: i64) -> bool {
        let ticket = if self.lacks(Missing::TicketEpoch) { self.ticket() } else { ticket };
        self.cache.install(ticket.0, &record(id, version))
    }

    pub fn publish(&self, ticket: Ticket, id: SessionId, version: i64) {
        if self.lacks(Missing::PublishRevokes) {
            self.install(ticket, id, version);
            return;
        }
        if self.lacks(Missing::NewerEntry) {
            self.cache.evict(id);
        }
        self.cache.publish(ticket.0, &record(id, version));
    }

    /// Holds the mark of a write while `write` runs.
    pub fn writing(&self, id: SessionId, write: impl FnOnce()) {
        let _mark = (!self.lacks(Missing::WriteMark)).then(|| self.cache.begin_write(id));
        write();
    }

    pub fn invalidate(&self, id: SessionId, version: i64) {
        if self.lacks(Missing::TicketsBeforeEntry) {
            if self.get(id).is_some_and(|found| found < version) {
                self.cache.evict(id);
            }
            self.cache.revoke_tickets(id, Version::new(version));
        } else {
            self.cache.invalidate(id, Version::new(version));
        }
    }

    pub fn mark_absent(&self, ticket: Ticket, id: SessionId) {
        if self.lacks(Missing::AbsenceRevokes) {
            self.cache.evict(id);
        } else {
            self.cache.mark_absent(ticket.0, id, Tick::from_nanos(u64::MAX));
        }
    }

    /// Whether the session is remembered as ended.
    pub fn is_ended(&self, id: SessionId) -> bool {
        self.cache.ended(id).is_some()
    }

    pub fn remove_user(&self) {
        let forget_all = || self.cache.sessions_of(user()).into_iter().for_each(|id| self.cache.remove(id));
        if self.lacks(Missing::OwnerRevokes) {
            forget_all();
            return;
        }
        if self.lacks(Missing::OwnerTicketsFirst) {
            forget_all();
            let _unlisted = self.cache.remove_user(user());
            return;
        }
        let mut dropping = self.cache.remove_user(user());
        while dropping.step() {}
    }

    pub fn remove_group(&self) {
        let mut dropping = self.cache.remove_group(group());
        while dropping.step() {}
    }

    pub fn remove_all(&self) {
        if self.lacks(Missing::Generation) {
            self.cache.drain();
        } else {
            self.cache.remove_all();
        }
    }

    pub fn stop_listening(&self) {
        self.cache.stop_listening();
    }

    pub fn start_listening(&self) {
        self.cache.start_listening();
    }

    pub fn verify(&self, ticket: Ticket, id: SessionId, found: i64) {
        let revision = Revision { version: Version::new(found), updated_at: DbTime::NEVER };
        self.cache.verify(ticket.0, id, Some((revision, DbTime::NEVER)));
    }

    /// The version in memory. What `remove_all` left is never served.
    pub fn get(&self, id: SessionId) -> Option<i64> {
        let slot = self.cache.get(id).filter(|slot| slot.epoch.is_of_generation(self.cache.epoch()))?;
        Some(slot.record.row.version.get())
    }

    /// The version in memory, if a trusted node may serve it.
    pub fn hit(&self, id: SessionId) -> Option<i64> {
        let slot = self.cache.get(id)?;
        (slot.epoch == self.cache.epoch()).then(|| slot.record.row.version.get())
    }

    /// Entries in memory, after those of earlier generations were freed.
    pub fn sessions(&self) -> usize {
        self.cache.unverified();
        self.cache.stats().sessions
    }

    pub fn evict(&self, id: SessionId) {
        self.cache.evict(id);
    }

    /// Entries of the indices of users and of groups.
    pub fn indexed(&self) -> (usize, usize) {
        self.cache.indexed()
    }
}
