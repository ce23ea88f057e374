//! One statement on one connection of the pool: within a time, and once more if that cannot do harm.

use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::Object;
use futures_util::TryStreamExt as _;
use tokio::time::Instant;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Row, RowStream, Statement};

use super::connection::{self, Busy, Try};
use super::failure::{Failure, Verdict};
use super::pooler::Sending;
use super::reach::Reach;
use super::{Database, Sql, SqlForms};

/// A statement to be sent; made by [`Database::call`].
#[must_use = "a statement is sent when its rows are awaited"]
pub(super) struct Call<'a> {
    database: &'a Database,
    sql: &'a SqlForms,
    params: &'a [&'a (dyn ToSql + Sync)],
    timeout: Duration,
    repeatable: bool,
}

impl Database {
    /// One statement, to be sent. The transaction is the statement.
    pub(super) fn call<'a>(&'a self, sql: &'a SqlForms, params: &'a [&'a (dyn ToSql + Sync)]) -> Call<'a> {
        Call { database: self, sql, params, timeout: self.timeout, repeatable: false }
    }

    /// Runs `work` on a connection of the pool, all within `timeout`.
    pub(super) async fn bounded<T>(
        &self,
        timeout: Duration,
        work: impl AsyncFnOnce(&Object) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.attempt(Try::only(timeout), work).await
    }

    /// If `work` does not end in time, or this future is dropped, the statement is cancelled and the connection
    /// closed. A connection that leads to a standby is closed, too.
    async fn attempt<T>(
        &self,
        Try { deadline, share }: Try,
        work: impl AsyncFnOnce(&Object) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Self { pool, suspicion, canceller, .. } = self;
        // Only the statement may wait for any number of rows. A connection that hangs while it is made must not delay
        // a logout longer than a read.
        let wait_max = deadline.saturating_duration_since(Instant::now()).min(self.timeout);
        let busy = Busy::new(connection::take(pool, suspicion, wait_max).await?, canceller);
        let Some(connection) = busy.get() else { return Err(Failure::no_answer(share)) };
        let end = deadline.min(Instant::now() + share);
        let Ok(outcome) = tokio::time::timeout_at(end, work(connection)).await else {
            suspicion.raise();
            return Err(Failure::no_answer(share));
        };
        if outcome.as_ref().is_err_and(Failure::is_lost) {
            suspicion.raise();
        }
        if let Some(connection) = busy.ended()
            && outcome.as_ref().is_err_and(|failure| failure.verdict == Verdict::WrongServer)
        {
            self.leave_server(connection);
        }
        outcome
    }

    /// The form of a statement for this connection, and whether it is prepared there.
    async fn form<'a>(&self, connection: &Object, sql: &'a SqlForms) -> Result<(&'a Sql, bool), Failure> {
        // Asking changes nothing: if it fails, the write was not sent.
        let reach = self.reaches.of_sound(connection).await;
        let reach = reach.map_err(|failure| Failure::not_sent(failure.error))?;
        let is_prepared = match self.mode {
            Sending::Prepared => true,
            Sending::PreparedIfDirect => reach != Reach::Pooled,
            Sending::Unnamed => false,
        };
        Ok((sql.of(reach), is_prepared))
    }

    /// Closes a connection to a standby. If it is an old one, closes the idle ones as well: after a failover all of them lead
    /// there. A new one shows where the address leads now, so nothing would be gained.
    fn leave_server(&self, connection: Object) {
        let is_new = Object::metrics(&connection).recycle_count == 0;
        drop(Object::take(connection));
        if !is_new {
            self.pool.retain(|_, _| false);
        }
    }
}

impl Call<'_> {
    /// For a caller that can wait less than `query_timeout`.
    pub(super) fn within(self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(self.timeout), ..self }
    }

    /// For a statement over any number of rows, which may take longer than `query_timeout`.
    pub(super) fn long(self) -> Self {
        Self { timeout: self.database.bulk_timeout(), ..self }
    }

    /// For a statement that may be sent twice: it is, if its connection is lost; see [`Try`].
    pub(super) fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// Sends the statement and waits for its rows.
    pub(super) async fn rows(self) -> Result<Vec<Row>, Failure> {
        self.each(Ok).await
    }

    /// As [`rows`](Call::rows), and makes something of each row as it comes. A row that cannot be read ends it.
    ///
    /// Rows that are kept until the last one has come are freed together. glibc's allocator keeps
    /// seven of a size for a thread.
    pub(super) async fn each<T>(
        self,
        mut read: impl FnMut(Row) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let first = if self.repeatable { Try::first(self.timeout) } else { Try::only(self.timeout) };
        let outcome = self.attempt(first, &mut read).await;
        let second = match &outcome {
            // The statement met a standby on an old connection. It had no effect.
            Err(failure) if failure.verdict == Verdict::WrongServer => Some(Try::only(self.timeout)),
            _ if self.repeatable => first.again(&outcome),
            _ => None,
        };
        match second {
            Some(second) => self.attempt(second, &mut read).await,
            None => outcome,
        }
    }

    async fn attempt<T>(
        &self,
        time: Try,
        read: &mut impl FnMut(Row) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        self.database.attempt(time, async |connection| self.send(connection, read).await).await
    }

    async fn send<T>(
        &self,
        connection: &Object,
        read: &mut impl FnMut(Row) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let (sql, is_prepared) = self.database.form(connection, self.sql).await?;
        let mut rows = pin!(self.stream(connection, sql, is_prepared).await?);
        let mut all = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(|error| failed(connection, sql, &error))? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    async fn stream(&self, connection: &Object, sql: &Sql, is_prepared: bool) -> Result<RowStream, Failure> {
        let hidden = self.params.iter().map(|&param| Redacted(param));
        let sent = if is_prepared {
            let statement = prepare(connection, sql).await?;
            connection.query_raw(&statement, hidden).await
        } else {
            connection.query_typed_raw(&sql.text, hidden.zip(sql.types.iter().cloned())).await
        };
        sent.map_err(|error| failed(connection, sql, &error))
    }
}

/// Prepares a statement once per connection. Preparing changes nothing: if it fails, the write was not sent.
async fn prepare(connection: &Object, sql: &Sql) -> Result<Statement, Failure> {
    let prepared = connection.prepare_typed_cached(&sql.text, &sql.types).await;
    prepared.map_err(|error| Failure::not_sent(Failure::of_statement(&error).error))
}

/// What became of a statement that was sent. One whose plan is outdated is to be prepared again.
fn failed(connection: &Object, sql: &Sql, error: &tokio_postgres::Error) -> Failure {
    let failure = if sql.commits() { Failure::of_call(error) } else { Failure::of_statement(error) };
    if failure.verdict == Verdict::StalePlan {
        connection.statement_cache.clear();
    }
    failure
}

/// A parameter that does not show its value. The driver writes parameters to the `log` facade at
/// debug level, and ours are session ids and values.
struct Redacted<'a>(&'a (dyn ToSql + Sync));

impl std::fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("_")
    }
}

impl ToSql for Redacted<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.to_sql_checked(kind, out)
    }

    fn accepts(_: &Type) -> bool {
        // `to_sql_checked` of the hidden value decides.
        true
    }

    to_sql_checked!();
}
