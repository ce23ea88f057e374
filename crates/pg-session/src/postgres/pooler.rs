//! What is between our pool and PostgreSQL, and what follows from it: which settings a connection has, and whether
//! prepared statements are safe.
//!
//! **Prepared statements.** The driver names them `s0`, `s1`, … in every process. A pooler in transaction mode that does
//! not track them gives one server connection to two processes in turn. Then a read in one process can execute the
//! other's DELETE. So a statement is prepared only where a connection keeps its server process, or the pooler renames
//! statements.
//!
//! **A pool of our own** marks its startup packets with a parameter that no other client knows, as `pg-listen` does. A
//! pooler refuses the packet or drops the parameter, so a connection that has it leads directly to PostgreSQL. Beside the
//! mark, the packet sets what statements rely on; see [`pin`]. A refused packet is sent again without both. The statements
//! of a connection without the mark have a form that relies on no setting.
//!
//! **A connection without the mark** is asked whether it leads directly to PostgreSQL; see [`reach`](super::reach). Each connection is judged by itself, because a name can change its address while a node runs.
//!
//! Through a pooler, statements are not prepared: a pooler that keeps a server connection for each client today may share
//! them tomorrow. With `statement_mode = "prepared"` the user answers for that,
//! and `connect` refuses what is unsafe from the beginning. It asks for two connections. If one of them ever has the
//! other's server process, or changes its own, the pooler shares server connections:
//!
//! ```text
//! B   process? ──────────────────── process?        both the same, and never A's
//! A             BEGIN ── process? ─────────── COMMIT
//! ```
//!
//! An idle pooler gives A the process that B has just used. A busy one gives B another process each time.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod,
};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::types::Type;
use tracing::info;
use uuid::Uuid;

use super::attempts::{Attempts, Connect};
use super::connection::from_pool_error;
use super::failure::{self, Failure};
use super::reach::{Reach, Reaches, process};
use super::role_settings::SOUND;
use super::source::Source;
use super::statement::{query, run};
use super::{LONG_FACTOR, unexpected};
use crate::config::{Config, StatementMode};
use crate::error::{Error, ErrorKind};

/// What the marks of all connections begin with.
const MARK_PREFIX: &str = "pg_session.direct_";
/// Rounds in which two connections are compared.
const AFFINITY_ROUNDS: u32 = 8;
/// How long two connections and their answers are waited for.
const AFFINITY_TIMEOUT: Duration = Duration::from_secs(2);
/// The kernel gives up a connection whose peer has vanished after this many `query_timeout`s; its default is hours.
const VANISHED_FACTOR: u32 = 4;

/// The server gives up a client that has vanished, and the locks of its last statement, within half a minute. Its default
/// is hours. PostgreSQL carries out a statement before it has received the last five bytes of the request, and commits
/// after them.
const VANISHED_CLIENT: &str = "-c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=30000";

/// How long the first connection may take, with what is asked over it.
pub(crate) fn start_timeout(config: &Config) -> Duration {
    config.provider_timeout.saturating_add(config.connect_timeout).saturating_add(config.query_timeout)
}

/// Adds to the startup packet, before the user's own options, [`VANISHED_CLIENT`]. And behind them:
///
/// - `search_path`: names that are not qualified mean PostgreSQL's own, whatever other roles may create;
/// - `jit`: to compile a plan takes seconds, and none of this library's is worth it. PostgreSQL compiles plans that look dear,
///   as all do where a setting of the role forbids what they need (`enable_seqscan = off`);
/// - `row_security`: a row that a policy hides is an error, not an absence;
/// - `statement_timeout`: no statement outlives the longest that this library sends.
fn pin(server: &mut tokio_postgres::Config, mark: &str, query_timeout: Duration) {
    let users = server.get_options().map(|options| format!("{options} ")).unwrap_or_default();
    let timeout = query_timeout.saturating_mul(LONG_FACTOR).as_millis().min(i32::MAX as u128);
    server.options(format!(
        "{VANISHED_CLIENT} {users}-c {mark}=on -c search_path=pg_catalog -c row_security=off -c jit=off -c statement_timeout={timeout}"
    ));
}

