//! PostgreSQL: the only SQL in the library, and the connections that carry it.
//!
//! One file per statement, each with its text, its parameters and its rows. Every statement is qualified by schema
//! and carries the condition for live sessions, so that no caller can forget it.
//!
//! What a [`Database`] does:
//!
//! | method | file | promise |
//! |---|---|---|
//! | `load` `list_user` `list_group` `list_label` | `load.rs` | row and attributes from one snapshot, only live sessions (I4, I6) |
//! | `standings` | `standing.rs` | whether sessions that are cached, pinned or observed live, and what became of the others |
//! | `create` | `create.rs` `admission.rs` | one statement; keeps the session limit (I7) |
//! | `update` | `update.rs` `update_inside.rs` `update_call.rs` | applied on its base or not at all (I5, I6) |
//! | `rotate` | `rotate.rs` | the new row, the retired ids, the labels and the locks change together |
//! | `delete` `sweep` | `delete.rs` `sweep.rs` | a session ends under all of its ids, with its notification |
//! | `remove_attribute` | `remove_attribute.rs` | page by page; each changed session gets a version |
//! | `touch` | `touch.rs` | last accesses move forward only; locked rows are skipped |
//! | `locked_rows` `locked_sessions` `blocked_users` | `row_locks.rs` | waits for nothing |
//! | `find_in_chunk` `page` `count` | `find.rs` | for operators: a search reads a chunk of ids for each statement |
//! | `successor` | `successor.rs` | the session that a retired id goes on as |
//! | `audit_entries` `erase_audit` `record_receipt` | `audit.rs` | reads and erases the audit log, adds receipts |
//! | `clean_expired` `clean_idle` `clean_attributes` | `clean.rs` | one node at a time, small batches |
//! | `notify_drop` `notify_changed` | `notify.rs` | changes no row |
//! | `beat` `request_acknowledgement` `node_rows` `remove_nodes` `leave` | `nodes.rs` | a row is not removed while its node is trusted |
//! | `acquire_lock` `renew_lock` `release_lock` `lock_holder` `held_locks` | `lock.rs` | a fence never decreases (I8) |
//! | `prepare_tables` | `migrate.rs` `settings.rs` | applies or checks the migrations, publishes the settings |
//! | `learn_clock` `close` | here | |
//!
//! `contract.rs` makes statements for the application's own transactions.
//!
//! [`Call`](call::Call) sends each of them. `statement.rs` sends scripts and the checks of one connection.
//! `failure.rs` says what a failure means.

mod admission;
pub(crate) mod attempts;
pub(crate) mod audit;
mod call;
pub(crate) mod clean;
pub(crate) mod connect_options;
pub(crate) mod connection;
mod connection_string;
pub(crate) mod contract;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod doctor;
mod encryption;
mod environment;
pub(crate) mod failure;
mod find;
mod handover;
#[cfg(feature = "testing")]
mod let_pass;
pub(crate) mod load;
pub(crate) mod lock;
#[cfg(feature = "testing")]
pub(crate) mod micro;
pub(crate) mod migrate;
pub(crate) mod names;
pub(crate) mod nodes;
pub(crate) mod notify;
mod own_rights;
mod owners;
mod parameters;
mod password_file;
pub(crate) mod pooler;
pub(crate) mod reach;
mod remove_attribute;
mod role_settings;
pub(crate) mod rotate;
pub(crate) mod row_locks;
mod settings;
pub(crate) mod source;
pub(crate) mod standing;
mod statement;
mod successor;
pub(crate) mod sweep;
mod tls;
pub(crate) mod touch;
pub(crate) mod update;
mod update_call;
mod update_inside;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use tokio_postgres_rustls::MakeRustlsConnect;

use self::attempts::Attempts;
use self::connection::{CancelTls, Canceller, Suspicion};
use self::failure::{Failure, Verdict};
use self::load::Of;
use self::names::Names;
use self::pooler::Sending;
use self::reach::{Reach, Reaches};
use crate::clock::{DbTime, Tick};
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::session::record::Policy;

/// A literal of type `interval`, exact to the microsecond.
///
/// In seconds: before version 15, PostgreSQL reads no more than 2^31 of any unit, which microseconds exceed after
/// 36 minutes.
fn interval(duration: Duration) -> String {
    format!("interval '{}.{:06} seconds'", duration.as_secs(), duration.subsec_micros())
}

