//! What the stories call: the library's cache, or one of the copies that lack a guard.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::{Clock, DbTime};
use crate::id::{GroupId, SessionId, UserId};
use crate::probes::Probes;
use crate::session::IdleLimit;
use crate::session::attributes::Attributes;
use crate::session::changes::Limits;
use crate::session::record::{Record, Revision, Row, Rules, SharedRecord};
use crate::version::Version;

/// One of the copies. All calls are the library's own, but for the last two.
pub trait Memory: Send + Sync + 'static {
    type Ticket: Copy + Send + 'static;

    /// Listening, with so many places.
    fn new(sessions_max: usize) -> Self;
    fn ticket(&self) -> Self::Ticket;
    fn install(&self, ticket: Self::Ticket, id: SessionId, version: i64) -> bool;
    fn publish(&self, ticket: Self::Ticket, id: SessionId, version: i64);
    /// Holds the mark of a write while `write` runs.
    fn writing(&self, id: SessionId, write: impl FnOnce());
    fn invalidate(&self, id: SessionId, version: i64);
    fn forget(&self, id: SessionId);
    fn discard(&self, id: SessionId);
    fn drop_user(&self);
    fn drop_group(&self);
    fn drop_all(&self);
    fn stop_listening(&self);
    fn start_listening(&self);
    fn verify(&self, ticket: Self::Ticket, id: SessionId, found: i64);
    /// The version in memory.
    fn get(&self, id: SessionId) -> Option<i64>;
    /// The same, if it may be served by a node that is trusted.
    fn hit(&self, id: SessionId) -> Option<i64>;
    fn sessions(&self) -> usize;
    fn evict(&self, id: SessionId);
    /// Entries of the indices of users and of groups.
    fn indexed(&self) -> (usize, usize);
}

/// The sessions of the stories; they are all one user's, and of one group.
pub fn id(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

pub fn user() -> UserId {
    UserId::from(7_i64)
}

pub fn group() -> GroupId {
    GroupId::from(8_i64)
}

pub fn record(id: SessionId, version: i64) -> SharedRecord {
    let limits = Limits { key_bytes_max: 9, value_bytes_max: 9, attributes_max: 9, session_bytes_max: 99 };
    let hour = Duration::from_secs(3_600);
    let rules = Arc::new(Rules { clock: Clock::monotonic(), limits, idle_timeout: hour, touch_step: hour });
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
    SharedRecord::new(Record::new(rules, row, Attributes::default(), DbTime::NEVER))
}

macro_rules! memories {
    ($($copy:ident)+) => {$(
        impl Memory for crate::$copy::cache::Cache {
            type Ticket = crate::$copy::cache::Ticket;

            fn new(sessions_max: usize) -> Self {
                let cache = Self::new(sessions_max, Duration::from_secs(3_600), Probes::default());
                cache.start_listening();
                cache
            }

            fn ticket(&self) -> Self::Ticket {
                self.ticket()
            }

            fn install(&self, ticket: Self::Ticket, id: SessionId, version: i64) -> bool {
                self.install(ticket, &record(id, version))
            }

            fn publish(&self, ticket: Self::Ticket, id: SessionId, version: i64) {
                self.publish(ticket, &record(id, version));
            }

            fn writing(&self, id: SessionId, write: impl FnOnce()) {
                let _writing = self.begin_write(id);
                write();
            }

            fn invalidate(&self, id: SessionId, version: i64) {
                self.invalidate(id, Version::new(version));
            }

            fn forget(&self, id: SessionId) {
                self.forget(id);
            }

            fn discard(&self, id: SessionId) {
                self.discard(id);
            }

            fn drop_user(&self) {
                let mut dropping = self.drop_user(user());
                while dropping.step() {}
            }

            fn drop_group(&self) {
                let mut dropping = self.drop_group(group());
                while dropping.step() {}
            }

            fn drop_all(&self) {
                self.drop_all();
            }

            fn stop_listening(&self) {
                self.stop_listening();
            }

            fn start_listening(&self) {
                self.start_listening();
            }

            fn verify(&self, ticket: Self::Ticket, id: SessionId, found: i64) {
                self.verify(ticket, id, Some((Revision { version: Version::new(found), updated_at: DbTime::NEVER }, DbTime::NEVER)));
            }

            fn get(&self, id: SessionId) -> Option<i64> {
                // What `drop_all` left is never served.
                let slot = self.get(id).filter(|slot| slot.epoch.is_of_generation(self.epoch()))?;
                Some(slot.record.row.version.get())
            }

            fn hit(&self, id: SessionId) -> Option<i64> {
                let slot = self.get(id)?;
                (slot.epoch == self.epoch()).then(|| slot.record.row.version.get())
            }

            fn sessions(&self) -> usize {
                self.unverified();
                self.stats().sessions
            }

            fn evict(&self, id: SessionId) {
                self.evict(id);
            }

            fn indexed(&self) -> (usize, usize) {
                self.indexed()
            }
        }
    )+};
}

memories! {
    as_it_is
    without_ticket
    without_stripe_first
    without_forgotten
    without_writing
    without_publish_note
    without_publish_order
    without_discard_note
    without_owner_dropped
    without_bump_first
    without_generation
    without_counting
    without_taking_back
    without_tickets_epoch
    without_listening
    without_forward
}
