//! Settings that a role or a database gives to its connections: harmless ones change nothing, others are refused.

use std::time::Duration;

use pg_session::{Config, Error, ErrorKind, SessionManager, StatementMode};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::fixtures::{hit, in_time};
use crate::statement_modes::{pool, story};
use crate::support::{NAP, World, eventually};

/// How a node reaches the server.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Scope {
    Own,
    Applications(StatementMode),
}

const SCOPES: [Scope; 3] =
    [Scope::Own, Scope::Applications(StatementMode::Auto), Scope::Applications(StatementMode::Unnamed)];

/// A role of its own, whose settings a test changes.
struct Role {
    world: World,
    admin: Client,
    name: String,
}

impl Role {
    async fn new() -> Self {
        let place = World::new();
        let (admin, name) = (place.client().await, format!("set_of_{}", place.schema));
        admin.batch_execute(&format!("CREATE ROLE {name} SUPERUSER LOGIN")).await.unwrap();
        let url = place.url.replace("postgres@", &format!("{name}@"));
        Self { world: World { url, ..place }, admin, name }
    }

    /// New connections have the setting.
    async fn set(&self, setting: &str) {
        self.admin.batch_execute(&format!("ALTER ROLE {} {setting}", self.name)).await.unwrap();
    }

    async fn end_connections(&self) {
        let text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
        self.admin.query(text, &[&self.name]).await.unwrap();
    }

    async fn connect(&self, scope: Scope, config: Config) -> Result<SessionManager, Error> {
        let builder = SessionManager::builder(config).url(&self.world.url)?;
        match scope {
            Scope::Own => builder.connect().await,
            Scope::Applications(_) => builder.pool(pool(&self.world, 4)).connect().await,
        }
    }

    fn config(&self, scope: Scope) -> Config {
        let mut config = self.world.config();
        if let Scope::Applications(mode) = scope {
            config.statement_mode = mode;
        }
        config
    }
}

/// ```text
/// node   starts ┊ the setting changes, its connections end: errors that name it ┊ the setting is reset: works
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsafe_settings_of_a_role_are_refused_at_start_and_later() {
    let role = Role::new().await;
    for scope in SCOPES {
        for (setting, message) in [
            (
                "default_transaction_isolation = 'serializable'",
                "SET default_transaction_isolation = 'read committed'",
            ),
            ("session_replication_role = 'replica'", "SET session_replication_role = origin"),
        ] {
            let node = role.connect(scope, role.config(scope)).await.unwrap();
            let session = node.create(1).await.unwrap();
            role.set(&format!("SET {setting}")).await;
            role.end_connections().await;
            eventually("the setting is named", async || match node.delete(session.id()).await {
                Ok(ended) => panic!("{scope:?} {setting}: {ended}"),
                Err(error) => error.kind() == ErrorKind::Config && error.to_string().contains(message),
            })
            .await;
            let error = role.connect(scope, role.config(scope)).await.map(|_| ()).expect_err(setting);
            assert_eq!(error.kind(), ErrorKind::Config, "{scope:?} {setting}: {error:?}");
            assert!(error.to_string().contains(message), "{scope:?} {setting}: {error:?}");
            role.set("RESET ALL").await;
            role.end_connections().await;
            eventually("it works again", async || node.delete(session.id()).await.is_ok_and(|ended| ended))
                .await;
        }
    }
}

/// What administrators, clusters and other applications set for a role or a database.
const ODD: &str = "TimeZone = 'Pacific/Apia'; DateStyle = 'German, DMY'; IntervalStyle = 'sql_standard';
    extra_float_digits = -15; bytea_output = 'escape'; standard_conforming_strings = off; backslash_quote = on;
    quote_all_identifiers = on; array_nulls = off; transform_null_equals = on; client_encoding = 'LATIN1';
    plan_cache_mode = 'force_custom_plan'; enable_hashjoin = off;
    enable_bitmapscan = off; synchronous_commit = off; row_security = off;
    default_transaction_deferrable = on; lock_timeout = '1ms'; session_replication_role = 'local';
    check_function_bodies = off; client_min_messages = 'debug2'; search_path = ''; statement_timeout = '20s';
    idle_in_transaction_session_timeout = '50ms'; from_collapse_limit = 1; join_collapse_limit = 1;
    geqo_threshold = 2; constraint_exclusion = on; default_statistics_target = 1; gin_pending_list_limit = 64;
    lc_messages = 'C'; lc_time = 'C'; xmloption = 'document'; temp_buffers = 100; work_mem = '64kB'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_settings_of_a_role_change_nothing() {
    let role = Role::new().await;
    for setting in ODD.split(';') {
        role.set(&format!("SET {setting}")).await;
    }
    for scope in SCOPES {
        let [a, b] = [
            role.connect(scope, role.config(scope)).await.unwrap(),
            role.connect(scope, role.config(scope)).await.unwrap(),
        ];
        for node in [&a, &b] {
            in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
        }
        in_time("each statement works", story(&a, &b)).await;
        // The notification of the last deletion would drop it.
        a.catch_up().await.unwrap();
        let session = a.create(7).expires_in(Duration::from_secs(90)).await.unwrap();
        assert!(hit(&a, session.id()).is_some(), "{scope:?}");
        let lock = a.locks().lock("odd").await.unwrap();
        assert!(lock.release().await.is_ok());
        assert!(b.delete(session.id()).await.unwrap());
    }
}