/// The database as the rest of the library sees it.
#[derive(Debug)]
pub(crate) struct Database {
    pool: Pool,
    canceller: Canceller,
    suspicion: Suspicion,
    /// Of a pool of our own.
    attempts: Option<Arc<Attempts>>,
    pub(crate) policy: Arc<Policy>,
    names: Names,
    texts: Texts,
    mode: Sending,
    reaches: Arc<Reaches>,
    timeout: Duration,
    sessions_max: Option<u32>,
}

/// A pool of our own is closed at shutdown, with its attempts to connect. An application's pool comes with what a cancel
/// request does TLS with.
pub(crate) enum Pooled {
    Own(Pool, Arc<Attempts>, Arc<Reaches>),
    Application(Pool, MakeRustlsConnect, Arc<Reaches>),
}

/// A statement's text and parameter types, so that it can be sent prepared or unnamed alike.
#[derive(Debug)]
struct Sql {
    text: String,
    types: Vec<Type>,
}

impl Sql {
    /// Whether the statement commits before it ends. An error that comes later does not undo what it did.
    fn commits(&self) -> bool {
        self.text.starts_with("CALL ")
    }
}

/// A statement in its forms for the connections of one pool.
#[derive(Debug)]
struct SqlForms {
    /// For a connection with the settings of `pooler::pin`, which only a pool of our own has.
    pinned: Option<Sql>,
    other: Sql,
}

impl SqlForms {
    fn of(&self, reach: Reach) -> &Sql {
        self.pinned.as_ref().filter(|_| reach == Reach::Pinned).unwrap_or(&self.other)
    }
}

#[derive(Debug)]
struct Texts {
    load: SqlForms,
    standings: SqlForms,
    updates: update::Texts,
    create: SqlForms,
    create_in_full: SqlForms,
    rotate: SqlForms,
    successor: SqlForms,
    delete: SqlForms,
    sweeps: sweep::Texts,
    having_attribute: SqlForms,
    remove_attribute: remove_attribute::Texts,
    list_user: SqlForms,
    list_group: SqlForms,
    list_label: SqlForms,
    find: find::Texts,
    clean_expired: SqlForms,
    clean_idle: SqlForms,
    clean_attributes: SqlForms,
    audit_receipt: SqlForms,
    touch: SqlForms,
    locked_rows: SqlForms,
    locked_sessions: SqlForms,
    blocked_users: SqlForms,
    notify: SqlForms,
    beat: SqlForms,
    acknowledge: SqlForms,
    request: SqlForms,
    node_rows: SqlForms,
    node_descriptions: SqlForms,
    remove_nodes: SqlForms,
    leave: SqlForms,
    locks: lock::Texts,
    settings: settings::Texts,
    clock: SqlForms,
}

/// What the forms of the statements are made from.
struct Dialects<'a> {
    pinned: Option<Dialect<'a>>,
    other: Dialect<'a>,
}

impl Dialects<'_> {
    fn sql(&self, make: impl Fn(&Dialect<'_>) -> Sql) -> SqlForms {
        SqlForms { pinned: self.pinned.as_ref().map(&make), other: make(&self.other) }
    }
}

/// What the statements' texts are made from.
struct Dialect<'a> {
    names: &'a Names,
    config: &'a Config,
    /// The expression that reads the database's clock.
    now: &'a str,
    /// Whether the connection has the settings of `pooler::pin`.
    pinned: bool,
}

/// The database's clock. `clock_timestamp()` moves within a statement: one that waited for a lock judges by the time
/// at which it got it.
pub(crate) const DATABASE_CLOCK: &str = "pg_catalog.clock_timestamp()";

/// Deleting everything, or migrating, may take this many times `query_timeout`.
const LONG_FACTOR: u32 = 12;

