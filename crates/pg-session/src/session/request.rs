//! What a caller asks of sessions: one type for each verb. The writer carries them out.

use std::sync::Arc;
use std::time::Duration;

use super::attributes::{Attributes, Writes};
use super::changes::Changes;
use super::check::Check;
use super::expiry::IdleLimit;
use super::keep::Keep;
use super::record::{Policy, Record, Revision, Row, SharedRecord};
use crate::clock::DbTime;
use crate::ending::Ending;
use crate::id::{GroupId, Scope, SessionId, UserId};
use crate::label::{Label, Labels};
use crate::version::Version;

/// A new absolute limit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expiry {
    At(DbTime),
    /// Counted from the statement, by the database's clock.
    In(Duration),
}

/// What is to change in the session's row, beside its attributes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowChange {
    pub(crate) expiry: Option<Expiry>,
    pub(crate) idle_limit: Option<IdleLimit>,
    pub(crate) group_id: Option<Option<GroupId>>,
}

impl RowChange {
    pub(crate) fn is_empty(&self) -> bool {
        self.expiry.is_none() && self.idle_limit.is_none() && self.group_id.is_none()
    }
}

/// A session to create.
#[derive(Debug)]
pub(crate) struct NewSession {
    pub(crate) id: SessionId,
    /// Whether clients may have asked for it already.
    pub(crate) is_id_known: bool,
    /// `None` for an anonymous session. Their number is not limited.
    pub(crate) user_id: Option<UserId>,
    pub(crate) group_id: Option<GroupId>,
    pub(crate) expiry: Expiry,
    pub(crate) idle_limit: IdleLimit,
    /// The cap of this login, instead of the configured one.
    pub(crate) cap: Option<u32>,
    pub(crate) labels: Labels,
    pub(crate) changes: Changes,
}

impl NewSession {
    /// I7: the live sessions that the user may have, this one included.
    pub(crate) fn sessions_max(&self, configured: Option<u32>) -> Option<u32> {
        self.user_id.and(self.cap.or(configured))
    }

    pub(crate) fn attributes(&self, now: DbTime) -> Attributes {
        Attributes::default().apply(&self.changes, Version::FIRST, now)
    }

    /// What the database holds once it has created the session.
    pub(crate) fn record(
        &self,
        policy: &Arc<Policy>,
        attributes: Attributes,
        created_at: DbTime,
        expires_at: DbTime,
    ) -> SharedRecord {
        let row = Row {
            id: self.id,
            user_id: self.user_id,
            group_id: self.group_id,
            version: Version::FIRST,
            created_at,
            updated_at: created_at,
            expires_at,
            idle_limit: self.idle_limit,
            rotated: false,
        };
        SharedRecord::new(Record::new(Arc::clone(policy), row, attributes, created_at))
    }
}

/// One session's changes.
#[derive(Debug)]
pub(crate) struct UpdateRequest {
    /// What the caller saw. After a conflict, what the database held then, if the check allows it.
    pub(crate) base: SharedRecord,
    pub(crate) changes: Changes,
    pub(crate) row: RowChange,
    pub(crate) check: Check,
    pub(crate) notify: bool,
}

/// What the database made of an update; the rest is known beforehand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied {
    pub(crate) updated_at: DbTime,
    pub(crate) expires_at: DbTime,
    pub(crate) last_accessed_at: DbTime,
}

impl UpdateRequest {
    pub(crate) fn id(&self) -> SessionId {
        self.base.row.id
    }

    /// The revision that it is made from.
    pub(crate) fn base(&self) -> Revision {
        self.base.row.revision()
    }

    /// Whether the update moves the session to another group.
    pub(crate) fn joins_group(&self) -> bool {
        self.row.group_id.flatten().is_some_and(|group| self.base.row.group_id != Some(group))
    }

