//! Ending sessions, and dropping them from the nodes' memories.

use super::{Revocation, Revoked, SessionManager};
use crate::cause::Cause;
use crate::ending::Ending;
use crate::error::{Error, ErrorKind};
use crate::id::{Scope, SessionId};
use crate::session::request::{BulkChange, DeleteSession};

/// All of these are final. What was deleted is never served again, whatever is in flight. A later
/// update of it finds nothing. A session that was rotated ends under all of its ids, whichever of
/// them names it. A retired id that a rotation to another user has left ends with the sessions of
/// either.
///
/// # Errors
/// - [`ErrorKind::Unavailable`] if the database cannot be reached: nothing happened.
/// - [`ErrorKind::OutcomeUnknown`] if its answer never came.
/// - [`ErrorKind::Overloaded`] if too many writes wait.
///
/// # Cancel safety
/// **Dropping the future does not undo a delete that was submitted.**
impl SessionManager {
    /// Sessions that one call of [`delete_many`](SessionManager::delete_many) takes.
    pub const DELETE_MAX: usize = 100_000;

    /// Ends a session, by default with [`Cause::Logout`]. Returns whether it was alive.
    ///
    /// ```no_run
    /// # use pg_session::{Cause, SessionId, SessionManager};
    /// # async fn f(sessions: &SessionManager, id: SessionId) -> Result<(), pg_session::Error> {
    /// sessions.delete(id).await?; // committed; the other nodes learn of it within milliseconds
    /// let done = sessions.delete(id).everywhere().await?; // no node can serve it any more
    /// println!("after {:?}", done.took);
    /// sessions.delete(id).cause(Cause::Admin).await?; // sockets on all nodes close with this reason
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [above](#impl-SessionManager).
    pub fn delete(&self, id: SessionId) -> Revocation<'_, bool> {
        let revoked = Revoked::Session { handle: id.handle() };
        Revocation::new(self, revoked, Cause::Logout, move |ending| async move {
            self.0.check_open()?;
            self.0.writer.deletes.submit(DeleteSession { id, ending }).await
        })
    }

    /// Ends any number of sessions, all or none, by default with [`Cause::Logout`]. Returns how many of them were alive.
    ///
    /// # Errors
    /// See [above](#impl-SessionManager); [`ErrorKind::InvalidArgument`] for more than [`DELETE_MAX`](SessionManager::DELETE_MAX) ids.
    pub fn delete_many(&self, ids: impl IntoIterator<Item = SessionId>) -> Revocation<'_, u64> {
        let mut ids: Vec<SessionId> = ids.into_iter().take(Self::DELETE_MAX + 1).collect();
        let revoked = Revoked::Sessions { named: ids.len() };
        Revocation::new(self, revoked, Cause::Logout, move |ending| async move {
            if ids.len() > Self::DELETE_MAX {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("delete_many takes at most {} sessions; call it several times", Self::DELETE_MAX),
                ));
            }
            if ids.is_empty() {
                return Ok(0);
            }
            ids.sort_unstable();
            ids.dedup();
            self.change_all(BulkChange::Delete(ids), ending).await
        })
    }

    /// Ends all sessions of all users, by default with [`Cause::Admin`]. Returns how many were alive. When it returns, all sessions that existed at its start
    /// are gone. Those that another transaction has locked end last, one by one; a session that is created meanwhile stays.
    ///
    /// # Errors
    /// See [above](#impl-SessionManager). [`ErrorKind::Contention`] if some stay locked: the others are gone.
    pub fn delete_all_sessions(&self) -> Revocation<'_, u64> {
        Revocation::new(self, Revoked::All, Cause::Admin, |ending| {
            self.change_all(BulkChange::DeleteAll(Scope::All), ending)
        })
    }

    /// Drops every session from every node's memory; the database keeps them. The nodes then load what they need.
    ///
    /// # Errors
    /// See [above](#impl-SessionManager).
    pub fn evict_all(&self) -> Revocation<'_, ()> {
        Revocation::new(self, Revoked::AllEvicted, Cause::Unknown, async |ending| {
            self.change_all(BulkChange::Evict(Scope::All), ending).await.map(|_| ())
        })
    }

    pub(super) async fn change_all(&self, change: BulkChange, ending: Ending) -> Result<u64, Error> {
        self.0.check_open()?;
        self.0.writer.change_all(change, ending).await
    }
}