impl Dialect<'_> {
    /// I4: whether the session `s` is alive, by the database's clock. Gone at the very instant that it expires.
    fn live(&self, s: &str) -> String {
        let Self { now, config, .. } = self;
        let idle = interval(config.idle_timeout);
        format!(
            "({s}.expires_at::pg_catalog.timestamptz > {now} AND (NOT {s}.idle_limited OR {s}.last_accessed_at > {now} - {idle}))"
        )
    }

    /// Whether the session `s` is alive and no retired id.
    ///
    /// CASE hides the columns from the planner, which then takes half of the rows to pass. Without
    /// statistics of a new table it expects at most one row of `rotated_to IS NULL`. Then it
    /// compares each row of the table with each of the batch.
    fn current(&self, s: &str) -> String {
        format!("CASE WHEN {s}.rotated_to IS NULL THEN {} ELSE false END", self.live(s))
    }

    /// A condition that fails (unknown setting) if row-level security hides rows of sessions or attributes from this
    /// role. They would look like sessions that ended. `true` where the connection itself makes that an error.
    fn visible(&self) -> String {
        if self.pinned {
            return "true".to_owned();
        }
        format!(
            "(SELECT CASE WHEN {} THEN pg_catalog.current_setting('{}') END IS NULL)",
            self.policies_active(),
            failure::ROW_SECURITY_MARK
        )
    }

    /// An expression: whether row-level security is active for this role. `false` where the connection itself makes that an error.
    fn policies_active(&self) -> String {
        if self.pinned {
            return "false".to_owned();
        }
        let active = self.names.written().map(|table| {
            format!("pg_catalog.row_security_active('{}'::pg_catalog.regclass)", table.replace('\'', "''"))
        });
        active.join(" OR ")
    }

    /// `FROM … WHERE …` of a read of `table` as `alias`, which has a column `id`. An error on a standby, and if row-level
    /// security hides rows.
    ///
    /// Without a policy nothing is visible, and PostgreSQL 17 and newer then evaluate no condition on the table. So the
    /// read also asks on a row of its own, which the outer join keeps where nothing was found.
    fn read(&self, table: &str, alias: &str, condition: &str) -> String {
        let answers = self.answers();
        if self.pinned {
            return format!("FROM {table} {alias} WHERE {condition} AND {answers}");
        }
        format!(
            "FROM (SELECT) AS one LEFT JOIN {table} {alias} ON {condition} AND {answers}
             WHERE {alias}.id IS NOT NULL OR NOT ({answers})"
        )
    }

    /// A condition that is always true, and raises an error on a standby, and if row-level security hides rows.
    fn answers(&self) -> String {
        if self.pinned { ON_PRIMARY.to_owned() } else { format!("{ON_PRIMARY} AND {}", self.visible()) }
    }

    /// A query of the retired ids `(id)` of the session whose id is `of`, to be joined as `LATERAL`.
    ///
    /// `OFFSET 0` keeps the planner from replacing the look into the index for each session by a
    /// look at all sessions. Before the table's first ANALYZE, the planner takes all values to be
    /// equally frequent, NULLs included.
    fn retired_ids(&self, of: &str) -> String {
        format!("SELECT r.id FROM {} r WHERE r.rotated_to = {of} OFFSET 0", self.names.sessions())
    }

    /// A condition that is always true. It limits how long the statement waits for each row that another transaction has
    /// locked. It is evaluated before the first row is locked. In the statement, because a pooler or an application may own
    /// the connection's settings.
    ///
    /// The statement must evaluate [`LIFTED`] when it has locked its last row, at the latest before it notifies.
    fn wait_briefly(&self) -> String {
        waits_at_most(&self.row_lock_wait())
    }

    /// The longest wait for a locked row, as a text of milliseconds.
    fn row_lock_wait(&self) -> String {
        format!("'{}'", self.config.row_lock_wait.as_millis())
    }

    fn channel(&self) -> &str {
        self.names.channel()
    }

    /// An expression of type `int8`: the [`ServerId`](crate::notification::ServerId). The upper
    /// half identifies one run of a server, and its database. A copy of a server, and the same one
    /// after a restart, differ in the time of their start. The lower half identifies the files of
    /// the tables. Restored tables have other files, and so have tables that TRUNCATE, VACUUM FULL
    /// and CLUSTER write.
    ///
    /// `table` makes the table's oid of a text that names it.
    fn server(&self, table: impl Fn(&str) -> String) -> String {
        let file = |name: String| {
            let table = table(&names::literal(&name));
            format!("COALESCE(pg_catalog.pg_relation_filenode({table})::pg_catalog.int8, 0)")
        };
        let (sessions, attributes) = (file(self.names.sessions()), file(self.names.attributes()));
        format!(
            "((pg_catalog.hashtextextended(pg_catalog.current_database()::pg_catalog.text,
                   (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) * 1000000::pg_catalog.float8)::pg_catalog.int8)
               & -4294967296) | (({sessions} + {attributes} * 65599) & 4294967295))"
        )
    }

    /// As [`server`](Self::server), evaluated once for each statement, because it is a subselect without references.
    /// A table that has another oid ends the plan.
    fn server_id(&self) -> String {
        format!("(SELECT {})", self.server(|name| format!("{name}::pg_catalog.regclass")))
    }

    /// As [`server`](Self::server), for an argument of CALL: not all versions end its plan with the table.
    fn server_of_call(&self) -> String {
        self.server(|name| format!("pg_catalog.to_regclass({name})"))
    }
}

