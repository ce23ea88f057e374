//! Cleaning up now, beside the task that does so at each interval.

use super::SessionManager;
use crate::cleanup::CleanupReport;
use crate::error::Error;

impl SessionManager {
    /// Deletes expired and idle sessions, and expired attributes. It works in small batches with
    /// pauses. Only frees space: what has ended is never returned, cleaned up or not.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and the like if the database does not answer; what was
    /// deleted until then stays deleted.
    ///
    /// # Cancel safety
    /// Dropping the future stops the pass after the statement in flight.
    pub async fn cleanup(&self) -> Result<CleanupReport, Error> {
        self.0.check_open()?;
        self.0.cleaner.pass().await
    }
}
