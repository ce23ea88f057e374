//! What a failed statement means: the only file that reads SQLSTATEs.
//!
//! The sender of a write has to know whether it may have happened. An `ERROR` from the server says that the
//! statement was rolled back. Everything that ends the connection (`FATAL`, a closed socket, no answer in time)
//! leaves it open, once the statement was sent.

use std::fmt;
use std::time::Duration;

use tokio_postgres::error::{DbError, Severity, SqlState};

use super::own_rights::{own_object, own_right};
use super::tls;
use crate::error::{Error, ErrorKind};

/// A failed statement, and what its sender may do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) verdict: Verdict,
}

/// Whether the statement may have taken effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The server refused it; nothing happened. A batch may be split to spare the innocent.
    Refused,
    /// Deadlock or serialization failure; nothing happened, and another try may pass.
    Retryable,
    /// Another transaction has locked a row for longer than the statement may wait. Nothing
    /// happened, and another try may pass.
    Blocked,
    /// The tables changed under a prepared statement, or a pooler lost it. Nothing happened, and
    /// another try with a new one may pass.
    StalePlan,
    /// The server is a standby or read-only; nothing happened, and another connection may reach the primary.
    WrongServer,
    /// It never left this node.
    NotSent,
    /// It was sent, and its outcome is not known.
    Unknown,
}

impl Failure {
    pub(super) fn not_sent(error: Error) -> Self {
        Self { error, verdict: Verdict::NotSent }
    }

    pub(super) fn no_answer(timeout: Duration) -> Self {
        Self {
            error: Error::new(
                ErrorKind::Timeout,
                format!(
                    "PostgreSQL did not answer within {} s; look at its load and locks",
                    seconds(timeout)
                ),
            ),
            verdict: Verdict::Unknown,
        }
    }

    /// Another transaction has locked a row for so long.
    pub(crate) fn blocked(waited: Duration) -> Self {
        let message = format!("the row was locked for {} s", seconds(waited));
        Self { error: Error::new(ErrorKind::Contention, message), verdict: Verdict::Blocked }
    }

    /// The rows are of a server whose changes the listener does not receive.
    pub(crate) fn of_another_server() -> Self {
        let message = "the pool leads to another server than the last proof; the next proof decides";
        Self { error: Error::new(ErrorKind::Unavailable, message), verdict: Verdict::WrongServer }
    }

    /// Another server than the listener's has ended sessions. The listener's server may still have them.
    pub(crate) fn revoked_elsewhere() -> Self {
        let message = "the pool leads to another server than the listener, so the sessions may have ended on that server only; \
                       try again";
        Self { error: Error::new(ErrorKind::OutcomeUnknown, message), verdict: Verdict::Unknown }
    }

