//! The sessions of one user, one group or one label: list, end, change and evict them.

use std::ops::Deref;

use super::{Revocation, Revoked, SessionManager};
use crate::cause::Cause;
use crate::error::Error;
use crate::id::{GroupId, Scope, SessionId, UserId};
use crate::label::{LABEL_BYTES_MAX, LABELS_MAX, Label};
use crate::postgres::failure::Failure;
use crate::postgres::load::Found;
use crate::session::Session;
use crate::session::record::SharedRecord;
use crate::session::request::BulkChange;

impl SessionManager {
    /// Sessions that a listing returns at most: those with the latest access.
    pub const LIST_MAX: u32 = 1_000;
    /// Labels that a session may have.
    pub const LABELS_MAX: usize = LABELS_MAX;
    /// Bytes that a label may have.
    pub const LABEL_BYTES_MAX: usize = LABEL_BYTES_MAX;

    /// The sessions of a user.
    ///
    /// ```no_run
    /// # async fn f(sessions: &pg_session::SessionManager) -> Result<(), pg_session::Error> {
    /// for session in &sessions.user(42).list().await?.sessions {
    ///     println!("{:?}", session.last_accessed_at());
    /// }
    /// sessions.user(42).delete().await?; // log out everywhere
    /// # Ok(()) }
    /// ```
    pub fn user(&self, user: impl Into<UserId>) -> UserSessions<'_> {
        UserSessions { manager: self, user: user.into() }
    }

    /// The sessions of a group.
    pub fn group(&self, group: impl Into<GroupId>) -> GroupSessions<'_> {
        GroupSessions { manager: self, group: group.into() }
    }

    /// The sessions of any users that have a label; see [`Create::label`](super::Create::label).
    ///
    /// ```no_run
    /// # async fn f(sessions: &pg_session::SessionManager) -> Result<(), pg_session::Error> {
    /// sessions.create(42).label("tenant:7").await?;
    /// let done = sessions.label("tenant:7").delete().everywhere().await?; // no node can serve one any more
    /// # Ok(()) }
    /// ```
    pub fn label(&self, label: &str) -> LabelSessions<'_> {
        LabelSessions { manager: self, label: Label::new(label) }
    }

    pub(super) fn page(&self, found: Result<Vec<Found>, Failure>) -> Result<Page, Error> {
        let found = found.map_err(Failure::into_read_error)?;
        let mut records = found.into_iter().map(|(_, record)| record).collect::<Result<Vec<_>, _>>()?;
        let truncated = records.len() > Self::LIST_MAX as usize;
        records.truncate(Self::LIST_MAX as usize);
        for record in &records {
            // I2: what is older, in memory or in flight, must not be served after this. Not
            // installed: two loads of a session at once could leave the older one behind. The
            // loader avoids that with one flight for each.
            self.0.core.cache.invalidate(record.row.id, record.row.version);
        }
        let sessions = records.into_iter().map(|record| Session::from_database(SharedRecord::new(record)));
        Ok(Page { sessions: sessions.collect(), truncated })
    }
}

/// Listed sessions. It dereferences to them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// At most [`SessionManager::LIST_MAX`]. A listing has the most recently used first, a page goes by the ids.
    pub sessions: Vec<Session>,
    /// Whether there are more sessions than that.
    pub truncated: bool,
}

impl Deref for Page {
    type Target = [Session];

    fn deref(&self) -> &[Session] {
        &self.sessions
    }
}

impl IntoIterator for Page {
    type Item = Session;
    type IntoIter = std::vec::IntoIter<Session>;

    fn into_iter(self) -> Self::IntoIter {
        self.sessions.into_iter()
    }
}

impl<'a> IntoIterator for &'a Page {
    type Item = &'a Session;
    type IntoIter = std::slice::Iter<'a, Session>;

    fn into_iter(self) -> Self::IntoIter {
        self.sessions.iter()
    }
}

/// The sessions of one user; made by [`SessionManager::user`].
///
/// Deletions are final, as those of [`SessionManager::delete`].
///
/// # Errors
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the database cannot be reached,
/// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if a listing is not answered in time. For changes,
/// [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) if the answer never came, and
/// [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded) if too many writes wait. [`ErrorKind::Contention`](crate::ErrorKind::Contention)
/// if another transaction keeps some of the sessions locked: the others are changed.
///
/// # Cancel safety
/// Dropping the future of a listing loses nothing. **Dropping that of a change does not undo what was submitted.**
#[derive(Clone, Copy, Debug)]
#[must_use = "it does nothing until one of its methods is awaited"]
pub struct UserSessions<'a> {
    pub(super) manager: &'a SessionManager,
    pub(super) user: UserId,
}

impl<'a> UserSessions<'a> {
    /// Lists the live sessions of the user, the most recently used first. Always asks the database; does not count as an
    /// access. Each comes with its attributes, and once, however often it was rotated.
    ///
    /// # Errors
    /// See [above](UserSessions#errors).
    pub async fn list(self) -> Result<Page, Error> {
        let found = self.manager.0.core.database.list_user(self.user, SessionManager::LIST_MAX + 1);
        self.manager.page(found.await)
    }

