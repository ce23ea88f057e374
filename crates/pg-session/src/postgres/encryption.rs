//! Whether the connections of a pool are encrypted, as the server sees it: a pool does not show its TLS settings.

use super::failure::Failure;
use super::statement::query;
use super::{Database, unexpected};
use crate::error::{Error, ErrorKind};

impl Database {
    /// Behind a pooler, this is about the pooler's connection to the server.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and the like.
    pub(crate) async fn is_encrypted(&self) -> Result<bool, Error> {
        match self.ask_for_encryption().await {
            // A connection was lost, and another one may work.
            Err(error) if error.kind() == ErrorKind::Unavailable => self.ask_for_encryption().await,
            outcome => outcome,
        }
    }

    async fn ask_for_encryption(&self) -> Result<bool, Error> {
        let text = "SELECT s.ssl FROM pg_catalog.pg_stat_ssl s WHERE s.pid = pg_catalog.pg_backend_pid()";
        let answer = self.bounded(self.timeout, async |connection| {
            let rows = query(connection, text, &[]).await?;
            rows.first().map_or(Ok(false), |row| row.try_get(0)).map_err(unexpected)
        });
        answer.await.map_err(Failure::into_read_error)
    }
}