    pub(super) fn of_statement(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(server) if is_fatal(server) => Self { error: ended(server), verdict: Verdict::Unknown },
            Some(server) => {
                let verdict = match *server.code() {
                    _ if is_read_only(server) => Verdict::WrongServer,
                    SqlState::T_R_DEADLOCK_DETECTED | SqlState::T_R_SERIALIZATION_FAILURE => {
                        Verdict::Retryable
                    }
                    SqlState::LOCK_NOT_AVAILABLE => Verdict::Blocked,
                    SqlState::INVALID_SQL_STATEMENT_NAME
                    | SqlState::DUPLICATE_PSTATEMENT
                    | SqlState::FEATURE_NOT_SUPPORTED => Verdict::StalePlan,
                    _ => Verdict::Refused,
                };
                Self { error: refusal(server), verdict }
            }
            None => Self { error: lost(None).with_source(error.to_string()), verdict: Verdict::Unknown },
        }
    }

    /// As [`of_statement`](Self::of_statement), for a procedure that updates, commits, then notifies.
    pub(super) fn of_call(error: &tokio_postgres::Error) -> Self {
        let failure = Self::of_statement(error);
        match error.as_db_error() {
            Some(server) if may_be_committed(server) => Self { verdict: Verdict::Unknown, ..failure },
            _ => failure,
        }
    }

    /// Whether the connection was lost, or is silent. Another one may work.
    pub(super) fn is_lost(&self) -> bool {
        match self.verdict {
            Verdict::Unknown => matches!(self.error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout),
            Verdict::NotSent => self.error.kind() == ErrorKind::Unavailable,
            Verdict::Refused
            | Verdict::Retryable
            | Verdict::StalePlan
            | Verdict::Blocked
            | Verdict::WrongServer => false,
        }
    }

    /// Whether the connection was lost after the statement was sent.
    pub(super) fn is_cut(&self) -> bool {
        self.verdict == Verdict::Unknown && self.error.kind() == ErrorKind::Unavailable
    }

    /// Whether no client of the server can notify.
    pub(super) fn is_queue_full(&self) -> bool {
        self.error.to_string() == QUEUE_FULL
    }

    /// For a statement that changes nothing: its outcome is known to be "nothing happened".
    pub(crate) fn into_read_error(self) -> Error {
        self.error
    }

    /// For a statement that changes nothing, and that a write needs before it is sent.
    pub(crate) fn into_unsent_error(self) -> Self {
        match self.verdict {
            Verdict::Unknown => Self::not_sent(self.error),
            _ => self,
        }
    }

    /// For a write: an unknown outcome is said to be one.
    pub(crate) fn into_write_error(self) -> Error {
        match self.verdict {
            Verdict::Unknown if self.error.kind() == ErrorKind::OutcomeUnknown => self.error,
            Verdict::Unknown => Error::new(
                ErrorKind::OutcomeUnknown,
                "the write was sent and its answer never came, so it may or may not have been committed; load the \
                 session again before deciding",
            )
            .with_source(self.error),
            Verdict::Retryable => Error::new(
                ErrorKind::Contention,
                "the write kept colliding with other transactions and was not made; try again later",
            )
            .with_source(self.error),
            Verdict::Blocked => {
                Error::new(
                    ErrorKind::Contention,
                    "another transaction has locked a row that the write needs, and nothing was written that needs this row; \
                     end that transaction (pg_blocking_pids names it), then try again",
                )
                .with_source(self.error)
            }
            Verdict::Refused | Verdict::StalePlan | Verdict::WrongServer | Verdict::NotSent => self.error,
        }
    }
}

/// Whether a procedure that updates, commits, then notifies may have committed before it failed.
///
/// The context of an error in the update quotes its text, in no language but SQL. Behind the commit, a notification can be
/// cancelled, find its queue full, or lack memory, disk or the right to notify.
/// For people, to the millisecond: a limit may be what is left of a time, to the nanosecond.
pub(crate) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

fn may_be_committed(error: &DbError) -> bool {
    if error.where_().is_some_and(|context| context.contains("UPDATE \"")) {
        return false;
    }
    match *error.code() {
        SqlState::INSUFFICIENT_PRIVILEGE => error.message().contains("pg_notify"),
        ref code => {
            ["40", "53", "54", "55", "57", "58", "XX"].iter().any(|class| code.code().starts_with(class))
        }
    }
}

fn is_fatal(error: &DbError) -> bool {
    matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic) | None)
}