    /// Ends all sessions of the user: "log out everywhere", by default with [`Cause::Everywhere`]. Returns how many were alive.
    ///
    /// # Errors
    /// See [above](UserSessions#errors).
    pub fn delete(self) -> Revocation<'a, u64> {
        self.change(BulkChange::DeleteAll(Scope::User(self.user)))
    }

    /// Ends all sessions of the user but one: "log out the others". `keep` may be a retired id. All other retired ids of
    /// that session end, too: they may be stolen. Returns how many sessions were alive. **If `keep` is not the user's, all
    /// of the user's sessions end.**
    ///
    /// # Errors
    /// See [above](UserSessions#errors).
    pub fn delete_except(self, keep: SessionId) -> Revocation<'a, u64> {
        self.change(BulkChange::DeleteOthers(self.user, keep))
    }

    /// Removes one attribute from all live sessions of the user: their versions grow, every node is notified. Returns
    /// how many sessions had it.
    ///
    /// **A session that does not have the attribute is left as it is.** A request in flight that sets it from an
    /// earlier read is not in conflict with this call. Let it look at its source again after saving, or end such
    /// sessions instead.
    ///
    /// # Errors
    /// See [above](UserSessions#errors); [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) and
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for a key that no attribute can have.
    pub fn remove_attribute(self, key: &str) -> Revocation<'a, u64> {
        let Self { manager, user } = self;
        let checked = manager.0.core.policy.limits.check_key(key);
        let change = BulkChange::RemoveAttribute(user, key.to_owned());
        Revocation::new(manager, Revoked::from(&change), Cause::Unknown, move |ending| async move {
            checked?;
            manager.change_all(change, ending).await
        })
    }

    /// Drops the user's sessions from every node's memory; the database keeps them. For changes of the tables that were
    /// made past this library. On return this node has dropped them, the others do so within milliseconds. **Such a change
    /// must grow the session's `version`.** Otherwise an update in flight does not notice it, and may undo it.
    ///
    /// # Errors
    /// See [above](UserSessions#errors).
    pub fn evict(self) -> Revocation<'a, ()> {
        let Self { manager, user } = self;
        let evict = BulkChange::Evict(Scope::User(user));
        Revocation::new(manager, Revoked::from(&evict), Cause::Unknown, move |ending| async move {
            manager.change_all(evict, ending).await.map(|_| ())
        })
    }

    fn change(self, change: BulkChange) -> Revocation<'a, u64> {
        Revocation::new(self.manager, Revoked::from(&change), Cause::Everywhere, move |ending| {
            self.manager.change_all(change, ending)
        })
    }
}

/// The sessions of one group; made by [`SessionManager::group`]. Errors and cancel safety are those of [`UserSessions`].
#[derive(Clone, Copy, Debug)]
#[must_use = "it does nothing until one of its methods is awaited"]
pub struct GroupSessions<'a> {
    pub(super) manager: &'a SessionManager,
    pub(super) group: GroupId,
}

impl<'a> GroupSessions<'a> {
    /// Lists the live sessions of the group, as [`UserSessions::list`] does.
    ///
    /// # Errors
    /// See [`UserSessions`](UserSessions#errors).
    pub async fn list(self) -> Result<Page, Error> {
        let found = self.manager.0.core.database.list_group(self.group, SessionManager::LIST_MAX + 1);
        self.manager.page(found.await)
    }

    /// Ends all sessions of the group. Returns how many were alive.
    ///
    /// # Errors
    /// See [`UserSessions`](UserSessions#errors).
    pub fn delete(self) -> Revocation<'a, u64> {
        Revocation::new(self.manager, Revoked::Group { group: self.group }, Cause::Admin, move |ending| {
            self.manager.change_all(BulkChange::DeleteAll(Scope::Group(self.group)), ending)
        })
    }
}

/// The sessions that have one label; made by [`SessionManager::label`]. Errors and cancel safety are those of [`UserSessions`].
/// A label that no session can have is an error of the kind [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
#[derive(Debug)]
#[must_use = "it does nothing until one of its methods is awaited"]
pub struct LabelSessions<'a> {
    pub(super) manager: &'a SessionManager,
    pub(super) label: Result<Label, Error>,
}

impl<'a> LabelSessions<'a> {
    /// Lists the live sessions that have the label, as [`UserSessions::list`] does.
    ///
    /// # Errors
    /// See [above](LabelSessions).
    pub async fn list(self) -> Result<Page, Error> {
        let label = self.label?;
        let found = self.manager.0.core.database.list_label(&label, SessionManager::LIST_MAX + 1);
        self.manager.page(found.await)
    }

    /// Ends all sessions that have the label. Returns how many were alive. A session that is rotated meanwhile ends, too. One
    /// that is created meanwhile stays, as for a user. The nodes do not keep labels in memory, so the notifications name
    /// each session: about 240 in each.
    ///
    /// # Errors
    /// See [above](LabelSessions).
    pub fn delete(self) -> Revocation<'a, u64> {
        let Self { manager, label } = self;
        // With an error the change fails, and there is no receipt.
        let text = label.as_ref().map_or_else(|_| String::new(), |label| label.as_str().to_owned());
        Revocation::new(manager, Revoked::Label { label: text }, Cause::Admin, move |ending| async move {
            manager.change_all(BulkChange::DeleteLabel(label?), ending).await
        })
    }
}
