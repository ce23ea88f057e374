//! Ending sessions, and dropping them from the nodes' memories.

use super::SessionManager;
use crate::error::{Error, ErrorKind};
use crate::id::{GroupId, Scope, SessionId, UserId};
use crate::session::request::{BulkChange, DeleteSession};

/// Sessions that one call of [`SessionManager::delete_many`] takes.
pub const DELETE_MANY_MAX: usize = 100_000;

/// All of these are final: what was deleted is never served again, whatever is in flight, and a later update of it
/// finds nothing. A session that was rotated ends under all of its ids, whichever of them it is named by; what a
/// rotation to another user left behind ends with the sessions of either.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if the database cannot be reached (nothing happened), [`ErrorKind::OutcomeUnknown`] if
/// its answer never came, [`ErrorKind::Overloaded`] if too many writes wait.
///
/// # Cancel safety
/// **Dropping the future does not undo a delete that was submitted.**
impl SessionManager {
    /// Ends a session. Answers whether it was alive.
    ///
    /// # Errors
    /// See [above](#impl-SessionManager).
    pub async fn delete(&self, id: SessionId) -> Result<bool, Error> {
        self.0.check_open()?;
        self.0.writer.deletes.submit(DeleteSession(id)).await
    }

    /// Ends any number of sessions, all or none. Answers how many of them were alive.
    ///
    /// # Errors
    /// See [above](#impl-SessionManager); [`ErrorKind::Overloaded`] for more than [`DELETE_MANY_MAX`] ids.
    pub async fn delete_many(&self, ids: impl IntoIterator<Item = SessionId>) -> Result<u64, Error> {
        let mut ids: Vec<SessionId> = ids.into_iter().take(DELETE_MANY_MAX + 1).collect();
        if ids.len() > DELETE_MANY_MAX {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!("delete_many takes at most {DELETE_MANY_MAX} sessions; call it several times"),
            ));
        }
        if ids.is_empty() {
            return Ok(0);
        }
        ids.sort_unstable();
        ids.dedup();
        self.change_all(BulkChange::Delete(ids)).await
    }

    /// Ends all sessions of a user: "log out everywhere". Answers how many were alive.
    ///
    /// # Errors
    /// See [above](#impl-SessionManager).
    pub async fn delete_user_sessions(&self, user: impl Into<UserId>) -> Result<u64, Error> {
        self.change_all(BulkChange::DeleteAll(Scope::User(user.into()))).await
    }

    /// Ends all sessions of a user but one: "log out the others". `keep` may be an old id that still answers. All other old ids
    /// of that session end, too: they may be stolen. Answers how many sessions were alive. **If `keep` is not the user's, all of the user's sessions end.**
    ///
    /// # Errors
    /// See [above](#impl-SessionManager).
    pub async fn delete_user_sessions_except(
        &self,
        user: impl Into<UserId>,
        keep: SessionId,
    ) -> Result<u64, Error> {
        self.change_all(BulkChange::DeleteOthers(user.into(), keep)).await
    }

    /// Ends all sessions of a group. Answers how many were alive.
    ///
    /// # Errors
    /// See [above](#impl-SessionManager).
    pub async fn delete_group_sessions(&self, group: impl Into<GroupId>) -> Result<u64, Error> {
        self.change_all(BulkChange::DeleteAll(Scope::Group(group.into()))).await
    }

    /// Ends every session of everybody. Answers how many were alive.
    ///
    /// # Errors
    /// See [above](#impl-SessionManager).
    pub async fn delete_all_sessions(&self) -> Result<u64, Error> {
        self.change_all(BulkChange::DeleteAll(Scope::All)).await
    }

    /// Removes one attribute from all live sessions of a user: their versions grow, every node hears of it. Answers
    /// how many sessions had it.
    ///
    /// **A session that does not have the attribute is left as it is.** A request that is under way and sets it there,
    /// from what it read elsewhere before, is not in conflict with this call: let it look at its source again after
    /// saving, or end such sessions instead.
    ///
    /// # Errors
    /// See [above](#impl-SessionManager); [`ErrorKind::Attribute`] for a key that no attribute can have.
    pub async fn delete_attribute_from_user_sessions(
        &self,
        user: impl Into<UserId>,
        key: &str,
    ) -> Result<u64, Error> {
        self.0.core.policy.limits.check_key(key)?;
        self.change_all(BulkChange::RemoveAttribute(user.into(), key.to_owned())).await
    }

    /// Drops a user's sessions from every node's memory; the database keeps them. For changes of the tables that were
    /// made past this library. On return this node has dropped them, the others do so within milliseconds. **Such a change
    /// must grow the session's `version`**, or an update that is under way takes it for what it was made from, and may undo it.
    ///
    /// # Errors
    /// See [above](#impl-SessionManager).
    pub async fn evict_user(&self, user: impl Into<UserId>) -> Result<(), Error> {
        self.change_all(BulkChange::Evict(Scope::User(user.into()))).await.map(|_| ())
    }

    /// Drops every session from every node's memory; the database keeps them. The nodes then load what they need.
    ///
    /// # Errors
    /// See [above](#impl-SessionManager).
    pub async fn evict_all(&self) -> Result<(), Error> {
        self.change_all(BulkChange::Evict(Scope::All)).await.map(|_| ())
    }

    async fn change_all(&self, change: BulkChange) -> Result<u64, Error> {
        self.0.check_open()?;
        self.0.writer.change_all(change).await
    }
}
