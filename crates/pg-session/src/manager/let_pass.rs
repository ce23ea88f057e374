//! For tests: time that passes at once.

use std::time::Duration;

use super::SessionManager;
use crate::error::{Error, ErrorKind};

impl SessionManager {
    /// Writes the last accesses that wait in this node's memory.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if some could not be written; they wait for the next flush.
    pub async fn flush_accesses(&self) -> Result<(), Error> {
        if self.0.touches.flush_now().await {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "not all last accesses could be written"))
    }

    /// Moves every stored time back by `time` in one transaction, and evicts all sessions from the
    /// caches of all nodes. By the database's clock, `time` has passed. Returns when this node has
    /// processed it. Other nodes of the test call
    /// [`flush_accesses`](SessionManager::flush_accesses) before and
    /// [`catch_up`](SessionManager::catch_up) after it.
    ///
    /// A held lock ends, as if the holder had been paused for so long.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for more than 292 000 years; otherwise as for a write.
    ///
    /// # Cancel safety
    /// Dropping the future does not undo what was committed.
    pub async fn let_pass(&self, time: Duration) -> Result<(), Error> {
        self.0.check_open()?;
        let micros = i64::try_from(time.as_micros())
            .map_err(|_| Error::new(ErrorKind::InvalidArgument, "let_pass takes at most 292 000 years"))?;
        self.flush_accesses().await?;
        self.0.core.database.let_pass(micros).await.map_err(|failure| failure.into_write_error())?;
        self.catch_up().await
    }
}