/// Makes a pool of our own. Its connections are made when they are needed.
///
/// # Errors
/// [`ErrorKind::Config`] if the pool cannot be made.
pub(crate) fn own_pool(
    source: &Source,
    config: &Config,
) -> Result<(Pool, Arc<Attempts>, Arc<Reaches>), Error> {
    let mark = format!("{MARK_PREFIX}{}", Uuid::new_v4().simple());
    let (query_timeout, own_mark) = (config.query_timeout, mark.clone());
    let amend = move |server: &mut tokio_postgres::Config, is_pinned: bool| {
        if is_pinned {
            pin(server, &own_mark, query_timeout);
        }
        if server.get_tcp_user_timeout().is_none() {
            server.tcp_user_timeout(query_timeout.saturating_mul(VANISHED_FACTOR));
        }
        // Of several hosts or addresses, the primary.
        server.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if server.get_application_name().is_none() {
            server.application_name("pg-session");
        }
    };
    let attempts = Attempts::new(source, amend, config);
    // Each attempt has a configuration of its own; this one is not used.
    let manager = Manager::from_connect(
        tokio_postgres::Config::new(),
        Connect::new(&attempts),
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    let reaches = Arc::<Reaches>::default();
    let known = Arc::clone(&reaches);
    let learn = Hook::async_fn(move |client, _| {
        let (mark, known) = (mark.clone(), Arc::clone(&known));
        Box::pin(async move {
            if has_mark(client, &mark).await.map_err(HookError::Backend)? {
                known.learn_pinned(client);
            }
            Ok(())
        })
    });
    let pool = Pool::builder(manager).max_size(config.pool_connections_max).post_create(learn).build();
    let pool = pool.map_err(|error| {
        Error::new(ErrorKind::Config, "the connection pool could not be made; look at the cause")
            .with_source(error.to_string())
    })?;
    Ok((pool, attempts, reaches))
}

/// Limits of a role that end connections. Versions of PostgreSQL that lack one would refuse it in the startup packet.
const LIMITS_OF_CONNECTIONS: [&str; 2] = ["idle_session_timeout", "transaction_timeout"];

/// Whether a connection has the mark, and settings that the statements can rely on. One with the mark belongs to this pool alone:
/// [`LIMITS_OF_CONNECTIONS`] are turned off.
async fn has_mark(client: &ClientWrapper, mark: &str) -> Result<bool, tokio_postgres::Error> {
    const IS_MARKED: &str = "pg_catalog.current_setting($1, true) OPERATOR(pg_catalog.=) 'on'";
    let limits = LIMITS_OF_CONNECTIONS.map(|name| {
        format!(
            ", CASE WHEN {IS_MARKED} AND pg_catalog.current_setting('{name}', true) IS NOT NULL
                    THEN pg_catalog.set_config('{name}', '0', false) END"
        )
    });
    let text = format!("SELECT {IS_MARKED} AND {SOUND}{}", limits.concat());
    let rows = client.query_typed(&text, &[(&mark, Type::TEXT)]).await?;
    let answer: Option<bool> = rows.first().and_then(|row| row.try_get(0).ok().flatten());
    Ok(answer == Some(true))
}

/// What two connections of one pool have shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Affinity {
    /// Each keeps its server process.
    Kept,
    /// They share server processes.
    Shared,
    /// There were no two connections to compare.
    Unknown,
}

/// How statements are sent over a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sending {
    Prepared,
    /// Prepared on each connection that leads directly to PostgreSQL.
    PreparedIfDirect,
    Unnamed,
}

/// How statements are sent over this pool.
///
/// # Errors
/// [`ErrorKind::Config`] if the setting is not safe there, or a pooler forbids transactions.
pub(crate) async fn sending(pool: &Pool, reaches: &Reaches, wanted: StatementMode) -> Result<Sending, Error> {
    let (reach, sending) = match decide(pool, reaches, wanted).await {
        // Asking changes nothing. The first connection of a pool may be one that is being closed.
        Err(failure) if failure.is_cut() => decide(pool, reaches, wanted).await,
        decided => decided,
    }
    .map_err(Failure::into_read_error)?;
    info!(?reach, ?sending, "the pool is connected");
    Ok(sending)
}

