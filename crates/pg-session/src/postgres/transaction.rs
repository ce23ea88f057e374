//! A statement behind locks that another one took before it, in one round trip and one flush.
//!
//! A lock that is taken *inside* a statement is taken after its snapshot: the statement would wait for the lock's
//! holder and then not see what it did. So the lock is a statement of its own, and `BEGIN`, lock, statement and
//! `COMMIT` travel together.

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::failure::Failure;
use super::{Database, Sql};
use crate::config::Statements;

/// A statement with its parameters.
pub(super) type Call<'a> = (&'a Sql, &'a [&'a (dyn ToSql + Sync)]);

impl Database {
    /// Sends `lock` and then `call` in one transaction, and waits for the rows of `call`.
    pub(super) async fn query_behind(&self, lock: Call<'_>, call: Call<'_>) -> Result<Vec<Row>, Failure> {
        self.bounded(self.timeout, async |connection| self.pipeline(connection, lock, call).await).await
    }

    /// Sends `call` behind the locks of these users, if there are any.
    pub(super) async fn query_behind_users(
        &self,
        users: &[Uuid],
        call: Call<'_>,
    ) -> Result<Vec<Row>, Failure> {
        if users.is_empty() {
            let (sql, params) = call;
            return self.query(sql, params).await;
        }
        self.query_behind((&self.texts.user_lock, &[&users]), call).await
    }

    async fn pipeline(
        &self,
        connection: &Object,
        (lock, lock_params): Call<'_>,
        (sql, params): Call<'_>,
    ) -> Result<Vec<Row>, Failure> {
        if self.mode == Statements::Prepared {
            // Here, so that nothing has to be awaited between the four.
            self.prepare(connection, lock).await?;
            self.prepare(connection, sql).await?;
        }
        // Each of the four is written when it is first polled, and `biased` polls them in this order; all answers are
        // awaited, so the connection is clean afterwards whichever of them failed.
        let (begun, locked, rows, committed) = tokio::join!(
            biased;
            connection.batch_execute("BEGIN"),
            self.send(connection, lock, lock_params),
            self.send(connection, sql, params),
            connection.batch_execute("COMMIT"),
        );
        begun.map_err(|error| Failure::of_statement(&error))?;
        locked?;
        let rows = rows?;
        committed.map_err(|error| Failure::of_statement(&error))?;
        Ok(rows)
    }
}
