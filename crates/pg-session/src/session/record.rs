//! One version of a session, as the database holds it: immutable but for the last access.
//!
//! I6: a record's row and attributes always belong to one version. There are two ways to make one, and both keep
//! that: from one statement's snapshot, and from a record plus the changes that directly follow its version.

use std::sync::Arc;
use std::time::Duration;

use super::attributes::Attributes;
use super::changes::Limits;
use super::expiry::{Access, IdleLimit, Touch};
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
/// What a hit looks at stands first, beside the reference count: with more sessions than the processor's caches hold, each
/// cache line that is fetched from memory costs as much as the rest of a hit.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Record {
    pub(crate) access: Access,
    pub(crate) rules: Arc<Rules>,
    pub(crate) row: Row,
    pub(crate) attributes: Attributes,
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
        Self { rules, row, attributes, access: Access::new(last_accessed_at) }
    }

    /// When the session ends, by everything that the database has confirmed.
    #[inline]
    pub(crate) fn ends_at(&self) -> DbTime {
        match self.row.idle_limit {
            IdleLimit::Enforced => {
                self.row.expires_at.min(self.access.confirmed().plus(self.rules.idle_timeout))
            }
            IdleLimit::Exempt => self.row.expires_at,
        }
    }

    /// I4: at `ends_at` itself the session is gone, as in the statements' `expires_at > now`.
    #[inline]
    pub(crate) fn is_live(&self, now: DbTime) -> bool {
        now < self.ends_at()
    }

    /// Records an access; the caller queues the record as it is told. What a rotation left behind ends with its grace,
    /// whoever reads it.
    #[inline]
    pub(crate) fn touch(&self, now: DbTime) -> Touch {
        if self.row.rotated {
            return Touch::Nothing;
        }
        let rules = &self.rules;
        self.access.touch(now, rules.touch_step, || match self.row.idle_limit {
            IdleLimit::Enforced => Some(rules.idle_timeout / 2),
            IdleLimit::Exempt => None,
        })
    }
}