/// As [`Dialect::wait_briefly`]; `limit` is a text of milliseconds.
fn waits_at_most(limit: &str) -> String {
    format!("(SELECT pg_catalog.set_config('lock_timeout', {limit}, true) IS NOT NULL)")
}

/// A condition that is always true, and tells the triggers that the library's statement takes care of versions and
/// notifications. A subselect is evaluated once, and before the first row.
const LIBRARY: &str =
    "(SELECT pg_catalog.set_config('pg_session.direct_writes', 'library', true) IS NOT NULL)";

/// A condition that is always true, and ends the limit of [`waits_at_most`].
///
/// At its commit, a transaction that notifies waits for a lock of the whole server. Each holder keeps it until its commit is
/// flushed. With the limit in force the commit would fail while others notify.
const LIFTED: &str = "pg_catalog.set_config('lock_timeout', '0', true) IS NOT NULL";

/// As [`waits_at_most`], for a statement that deletes sessions: the trigger `sessions_follow` ends the limit. It locks the
/// last rows, when the statement has ended. The setting tells it whose limit it is.
///
/// `endings` is an expression of what the audit log has about the ends; see [`ending`](crate::ending).
fn waits_at_most_until_deleted(limit: &str, endings: &str) -> String {
    format!(
        "(SELECT {LIBRARY} AND pg_catalog.set_config('pg_session.limits_row_locks', 'on', true) IS NOT NULL
          AND pg_catalog.set_config('pg_session.endings', {endings}, true) IS NOT NULL
          AND pg_catalog.set_config('lock_timeout', {limit}, true) IS NOT NULL)"
    )
}

/// The condition of each statement that only reads: true on a primary, an error on a standby or a read-only server.
///
/// A standby may lag behind a revocation for any time, and a former primary that was made read-only stays behind. Their
/// rows must not enter the cache, and a missing row does not mean that a session is gone. A connection can change its
/// server, behind a pooler or a proxy, so each statement asks. As a subselect it is evaluated once for a statement, also
/// if no row matches. On a standby every transaction is read-only. Functions that read the WAL would fail on Aurora.
///
/// The error is an unknown setting, `failure::READ_ONLY_MARK`.
const ON_PRIMARY: &str = "(SELECT CASE WHEN pg_catalog.current_setting('transaction_read_only') <> 'off' \
     THEN pg_catalog.current_setting('pg_session.server_is_read_only') END IS NULL)";