fn lost(cause: Option<Cause>) -> Error {
    let error =
        Error::new(ErrorKind::Unavailable, "the connection to PostgreSQL was lost; it is being replaced");
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

/// The server has ended the connection.
fn ended(server: &DbError) -> Error {
    let setting = match server.code().code() {
        "25P03" => "idle_in_transaction_session_timeout",
        "25P04" => "transaction_timeout",
        "57P05" => "idle_session_timeout",
        _ => return lost(Some(Cause::of(server))),
    };
    let message = format!(
        "{setting} ended the connection to PostgreSQL; run: ALTER ROLE <role> SET {setting} = 0, or look for it in ALTER \
         DATABASE and in the server's configuration"
    );
    Error::new(ErrorKind::Unavailable, message).with_source(Cause::of(server))
}

/// The unknown setting that `Dialect::visible` asks for where a policy would hide rows.
pub(super) const ROW_SECURITY_MARK: &str = "pg_session.row_security_is_active";
/// Rows that a policy hides would look like sessions that ended.
pub(super) const ROW_SECURITY: &str = "row-level security is active on the session tables for this role, and would hide \
     sessions; run: ALTER TABLE ... DISABLE ROW LEVEL SECURITY for each of them, or ALTER ROLE <role> BYPASSRLS";

/// An object of the library belongs to a role that is not trusted; see `owners`.
const FOREIGN_OBJECT: &str = "PS008";

/// The unknown setting that `ON_PRIMARY` asks for on a standby or a read-only server.
pub(super) const READ_ONLY_MARK: &str = "pg_session.server_is_read_only";
const READ_ONLY: &str = "the pool reached a standby or a read-only server, which cannot serve sessions; nothing was read \
     or written, try again; if this lasts, give the pool the address of the primary";

const NO_PRIMARY: &str = "no host that was reached accepts writes: it is a standby, or default_transaction_read_only is on; try \
     again; if this lasts, give the address of the primary, or run: ALTER ROLE <role> SET default_transaction_read_only = off";

/// Whether a server was reached, and it accepts no writes.
pub(crate) fn is_without_primary(error: &Error) -> bool {
    [NO_PRIMARY, READ_ONLY].contains(&error.to_string().as_str())
}

const FULL: &str = "PostgreSQL has no connection left; raise max_connections, or the CONNECTION LIMIT of the role or the \
     database, or lower `pool_connections_max`";

const FULL_POOLER: &str = "the connection pooler admits no more clients; raise its limit (pgbouncer: max_client_conn), or \
     lower `pool_connections_max`";

/// Whether the server refused a statement because it is a standby or read-only.
fn is_read_only(server: &DbError) -> bool {
    match *server.code() {
        SqlState::READ_ONLY_SQL_TRANSACTION => true,
        SqlState::UNDEFINED_OBJECT => server.message().contains(READ_ONLY_MARK),
        // A standby has no unlogged tables. The name of the routine is never translated.
        SqlState::FEATURE_NOT_SUPPORTED => server.routine() == Some("get_relation_info"),
        _ => false,
    }
}

const QUEUE_FULL: &str = "PostgreSQL's notification queue is full; end the client that listens in an open transaction: the server's \
     log names its process";

/// A refused statement, in words that say what to do.
fn refusal(server: &DbError) -> Error {
    let (kind, message) = match *server.code() {
        _ if is_read_only(server) => (ErrorKind::Unavailable, READ_ONLY.to_owned()),
        // With `row_security = off`, or by the condition that `Dialect::visible` adds.
        SqlState::UNDEFINED_OBJECT if server.message().contains(ROW_SECURITY_MARK) => {
            (ErrorKind::Permission, ROW_SECURITY.to_owned())
        }
        SqlState::INSUFFICIENT_PRIVILEGE if is_row_security(server) => {
            (ErrorKind::Permission, ROW_SECURITY.to_owned())
        }
        SqlState::INVALID_SQL_STATEMENT_NAME | SqlState::DUPLICATE_PSTATEMENT => (
            ErrorKind::Config,
            "a pooler lost or mixed up prepared statements; set `statement_mode = \"unnamed\"` and restart the node".to_owned(),
        ),
        SqlState::INSUFFICIENT_PRIVILEGE if own_object(server.message()).is_some() => {
            let object = own_object(server.message()).unwrap_or_default();
            (ErrorKind::Permission, format!("{}; {}", server.message(), own_right(&object)))
        }
        SqlState::INSUFFICIENT_PRIVILEGE => (
            ErrorKind::Permission,
            format!("{}; run the GRANT statements that docs/operations.md lists under \"Rights\"", server.message()),
        ),
        // The message of `owners::check`.
        ref code if code.code() == FOREIGN_OBJECT => (ErrorKind::Schema, server.message().to_owned()),
        SqlState::INVALID_SCHEMA_NAME => (
            ErrorKind::Schema,
            format!(
                "{}; correct `schema` in the configuration, or create it (`migrations = \"apply\"` does so at start)",
                server.message()
            ),
        ),
        // The name of the language is never translated.
        SqlState::UNDEFINED_OBJECT if server.message().contains("plpgsql") => (
            ErrorKind::Schema,
            "the database lacks the language plpgsql; run there: CREATE EXTENSION plpgsql".to_owned(),
        ),
        SqlState::DUPLICATE_TABLE | SqlState::DUPLICATE_OBJECT | SqlState::DUPLICATE_FUNCTION => (
            ErrorKind::Schema,
            format!(
                "{}, and is not recorded as the library's; if another application made it, set `schema` or `table_prefix` to \
                 another name; otherwise restore the table session_migrations",
                server.message()
            ),
        ),
        SqlState::UNDEFINED_FUNCTION | SqlState::UNDEFINED_OBJECT | SqlState::WRONG_OBJECT_TYPE => (
            ErrorKind::Schema,
            format!(
                "{}; the schema was changed by hand: restore it as the SQL of `Migrations::sql` makes it",
                server.message()
            ),
        ),
        SqlState::UNTRANSLATABLE_CHARACTER | SqlState::CHARACTER_NOT_IN_REPERTOIRE => (
            ErrorKind::Config,
            "the database's encoding cannot store a character of this request; use a database with encoding UTF8"
                .to_owned(),
        ),
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN => (
            ErrorKind::Schema,
            format!(
                "{}; restore it from a backup, or drop all objects of the library (`pg-session doctor` prints the \
                 statements) and run the migrations, which ends all sessions",
                server.message()
            ),
        ),
        SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => {
            (ErrorKind::Timeout, "PostgreSQL cancelled the statement; look at its load and locks, or raise `query_timeout`".to_owned())
        }
        SqlState::TOO_MANY_CONNECTIONS => {
            (ErrorKind::Unavailable, FULL.to_owned())
        }
        SqlState::DISK_FULL => (
            ErrorKind::Unavailable,
            "PostgreSQL has no disk space left; free some".to_owned(),
        ),
        SqlState::OUT_OF_MEMORY => (
            ErrorKind::Unavailable,
            "PostgreSQL has no memory left; look at its load, or at pg_locks: a client with very many locks fills the shared \
             memory, and max_locks_per_transaction enlarges it"
                .to_owned(),
        ),
        // The names of routines are never translated.
        SqlState::PROGRAM_LIMIT_EXCEEDED if server.routine() == Some("PreCommit_Notify") => (
            ErrorKind::Unavailable,
            QUEUE_FULL.to_owned(),
        ),
        SqlState::FOREIGN_KEY_VIOLATION => (
            ErrorKind::Schema,
            "a foreign key of another table keeps a session from being deleted; drop it: an id ends with each login".to_owned(),
        ),
        _ => (
            ErrorKind::Database,
            "PostgreSQL refused the statement, see the cause; `pg-session doctor` finds what was changed by hand".to_owned(),
        ),
    };
    Error::new(kind, message).with_source(Cause::of(server))
}

/// Whether a policy refused a row. The server translates its messages, but not the names of its routines.
fn is_row_security(server: &DbError) -> bool {
    matches!(server.routine(), Some("ExecWithCheckOptions" | "check_enable_rls"))
}

/// Whether a pooler refused the startup packet for an option that it does not know. pgbouncer does
/// so with 08P01, RDS Proxy with 0A000. PostgreSQL itself never sends either here.
pub(super) fn names_a_pooler(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|server| match *server.code() {
        SqlState::PROTOCOL_VIOLATION => server.message().contains("startup parameter"),
        SqlState::FEATURE_NOT_SUPPORTED => server.message().contains("option"),
        _ => false,
    })
}

