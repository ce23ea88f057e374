//! What every test needs: the shared server, a schema of its own, nodes, and a plain connection beside them.

use std::str::FromStr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, ErrorKind, Migrations, SessionManager};
use tokio::time::Instant;

use crate::captured_logs;

/// The server that the tests of this binary share. Tests that stop or restart a server start one of their own.
static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    Sandbox::builder().setting("max_connections", "400").start().expect("PostgreSQL starts")
});

/// How many databases the schemas are spread over. PostgreSQL looks up a function among those of its name in all schemas,
/// and a start reads the catalogs: in one database, each test would cost more than the one before.
const DATABASES: usize = 16;

/// How long a test waits for something that should take milliseconds.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// One test's place: a schema that no other test uses, on a server.
pub struct World {
    pub url: String,
    pub schema: String,
}

impl World {
    /// A fresh schema in one of the databases of the shared server.
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Self { url: database(NEXT.fetch_add(1, Ordering::Relaxed) % DATABASES), ..Self::in_postgres() }
    }

    /// A fresh schema in the database `postgres` of the shared server: the one of a pooler's URL.
    pub fn in_postgres() -> Self {
        Self::on(&SANDBOX)
    }

    /// A fresh schema on another server.
    pub fn on(sandbox: &Sandbox) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        captured_logs::init();
        let schema = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { url: sandbox.url(), schema }
    }

    /// A fresh database on the shared server, for what PostgreSQL counts or holds back per database.
    pub async fn in_own_database() -> Self {
        let world = Self::new();
        let name = format!("own_{}", world.schema);
        world.plain().await.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database");
        let (server, _) = world.url.rsplit_once('/').expect("the sandbox's URL names its database");
        Self { url: format!("{server}/{name}"), ..world }
    }

    /// The configuration of a node in this schema.
    pub fn config(&self) -> Config {
        let mut config = Config::default();
        config.schema.clone_from(&self.schema);
        config.migrations = Migrations::Apply;
        config.pool_connections_max = 4;
        config.sessions_per_user_max = 5;
        // A busy machine is not what these tests are about; those that are about time-outs set their own.
        config.query_timeout = WAIT_MAX;
        // Tests of interleavings hold a row until the statement has met something else; `row_locks` has the default.
        config.row_lock_wait = WAIT_MAX;
        config
    }

    /// A node, in sync.
    pub async fn node(&self) -> SessionManager {
        self.node_with(self.config()).await
    }

    pub async fn node_with(&self, config: Config) -> SessionManager {
        let began = Instant::now();
        let node = loop {
            match SessionManager::connect(&self.url, config.clone()).await {
                Ok(node) => break node,
                // On a busy machine a start may take longer than the test's own limit.
                Err(error) if error.kind() == ErrorKind::Timeout && began.elapsed() < WAIT_MAX => {}
                Err(error) => panic!("the node starts: {error:?}"),
            }
        };
        node.wait_until_trusted().await.unwrap();
        node
    }

    /// A connection beside the library, for looking at the tables and disturbing them. The triggers take it for the library:
    /// they reject nothing and notify no node.
    pub async fn client(&self) -> tokio_postgres::Client {
        let client = self.operator().await;
        client.batch_execute("SET pg_session.direct_writes = 'library'").await.expect("a setting");
        client
    }

    /// A connection as any client of the database makes it.
    pub async fn operator(&self) -> tokio_postgres::Client {
        let client = self.plain().await;
        client.batch_execute(&format!("SET search_path TO {}", self.schema)).await.expect("search_path");
        client
    }

    async fn plain(&self) -> tokio_postgres::Client {
        plain(&self.url).await
    }
}

/// The URL of a database of the shared server; the first call for it makes it.
fn database(number: usize) -> String {
    static MADE: [OnceLock<String>; DATABASES] = [const { OnceLock::new() }; DATABASES];
    let make = || {
        let url = SANDBOX.url();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let create = format!("CREATE DATABASE tests_{number}");
        runtime.block_on(async { plain(&url).await.batch_execute(&create).await }).expect("a database");
        format!("{}/tests_{number}", url.rsplit_once('/').expect("the sandbox's URL names its database").0)
    };
    // On a thread of its own, because the caller may run in a runtime.
    MADE[number]
        .get_or_init(|| std::thread::scope(|scope| scope.spawn(make).join().expect("a database")))
        .clone()
}

async fn plain(url: &str) -> tokio_postgres::Client {
    let config = tokio_postgres::Config::from_str(url).expect("the sandbox's URL parses");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("the server answers");
    tokio::spawn(connection);
    client
}

/// Between two looks at something that sends no signal. Without it, two tests that look can starve a machine of two
/// cores for seconds: task and server wake each other without end, and no other test runs.
pub const NAP: Duration = Duration::from_millis(2);

/// Waits until `condition` holds, asking again and again; a test fails if it never does.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let began = Instant::now();
    let outcome = tokio::time::timeout(WAIT_MAX, async {
        while !condition().await {
            assert!(began.elapsed() < WAIT_MAX, "never happened: {what}");
            tokio::time::sleep(NAP).await;
        }
    });
    assert!(outcome.await.is_ok(), "never happened: {what}");
}