/// Settings that make each plan look dear, as a large table does. PostgreSQL compiles such plans, which takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_that_look_dear_are_not_compiled() {
    let role = Role::new().await;
    for setting in [
        "jit = on",
        "jit_above_cost = 0",
        "enable_seqscan = off",
        "enable_nestloop = off",
        "enable_sort = off",
    ] {
        role.set(&format!("SET {setting}")).await;
    }
    let mut config = role.config(Scope::Own);
    config.query_timeout = Config::default().query_timeout;
    let [a, b] = [
        role.connect(Scope::Own, config.clone()).await.unwrap(),
        role.connect(Scope::Own, config).await.unwrap(),
    ];
    in_time("each statement works", story(&a, &b)).await;
}

/// ```text
/// node   trusted ┊ the role may not write, its connections end: the status says so ┊ it may: trusted
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_names_a_role_that_may_not_write() {
    let role = Role::new().await;
    let mut config = role.config(Scope::Own);
    config.trust_window = Duration::from_secs(1);
    let node = role.connect(Scope::Own, config).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
    role.set("SET default_transaction_read_only = on").await;
    role.end_connections().await;
    eventually("the status names the setting", async || {
        node.status().trust_error.is_some_and(|error| error.contains("default_transaction_read_only is on"))
    })
    .await;
    role.set("RESET ALL").await;
    in_time("it is trusted again", node.wait_until_trusted()).await.unwrap();
}

/// With `enable_nestloop = off` each plan looks dear, and PostgreSQL would compile it for seconds.
#[tokio::test]
async fn a_role_without_nested_loops_starts_at_once() {
    let role = Role::new().await;
    role.set("SET enable_nestloop = off").await;
    let node = role.connect(Scope::Own, role.config(Scope::Own)).await.expect("it answers in time");
    let id = node.create(1).await.unwrap().id();
    assert!(node.delete(id).await.unwrap());
}

impl Role {
    /// Sets the limits that this PostgreSQL has, and returns how many.
    async fn limit_connections(&self) -> usize {
        let text =
            "SELECT name FROM pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout')";
        let limits = self.admin.query(text, &[]).await.unwrap();
        for limit in &limits {
            self.set(&format!("SET {} = '500ms'", limit.get::<_, &str>(0))).await;
        }
        limits.len()
    }

    async fn processes(&self) -> Vec<i32> {
        let text = "SELECT pid FROM pg_stat_activity WHERE usename = $1";
        self.admin.query(text, &[&self.name]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }
}

/// The listener's connection is idle while no client notifies. A statement that waits for a row takes longer than the limit.
///
/// ```text
/// node    listens ┊ idle ┊ a deletion waits for the row ┊ it ends: deleted, each connection is still there
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_a_role_end_no_connection() {
    let role = Role::new().await;
    if role.limit_connections().await == 0 {
        return; // PostgreSQL 13 has neither.
    }
    let node = role.connect(Scope::Own, role.config(Scope::Own)).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
    let id = node.create(1).await.unwrap().id();
    let before = role.processes().await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert!(node.status().trusted_for.is_some(), "after {:?}", began.elapsed());
        tokio::time::sleep(NAP).await;
    }
    let lock = format!("BEGIN; SELECT FROM {}.sessions FOR UPDATE", role.world.schema);
    role.admin.batch_execute(&lock).await.unwrap();
    let observer = World::new().client().await;
    let wait = async {
        let text = "SELECT FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'
                    AND xact_start < clock_timestamp() - interval '1 second'";
        eventually("the deletion waits for longer than the limit", async || {
            !observer.query(text, &[&role.name]).await.unwrap().is_empty()
        })
        .await;
        role.admin.batch_execute("ROLLBACK").await
    };
    let (deleted, ended) = tokio::join!(in_time("it ends", node.delete(id)), wait);
    ended.unwrap();
    assert!(deleted.unwrap());
    let after = role.processes().await;
    assert!(before.iter().all(|process| after.contains(process)), "{before:?} {after:?}");
    assert!(node.status().trusted_for.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_transactions_is_named() {
    let role = Role::new().await;
    // The tables are made without a limit.
    role.connect(Scope::Own, role.config(Scope::Own)).await.unwrap();
    let set = format!("ALTER ROLE {} SET transaction_timeout = '2s'", role.name);
    if role.admin.batch_execute(&set).await.is_err() {
        return; // PostgreSQL 17 brought it.
    }
    let scope = Scope::Applications(StatementMode::Auto);
    let node = role.connect(scope, role.config(scope)).await.unwrap();
    let id = node.create(1).await.unwrap().id();
    let lock = format!("BEGIN; LOCK TABLE {}.sessions", role.world.schema);
    role.admin.batch_execute(&lock).await.unwrap();
    let error = node.get(id).bypass_cache().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("SET transaction_timeout = 0"), "{error}");
    role.admin.batch_execute("ROLLBACK").await.unwrap();
    eventually("it works again", async || node.delete(id).await.is_ok()).await;
}