/// Whether the server, or a pooler, refused a connection because it has none left.
pub(super) fn is_full(error: &tokio_postgres::Error) -> bool {
    error
        .as_db_error()
        .is_some_and(|server| *server.code() == SqlState::TOO_MANY_CONNECTIONS || is_full_pooler(server))
}

/// Poolers refuse a client over their limit with codes of their own, and in English only. pgbouncer
/// does so with 08P01, Supavisor with XX000.
fn is_full_pooler(server: &DbError) -> bool {
    const TEXTS: [&str; 8] = [
        "no more connections allowed",
        "too many connections",
        "too many clients",
        "max client connections",
        "max clients",
        "client connections exceeded",
        "number of client connections",
        "waiting to acquire database connection",
    ];
    let is_pooler = ["08", "53", "XX"].iter().any(|class| server.code().code().starts_with(class));
    let message = server.message().to_lowercase();
    is_pooler && TEXTS.iter().any(|text| message.contains(text))
}

/// Whether a connection was cut while it was made. A balancer or a pooler that closes one may serve the next.
pub(super) fn is_cut(error: &tokio_postgres::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match io {
        Some(cause) => {
            use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&cause.kind())
                // Cut inside a message.
                || cause.to_string() == "bytes remaining on stream"
        }
        None => error.is_closed(),
    }
}

