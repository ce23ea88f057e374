//! Read, change, save, and again after a conflict.
//!
//! Modifications of one session on one node take turns. If 64 of them raced, each of 64 rounds
//! would let one through, and most would give up. So the rounds are left for what other nodes do,
//! and for updates beside `modify`.

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};

use super::SessionManager;
use crate::error::{Error, ErrorKind, UpdateError};
use crate::id::SessionId;
use crate::retry::MODIFY_ROUNDS_MAX;
use crate::session::Session;

/// Queues of modifications. Sessions that share one only wait for each other.
const TURNS: usize = 256;
/// Modifications that may be in flight or wait on this node.
const WAITING_MAX: usize = 65_536;

/// One queue for each session that is being modified: first come, first served.
///
/// Not a lock of the session: readers and `save` do not know of it. It is held across awaits on purpose; what runs
/// under it cannot wait for a second turn, because `change` is not asynchronous.
pub(super) struct KeyedQueue {
    queues: Box<[Mutex<()>]>,
    places: Semaphore,
}

impl KeyedQueue {
    pub(super) fn new() -> Self {
        Self {
            queues: (0..TURNS).map(|_| Mutex::const_new(())).collect(),
            places: Semaphore::const_new(WAITING_MAX),
        }
    }

    async fn wait(&self, id: SessionId) -> Result<(SemaphorePermit<'_>, MutexGuard<'_, ()>), Error> {
        let place = self.places.try_acquire().map_err(|_| {
            Error::new(
                ErrorKind::Overloaded,
                format!(
                    "{WAITING_MAX} modifications wait already; PostgreSQL does not keep up with the writes"
                ),
            )
        })?;
        Ok((place, self.queues[id.spread() % TURNS].lock().await))
    }
}

impl SessionManager {
    /// Applies `change` to the session as it is, atomically. If another writer changed the session
    /// in between, it is read again and `change` is called again. So `change` must be repeatable;
    /// what it returns is not awaited.
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
    /// - [`UpdateError::NotFound`] if there is no such session.
    /// - [`UpdateError::Failed`] with what `change` returned or what went wrong. [`ErrorKind::Contention`]: after 100
    ///   conflicts with other writers. [`ErrorKind::Overloaded`]: 65 536 modifications wait on this node already.
    ///
    /// # Cancel safety
    /// As [`save`](SessionManager::save).
    pub async fn modify(
        &self,
        id: SessionId,
        mut change: impl FnMut(&mut Session) -> Result<(), Error>,
    ) -> Result<Session, UpdateError> {
        let _turn = self.0.turns.wait(id).await?;
        for _ in 0..MODIFY_ROUNDS_MAX {
            let mut session = self.get(id).await?.ok_or(UpdateError::NotFound)?;
            change(&mut session)?;
            match self.save(&mut session).check_version().await {
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