impl Database {
    pub(crate) fn new(
        pool: Pooled,
        mode: Sending,
        policy: Arc<Policy>,
        names: Names,
        config: &Config,
        now: &str,
    ) -> Self {
        let (pool, attempts, tls, reaches) = match pool {
            Pooled::Own(pool, attempts, reaches) => {
                (pool, Some(Arc::clone(&attempts)), CancelTls::AsThePool(attempts), reaches)
            }
            Pooled::Application(pool, tls, reaches) => (pool, None, CancelTls::Fixed(tls), reaches),
        };
        let dialect = |pinned| Dialect { names: &names, config, now, pinned };
        let dialects = Dialects { pinned: attempts.is_some().then(|| dialect(true)), other: dialect(false) };
        let clock = || Sql { text: format!("SELECT {now} AS now WHERE {ON_PRIMARY}"), types: vec![] };
        let texts = Texts {
            load: dialects.sql(load::sql),
            standings: dialects.sql(standing::sql),
            updates: update::Texts::new(&dialects),
            create: dialects.sql(create::sql),
            create_in_full: dialects.sql(create::full_sql),
            rotate: dialects.sql(rotate::sql),
            successor: dialects.sql(successor::sql),
            delete: dialects.sql(delete::sessions_sql),
            sweeps: sweep::Texts::new(&dialects),
            having_attribute: dialects.sql(remove_attribute::found_sql),
            remove_attribute: remove_attribute::Texts::new(&dialects),
            list_user: dialects.sql(|dialect| load::list_sql(dialect, Of::Owner("user_id"))),
            list_group: dialects.sql(|dialect| load::list_sql(dialect, Of::Owner("group_id"))),
            list_label: dialects.sql(|dialect| load::list_sql(dialect, Of::Label)),
            find: find::Texts::new(&dialects),
            audit_receipt: dialects.sql(audit::receipt_sql),
            clean_expired: dialects.sql(clean::expired_sql),
            clean_idle: dialects.sql(clean::idle_sql),
            clean_attributes: dialects.sql(clean::attributes_sql),
            touch: dialects.sql(touch::sql),
            locked_rows: dialects.sql(row_locks::rows_sql),
            locked_sessions: dialects.sql(row_locks::sessions_sql),
            blocked_users: dialects.sql(row_locks::users_sql),
            notify: dialects.sql(notify::sql),
            beat: dialects.sql(nodes::beat_sql),
            acknowledge: dialects.sql(nodes::acknowledge_sql),
            request: dialects.sql(nodes::request_sql),
            node_rows: dialects.sql(nodes::rows_sql),
            node_descriptions: dialects.sql(nodes::descriptions_sql),
            remove_nodes: dialects.sql(nodes::remove_sql),
            leave: dialects.sql(nodes::leave_sql),
            locks: lock::Texts::new(&dialects),
            settings: settings::Texts::new(&dialects.other),
            clock: dialects.sql(|_| clock()),
        };
        Self {
            pool,
            canceller: Canceller::new(tls),
            suspicion: Suspicion::default(),
            attempts,
            policy,
            names,
            texts,
            mode,
            reaches,
            timeout: config.query_timeout,
            sessions_max: config.sessions_max(),
        }
    }

    /// Learns the database's clock before anything depends on it.
    pub(crate) async fn learn_clock(&self) -> Result<(), Error> {
        let sent = self.policy.clock.now();
        let call = self.call(&self.texts.clock, &[]).repeatable();
        let rows = call.rows().await.map_err(Failure::into_read_error)?;
        let reading = rows.first().map(|row| load::time(row, "now")).transpose();
        if let Some(reading) = reading.map_err(|error| unexpected(error).error)? {
            self.observe_clock(sent, reading);
        }
        Ok(())
    }

    /// Whether a connection of the pool leads through a pooler.
    pub(crate) async fn is_pooled(&self) -> Result<bool, Error> {
        let reach = self.bounded(self.timeout, async |connection| self.reaches.of(connection).await);
        Ok(reach.await.map_err(Failure::into_read_error)? == Reach::Pooled)
    }

    /// Ends the pool, if it was made for this manager.
    pub(crate) fn close(&self) {
        if let Some(attempts) = &self.attempts {
            self.pool.close();
            attempts.close();
        }
    }

    /// How long a write of one session is tried.
    pub(crate) fn blocked_max(&self) -> Duration {
        self.timeout
    }

    /// How long a write of any number of sessions is tried.
    pub(crate) fn bulk_timeout(&self) -> Duration {
        self.timeout.saturating_mul(LONG_FACTOR)
    }

    /// Why our own pool could not connect, if its last attempt failed.
    pub(crate) fn connect_error(&self) -> Option<String> {
        self.attempts.as_ref().and_then(|attempts| attempts.last_error())
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Learns how far the database's clock is from the node's, from a statement sent at `sent`.
    fn observe_clock(&self, sent: Tick, reading: DbTime) {
        let clock = &self.policy.clock;
        clock.observe(sent, clock.now(), reading);
    }
}

/// A row that does not have the shape that the statement gives it: the tables were changed by hand.
fn unexpected(cause: impl std::fmt::Display) -> Failure {
    let error = Error::new(
        ErrorKind::Schema,
        "a row of the session tables has an unexpected shape; restore the tables as the migrations make them",
    )
    .with_source(cause.to_string());
    Failure { error, verdict: Verdict::Unknown }
}

/// A statement that reports on each of its orders has as many rows.
fn same_length(rows: &[Row], orders: usize) -> Result<(), Failure> {
    if rows.len() == orders {
        return Ok(());
    }
    Err(unexpected(format_args!("{} rows for {orders} orders", rows.len())))
}