async fn decide(pool: &Pool, reaches: &Reaches, wanted: StatementMode) -> Result<(Reach, Sending), Failure> {
    let reach = first_reach(pool, reaches).await?;
    if reach == Reach::Pooled {
        check_transactions(pool).await?;
    }
    let sending = match wanted {
        StatementMode::Auto => Sending::PreparedIfDirect,
        StatementMode::Prepared if reach != Reach::Pooled => Sending::PreparedIfDirect,
        StatementMode::Prepared => check_prepared(pool).await?,
        StatementMode::Unnamed => Sending::Unnamed,
    };
    Ok((reach, sending))
}

async fn first_reach(pool: &Pool, reaches: &Reaches) -> Result<Reach, Failure> {
    let connection = get(pool).await?;
    reaches.of(&connection).await
}

/// Whether prepared statements are safe over all connections of a pool behind a pooler.
async fn check_prepared(pool: &Pool) -> Result<Sending, Failure> {
    let affinity = match tokio::time::timeout(AFFINITY_TIMEOUT, affinity(pool)).await {
        Ok(affinity) => affinity?,
        // The second waits for the server connection that the first one holds.
        Err(_) => Affinity::Shared,
    };
    if affinity == Affinity::Kept || renames_statements(pool).await? {
        return Ok(Sending::Prepared);
    }
    let message = match affinity {
        Affinity::Kept | Affinity::Shared => {
            "the pool leads through a pooler that shares server connections and does not track prepared statements, so \
             one process would execute the statements of another; set `statement_mode = \"unnamed\"`, or let the pooler track \
             them (pgbouncer 1.21 or newer: max_prepared_statements)"
        }
        Affinity::Unknown => {
            "the pool leads through a pooler and has one connection, so it cannot be tested whether the pooler shares server \
             connections; set `statement_mode = \"auto\"`, or give the pool two connections"
        }
    };
    Err(Failure::not_sent(Error::new(ErrorKind::Config, message)))
}

/// Migrations and the comparison of two connections need a transaction of several statements.
async fn check_transactions(pool: &Pool) -> Result<(), Failure> {
    let connection = get(pool).await?;
    match connection.batch_execute("BEGIN").await {
        Ok(()) => run(&connection, "COMMIT").await,
        Err(error) if error.as_db_error().is_some() => {
            let message = "the pooler in front of PostgreSQL forbids transactions (statement mode); use its session or \
                           transaction mode";
            let cause = Failure::of_statement(&error).into_read_error();
            Err(Failure::not_sent(Error::new(ErrorKind::Config, message).with_source(cause)))
        }
        Err(error) => Err(Failure::of_statement(&error)),
    }
}

async fn get(pool: &Pool) -> Result<Object, Failure> {
    pool.get().await.map_err(|error| match error {
        PoolError::PostCreateHook(HookError::Backend(error)) => Failure::of_statement(&error),
        // Our own pool has made it once more.
        PoolError::Backend(error) if failure::is_cut(&error) => Failure::of_statement(&error),
        error => Failure::not_sent(from_pool_error(&error)),
    })
}

async fn affinity(pool: &Pool) -> Result<Affinity, Failure> {
    if pool.status().max_size < 2 {
        return Ok(Affinity::Unknown);
    }
    let (a, b) = (get(pool).await?, get(pool).await?);
    for _ in 0..AFFINITY_ROUNDS {
        let before = process(&b).await?;
        run(&a, "BEGIN").await?;
        let held = process(&a).await?;
        let after = process(&b).await?;
        run(&a, "COMMIT").await?;
        if before != after || held == before {
            return Ok(Affinity::Shared);
        }
    }
    Ok(Affinity::Kept)
}

/// Whether the pooler gives prepared statements names of its own.
async fn renames_statements(pool: &Pool) -> Result<bool, Failure> {
    let client = get(pool).await?;
    let text = format!("SELECT '{}'::pg_catalog.text AS probe", Uuid::new_v4().simple());
    let _kept = client.prepare(&text).await.map_err(|error| Failure::of_statement(&error))?;
    let names = "SELECT name FROM pg_catalog.pg_prepared_statements WHERE statement = $1";
    let rows = query(&client, names, &[(&text, Type::TEXT)]).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let name: String = row.try_get(0).map_err(unexpected)?;
    let is_ours =
        name.strip_prefix('s').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    Ok(!is_ours)
}
