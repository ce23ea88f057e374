//! One version of a session, as the database holds it: immutable but for the last access.
//!
//! I6: a record's row and attributes always belong to one version. There are two ways to make one, and both keep
//! that: from one statement's snapshot, and from a record plus the changes that directly follow its version.

use std::sync::Arc;
use std::time::Duration;

use super::attributes::Attributes;
use super::changes::Limits;
use super::expiry::{Access, IdleLimit, Touch, Unflushed};
use crate::clock::{Clock, DbTime};
use crate::id::{GroupId, SessionId, UserId};
use crate::version::Version;

/// What every session of one manager is judged by.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    pub(crate) idle_timeout: Duration,
    /// Accesses closer together than this are one.
    pub(crate) touch_step: Duration,
}

/// A session's row and attributes at one version.
///
/// What a hit looks at stands first, beside the reference count, and takes 42 bytes with it: with more sessions than the
/// processor's caches hold, each cache line that is fetched from memory costs as much as the rest of a hit.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Record {
    pub(crate) access: Access,
    pub(crate) row: Row,
    pub(crate) rules: Arc<Rules>,
    pub(crate) attributes: Attributes,
    unflushed: Unflushed,
}

/// The columns of `sessions`, but for the last access, which moves without a new version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(crate) struct Row {
    pub(crate) expires_at: DbTime,
    pub(crate) idle_limit: IdleLimit,
    /// The session goes on under another id; this is what is left under the old one.
    pub(crate) rotated: bool,
    pub(crate) version: Version,
    pub(crate) id: SessionId,
    /// `None` for an anonymous session.
    pub(crate) user_id: Option<UserId>,
    pub(crate) group_id: Option<GroupId>,
    pub(crate) created_at: DbTime,
    pub(crate) updated_at: DbTime,
}

impl Record {
    pub(crate) fn new(rules: Arc<Rules>, row: Row, attributes: Attributes, last_accessed_at: DbTime) -> Self {
        debug_assert!(row.version > Version::ABSENT, "the table's check keeps versions positive");
        let (access, unflushed) = (Access::new(last_accessed_at), Unflushed::default());
        Self { access, row, rules, attributes, unflushed }
    }

    /// When the session ends, by everything that the database has confirmed. A hit has the rules at hand; to follow the
    /// record's own pointer would fetch a line more.
    #[inline]
    pub(crate) fn ends_at(&self, rules: &Rules) -> DbTime {
        match self.row.idle_limit {
            IdleLimit::Enforced => self.row.expires_at.min(self.access.confirmed().plus(rules.idle_timeout)),
            IdleLimit::Exempt => self.row.expires_at,
        }
    }

    /// I4: at `ends_at` itself the session is gone, as in the statements' `expires_at > now`.
    #[inline]
    pub(crate) fn is_live(&self, rules: &Rules, now: DbTime) -> bool {
        now < self.ends_at(rules)
    }

    /// Records an access; the caller queues the record as it is told. What a rotation left behind ends with its grace,
    /// whoever reads it.
    #[inline]
    pub(crate) fn touch(&self, rules: &Rules, now: DbTime) -> Touch {
        if self.row.rotated {
            return Touch::Nothing;
        }
        self.access.touch(&self.unflushed, now, rules.touch_step, || match self.row.idle_limit {
            IdleLimit::Enforced => Some(rules.idle_timeout / 2),
            IdleLimit::Exempt => None,
        })
    }

    /// The access to flush; see [`Access::take`].
    pub(crate) fn take_access(&self) -> DbTime {
        self.access.take(&self.unflushed)
    }
}
