//! Saving a session's changes: a builder for what to check and what else to change, then one combined statement.

use std::time::{Duration, SystemTime};

use super::create::check_expiry;
use super::{Node, SessionManager};
use crate::error::{Error, ErrorKind, UpdateError};
use crate::id::GroupId;
use crate::session::check::Check;
use crate::session::keep::Keep;
use crate::session::record::SharedRecord;
use crate::session::request::{Expiry, RowChange, UpdateRequest};
use crate::session::{IdleLimit, Session};

impl SessionManager {
    /// Saves the changes of `session`; awaiting the builder does it. Only what was changed is written.
    ///
    /// Afterwards the handle shows what the database holds: its own changes, and those of others that it had not seen.
    /// Without changes nothing is sent. On error the handle keeps its changes.
    ///
    /// ```no_run
    /// # async fn f(sessions: &pg_session::SessionManager, mut session: pg_session::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use pg_session::UpdateError;
    ///
    /// session.set("theme", "dark")?;
    /// session.remove("cart");
    /// match sessions.save(&mut session).check_attributes().await {
    ///     Ok(()) => {}
    ///     Err(UpdateError::Conflict { keys }) => println!("{keys:?} were changed meanwhile: load again and retry"),
    ///     Err(UpdateError::NotFound) => println!("logged out"),
    ///     Err(UpdateError::Rotated) => println!("signed in meanwhile, by another request"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn save<'a>(&'a self, session: &'a mut Session) -> Save<'a> {
        let notify = self.0.core.config.notify_updates;
        Save { node: &self.0, session, check: Check::None, row: RowChange::default(), notify }
    }
}

/// An update to be carried out by awaiting this; made by [`SessionManager::save`].
///
/// # Errors
/// - [`UpdateError::Conflict`] if a check failed.
/// - [`UpdateError::NotFound`] if the session was deleted, revoked or has expired. It stays so.
/// - [`UpdateError::Rotated`] if it was rotated.
/// - [`UpdateError::Failed`] for the rest; see [`ErrorKind::OutcomeUnknown`].
///
/// # Cancel safety
/// **Dropping the future does not undo an update that was submitted.** The handle then shows neither outcome; load
/// the session again.
#[derive(Debug)]
#[must_use = "nothing is saved until this is awaited"]
pub struct Save<'a> {
    node: &'a Node,
    session: &'a mut Session,
    check: Check,
    row: RowChange,
    notify: bool,
}

impl Save<'_> {
    /// Refuses the update if the session has changed in any way since it was read.
    pub fn check_version(mut self) -> Self {
        self.check = Check::Version;
        self
    }

    /// Refuses the update if one of the attributes that it sets or removes has changed since the session was read.
    /// Changes of other attributes do not matter.
    pub fn check_attributes(mut self) -> Self {
        self.check = Check::Attributes;
        self
    }

    /// Does not notify the other nodes: **they may serve the old version for as long as they cache it** (`cache_ttl`). For
    /// attributes that only this node reads. A new absolute limit, idle limit or group is notified in any case: other nodes
    /// must know when the session ends.
    pub fn no_notify(mut self) -> Self {
        self.notify = false;
        self
    }

    /// Moves the absolute limit, counted from the update by the database's clock. Default: it stays.
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.row.expiry = Some(Expiry::In(lifetime));
        self
    }

    /// Moves the absolute limit to an instant on the database's clock. Default: it stays. One that
    /// has passed ends the session. Its retired ids can be read for the rest of their grace, unlike
    /// after a [`delete`](SessionManager::delete).
    pub fn expires_at(mut self, expires_at: SystemTime) -> Self {
        self.row.expiry = Some(Expiry::At(expires_at.into()));
        self
    }

    /// Changes whether the session ends after `idle_timeout` without access. Default: as before.
    pub fn idle_limit(mut self, idle_limit: IdleLimit) -> Self {
        self.row.idle_limit = Some(idle_limit);
        self
    }

    /// Moves the session to another group, or out of its group. Default: it stays.
    pub fn group(mut self, group: Option<GroupId>) -> Self {
        self.row.group_id = Some(group);
        self
    }

    async fn submit(self) -> Result<(), UpdateError> {
        let Self { node, session, check, row, notify } = self;
        node.check_open()?;
        check_handle(session)?;
        if !session.is_modified() && row.is_empty() {
            return Ok(());
        }
        if let Some(expiry) = row.expiry {
            check_expiry(expiry)?;
        }
        session.check_limits(&Keep::All)?;
        let base = SharedRecord::clone(session.record());
        let changes = session.changes().clone();
        // Other nodes may hold the session for as long as it lived before. And a revocation of the group names no session.
        let notify = notify || !row.is_empty();
        let request = UpdateRequest { base, changes, row, check, notify };
        let record = node.writer.updates.submit(request).await?;
        session.advance(record);
        Ok(())
    }
}

pub(super) fn check_handle(session: &Session) -> Result<(), Error> {
    if session.is_invalidated() {
        return Err(Error::new(
            ErrorKind::Invalidated,
            "the session handle was invalidated and cannot be saved; load the session again",
        ));
    }
    Ok(())
}

awaited!(Save, submit => Result<(), UpdateError>);
