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

/// The costs of a create's plan grow with its table. PostgreSQL keeps the generic plan of a prepared statement as long as
/// that looks no dearer than the *average* of all that were made for the actual values: once an ANALYZE has it planned
/// again, at today's cost, the average of former days is lower, and each create is planned anew until the average has
/// caught up: an eighth of the server's time. Until the commit only, so it holds on the application's pool, too.
const BEGIN_GENERIC: &str = "BEGIN; SET LOCAL plan_cache_mode = force_generic_plan";

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
        users: Vec<Uuid>,
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
        let begin = match self.mode {
            Statements::Auto | Statements::Prepared => {
                // Here, so that nothing has to be awaited between the four.
                self.prepare(connection, lock).await?;
                self.prepare(connection, sql).await?;
                BEGIN_GENERIC
            }
            Statements::Unnamed => "BEGIN",
        };
        // Each of the four is written when it is first polled, and `biased` polls them in this order; all answers are
        // awaited, so the connection is clean afterwards whichever of them failed.
        let (begun, locked, rows, committed) = tokio::join!(
            biased;
            connection.batch_execute(begin),
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