    /// What the session has once the update is applied on top of `base`.
    pub(crate) fn attributes(&self) -> Attributes {
        let now = self.base.policy.clock.database_now();
        self.base.attributes.apply(&self.changes, self.base.row.version.next(), now)
    }

    /// What is to be written, so that the session has the attributes `after`.
    pub(crate) fn writes<'a>(&'a self, after: &'a Attributes) -> Writes<'a> {
        Writes::new(&self.base.attributes, after)
    }

    /// The keys that differ if the check fails on `found`. None if the version was checked.
    pub(crate) fn conflict(&self, found: &Record) -> Option<Vec<String>> {
        match self.check {
            Check::None => None,
            Check::Version => (found.row.revision() != self.base()).then(Vec::new),
            Check::Attributes => {
                let now = found.policy.clock.database_now();
                let keys = found.attributes.differing(&self.base.attributes, &self.changes, now);
                (!keys.is_empty()).then_some(keys)
            }
        }
    }

    /// I6: the statement applied the update on top of `base` or not at all, so this is what the database holds.
    pub(crate) fn record(&self, attributes: Attributes, applied: Applied) -> SharedRecord {
        let Self { base, row, .. } = self;
        let Applied { updated_at, expires_at, last_accessed_at } = applied;
        let row = Row {
            version: base.row.version.next(),
            updated_at,
            expires_at,
            idle_limit: row.idle_limit.unwrap_or(base.row.idle_limit),
            group_id: row.group_id.unwrap_or(base.row.group_id),
            ..base.row
        };
        let record = Record::new(Arc::clone(&base.policy), row, attributes, last_accessed_at);
        record.access.inherit(&base.access);
        SharedRecord::new(record)
    }
}

/// A session that continues under a new id.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// What the caller saw. After a conflict, what the database held then.
    pub(crate) base: SharedRecord,
    pub(crate) new_id: SessionId,
    /// The user, if it changes: the session then counts as a new one of that user.
    pub(crate) new_user: Option<UserId>,
    pub(crate) row: RowChange,
    pub(crate) grace: Duration,
    /// The cap of this login, instead of the configured one.
    pub(crate) cap: Option<u32>,
    /// Instead of those that the session has.
    pub(crate) labels: Option<Labels>,
    pub(crate) keep: Keep,
    pub(crate) changes: Changes,
}

impl Rotation {
    pub(crate) fn id(&self) -> SessionId {
        self.base.row.id
    }

    /// The revision that it is made from.
    pub(crate) fn base(&self) -> Revision {
        self.base.row.revision()
    }

    /// I7: the live sessions that the user may have, this one included. Without a cap of its own, a session that stays
    /// its user's is no new one.
    pub(crate) fn sessions_max(&self, configured: Option<u32>) -> Option<u32> {
        self.user_id()?;
        self.cap.or(configured.filter(|_| self.new_user.is_some()))
    }

    /// The user afterwards.
    pub(crate) fn user_id(&self) -> Option<UserId> {
        self.new_user.or(self.base.row.user_id)
    }

    /// What the session has under its new id.
    pub(crate) fn attributes(&self) -> Attributes {
        let version = self.base.row.version.next();
        let now = self.base.policy.clock.database_now();
        self.base.attributes.carry(&self.keep, version, now).apply(&self.changes, version, now)
    }
}

/// A session to delete. The answer says whether it was alive.
#[derive(Debug)]
pub(crate) struct DeleteSession {
    pub(crate) id: SessionId,
    pub(crate) ending: Ending,
}

/// A change of any number of sessions.
#[derive(Clone, Debug)]
pub(crate) enum BulkChange {
    /// Delete these, all or none.
    Delete(Vec<SessionId>),
    /// Delete all of these.
    DeleteAll(Scope),
    DeleteLabel(Label),
    /// Delete all of a user's but this one.
    DeleteOthers(UserId, SessionId),
    RemoveAttribute(UserId, String),
    /// Drop them from every node's memory. The tables stay as they are.
    Evict(Scope),
}