const REFUSED_SETTING: &str = "PostgreSQL refused a setting of the connection, see the cause; correct `options` in the connection string";
const UNRESOLVED: &str = "the host's name cannot be resolved; correct the host, or look at DNS";
const UNREACHABLE: &str = "PostgreSQL cannot be reached; check host, port and network";
const NO_POSTGRESQL: &str = "the other side did not answer as PostgreSQL does; check host and port, and look at the log of the \
     server or the pooler";

/// No address is known for a host's name.
pub(super) fn unresolved() -> Error {
    Error::new(ErrorKind::Unavailable, UNRESOLVED)
}

/// No host answered in time.
pub(super) fn unreachable() -> Error {
    Error::new(ErrorKind::Unavailable, UNREACHABLE)
}

/// A failure to connect.
pub(crate) fn of_connect(error: &tokio_postgres::Error) -> Error {
    if let Some((message, cause)) = tls::explain(error) {
        return Error::new(ErrorKind::Config, message).with_source(cause);
    }
    let Some(server) = error.as_db_error() else {
        let (kind, message) = of_driver(error);
        return Error::new(kind, message).with_source(error_text(error));
    };
    let (kind, message) = match *server.code() {
        SqlState::INVALID_PASSWORD => (
            ErrorKind::Config,
            "PostgreSQL refused the user name or password; correct the connection string, or look at the role's VALID UNTIL",
        ),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            if server.routine() == Some("InitializeSessionUserId") =>
        {
            (
                ErrorKind::Config,
                "the role does not exist or may not log in; correct the connection string (user), or run: ALTER ROLE <role> LOGIN",
            )
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => (
            ErrorKind::Config,
            "PostgreSQL does not let this user in, see the cause; correct the connection string (user, sslmode) or pg_hba.conf",
        ),
        // A syntax error is that of `options`.
        SqlState::UNDEFINED_OBJECT
        | SqlState::INVALID_PARAMETER_VALUE
        | SqlState::SYNTAX_ERROR
        | SqlState::CANT_CHANGE_RUNTIME_PARAM => (ErrorKind::Config, REFUSED_SETTING),
        // The names of routines are never translated.
        SqlState::INSUFFICIENT_PRIVILEGE
            if server
                .routine()
                .is_some_and(|name| name.starts_with("set_config_") || name.starts_with("call_")) =>
        {
            (ErrorKind::Config, REFUSED_SETTING)
        }
        SqlState::CANNOT_CONNECT_NOW => {
            (ErrorKind::Unavailable, "PostgreSQL is starting, recovering or shutting down; try again")
        }
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => (
            ErrorKind::Config,
            "the database accepts no connections; run: ALTER DATABASE <database> ALLOW_CONNECTIONS true",
        ),
        SqlState::INVALID_CATALOG_NAME => {
            (ErrorKind::Config, "the database does not exist; create it or correct the connection string")
        }
        SqlState::INSUFFICIENT_PRIVILEGE => (
            ErrorKind::Permission,
            "the role may not connect to this database; run: GRANT CONNECT ON DATABASE <database> TO <role>",
        ),
        SqlState::TOO_MANY_CONNECTIONS => (ErrorKind::Unavailable, FULL),
        SqlState::UNDEFINED_FILE if server.routine() == Some("internal_load_library") => (
            ErrorKind::Config,
            "PostgreSQL cannot load a library for this connection, see the cause; correct session_preload_libraries or \
             local_preload_libraries",
        ),
        _ if is_full_pooler(server) => (ErrorKind::Unavailable, FULL_POOLER),
        // PostgreSQL itself answers no startup packet with these.
        ref code if ["08", "XX"].iter().any(|class| code.code().starts_with(class)) => (
            ErrorKind::Unavailable,
            "a pooler or proxy before PostgreSQL refused the connection, see the cause; correct the connection string (user, \
             password, dbname or options), or look at the pooler's own settings",
        ),
        _ => (
            ErrorKind::Unavailable,
            "PostgreSQL refused the connection, see the cause; correct the connection string, or look at the server's log",
        ),
    };
    Error::new(kind, message).with_source(Cause::of(server))
}

/// What the driver found by itself. It tells its kinds apart only by their text.
fn of_driver(error: &tokio_postgres::Error) -> (ErrorKind, &'static str) {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    match (error.to_string().as_str(), cause.as_str()) {
        ("invalid configuration", "password missing") => (
            ErrorKind::Config,
            "PostgreSQL asks for a password, and none was given; add it to the connection string, or to a password file that \
             others cannot read (chmod 0600)",
        ),
        ("invalid configuration", _) => {
            (ErrorKind::Config, "the connection's settings contradict each other; look at the cause")
        }
        ("authentication error", _) => (
            ErrorKind::Config,
            "PostgreSQL and the node found no common way to authenticate; compare channel_binding and sslmode with the \
             server's",
        ),
        (_, "database does not allow writes") => (ErrorKind::Unavailable, NO_PRIMARY),
        (_, cause) if cause.starts_with("failed to lookup address information") => {
            (ErrorKind::Unavailable, UNRESOLVED)
        }
        ("error performing TLS handshake", _) => (
            ErrorKind::Unavailable,
            "the server ended the TLS handshake; look at its log; `sslnegotiation=direct` needs PostgreSQL 17 or newer",
        ),
        ("unexpected message from server", _) => (ErrorKind::Unavailable, NO_POSTGRESQL),
        _ if is_cut(error) => (ErrorKind::Unavailable, NO_POSTGRESQL),
        _ => (ErrorKind::Unavailable, UNREACHABLE),
    }
}

fn error_text(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The server's message without DETAIL, HINT and WHERE, which quote rows: session ids and values. The message of a data
/// exception (class 22) can quote a value as well, so only its code is kept.
#[derive(Debug)]
struct Cause {
    code: String,
    message: String,
    constraint: Option<String>,
}

impl Cause {
    fn of(error: &DbError) -> Self {
        Self {
            code: error.code().code().to_owned(),
            message: if error.code().code().starts_with("22") {
                "data exception; the message is withheld because it can quote a value".to_owned()
            } else {
                error.message().to_owned()
            },
            constraint: error.constraint().map(ToOwned::to_owned),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)?;
        match &self.constraint {
            Some(constraint) => write!(f, ", constraint {constraint:?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Cause {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_messages_have_three_decimals_at_most() {
        let blocked = Failure::blocked(Duration::from_nanos(1_234_567_891)).error.to_string();
        assert!(blocked.contains("for 1.235 s"), "{blocked}");
        let silent = Failure::no_answer(Duration::from_nanos(499_998_213)).error.to_string();
        assert!(silent.contains("within 0.5 s"), "{silent}");
    }
}
