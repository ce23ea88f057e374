//! Read, change, save, and again if somebody else was quicker.

use super::SessionManager;
use crate::error::{Error, ErrorKind, UpdateError};
use crate::id::SessionId;
use crate::session::Session;

/// Rounds before [`SessionManager::modify`] gives up. In each of them somebody else's update went through.
const ROUNDS_MAX: u32 = 32;

impl SessionManager {
    /// Applies `change` to the session as it is, atomically: if anybody else changed the session in between, it is
    /// read again and `change` is called again. So `change` must be repeatable; what it returns is not awaited.
    ///
    /// ```no_run
    /// # async fn f(sessions: &pg_session::SessionManager, id: pg_session::SessionId) -> Result<(), pg_session::UpdateError> {
    /// sessions.modify(id, |session| {
    ///     let visits: u64 = session.get("visits")?.unwrap_or(0);
    ///     session.set("visits", &(visits + 1))
    /// }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`UpdateError::NotFound`] if there is no such session, [`UpdateError::Failed`] with what `change` returned or
    /// what went wrong, [`ErrorKind::Contention`] if others were quicker 32 times.
    ///
    /// # Cancel safety
    /// As [`update`](SessionManager::update).
    pub async fn modify(
        &self,
        id: SessionId,
        mut change: impl FnMut(&mut Session) -> Result<(), Error>,
    ) -> Result<Session, UpdateError> {
        for _ in 0..ROUNDS_MAX {
            let mut session = self.get(id).await?.ok_or(UpdateError::NotFound)?;
            change(&mut session)?;
            match self.update(&mut session).check_version().await {
                Ok(()) => return Ok(session),
                Err(UpdateError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(UpdateError::Failed(Error::new(
            ErrorKind::Contention,
            "others kept changing the session, and this change was not made; try again later",
        )))
    }
}
