//! [`TestDatabase`]: one database for one test, on a PostgreSQL server of this process.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, KeyRing, Migrations, SessionManager, Signer, SigningKey, migrations_sql};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::node::Node;
use crate::wait::in_time;

/// Connections that one server accepts. A node of the default configuration uses at most five.
const CONNECTIONS_MAX: &str = "500";
/// The database that each test's database is copied from.
const TEMPLATE: &str = "pg_session_template";

static SERVER: LazyLock<Sandbox> = LazyLock::new(|| {
    let server = Sandbox::builder().setting("max_connections", CONNECTIONS_MAX).start();
    server.unwrap_or_else(|error| panic!("no PostgreSQL for the tests: {error}"))
});

/// A database of its own, with the tables of pg-session, and the nodes that use it.
///
/// The first call in a process starts a private PostgreSQL, which ends with the process. Tests in parallel do not affect each
/// other. Dropping the value drops the database. Clones are the same database.
#[derive(Clone, Debug)]
pub struct TestDatabase(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    url: String,
    signer: Signer,
    nodes: Mutex<BTreeMap<u64, SessionManager>>,
    next_node: AtomicU64,
    /// What [`TestDatabase::let_pass`] has let pass, in microseconds.
    passed: Arc<AtomicU64>,
}

impl TestDatabase {
    /// Makes the database.
    ///
    /// # Panics
    /// If PostgreSQL cannot be started; the message says what to install.
    pub async fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Starting a server blocks the thread for a second.
        let server = tokio::task::spawn_blocking(|| LazyLock::force(&SERVER));
        let server = server.await.expect("the server starts or panics");
        make_template(server).await;
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let client = connect(&server.url()).await;
        client
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
            .await
            .unwrap_or_else(|error| panic!("cannot make a database for the test: {error}"));
        let signer =
            Signer::new(KeyRing::new(&SigningKey::generate().expect("the system has random numbers")));
        Self(Arc::new(Inner {
            url: url_of(server, &name),
            name,
            signer,
            nodes: Mutex::default(),
            next_node: AtomicU64::new(0),
            passed: Arc::default(),
        }))
    }

    /// The connection string of the database, for the application's own pool.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The configuration of a node: the default one, but tables are created where they are missing, and a pool has at most four
    /// connections.
    #[must_use]
    pub fn config(&self) -> Config {
        let mut config = Config::default();
        config.migrations = Migrations::Apply;
        config.pool_connections_max = 4;
        config
    }

    /// The keys that sign the tokens of all nodes of this test.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.0.signer
    }

    /// A node that is trusted: it serves from memory.
    ///
    /// # Panics
    /// If it cannot start within [`WAIT_MAX`](crate::WAIT_MAX).
    pub async fn node(&self) -> Node {
        self.node_with(self.config()).await
    }

    /// As [`node`](TestDatabase::node), with settings of its own. Begin with [`config`](TestDatabase::config).
    ///
    /// # Panics
    /// As [`node`](TestDatabase::node); also for settings that are refused.
    pub async fn node_with(&self, config: Config) -> Node {
        Node::start(self.clone(), config).await
    }

    /// A connection beside the library.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn client(&self) -> Client {
        connect(&self.0.url).await
    }

    /// Lets `time` pass at once, for everything that is judged by the database's clock: sessions, idle limits, attributes with an
    /// expiry, retired ids, elevations, and the locks of holders that have ended. Every stored time moves back by `time` in one
    /// transaction. Then all nodes of this test have evicted their caches. Cookies of this test's browsers age too, see
    /// [`Browser::with_time_of`](crate::Browser::with_time_of).
    ///
    /// A lock that is held ends, as if its holder had been paused for so long. The application's own tables do not change.
    ///
    /// # Panics
    /// If a node of the test cannot reach the database: heal it first.
    pub async fn let_pass(&self, time: Duration) {
        let mut nodes: Vec<SessionManager> = self.nodes().values().cloned().collect();
        if nodes.is_empty() {
            let node = SessionManager::connect(self.url(), self.config()).await;
            nodes.push(node.unwrap_or_else(|error| panic!("cannot let time pass: {error}")));
        }
        // An access that is written later would be one after the time that passes.
        for node in &nodes {
            in_time("the last accesses are written", node.flush_accesses())
                .await
                .unwrap_or_else(|error| panic!("cannot let time pass: {error}"));
        }
        nodes[0].let_pass(time).await.unwrap_or_else(|error| panic!("cannot let time pass: {error}"));
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.passed.fetch_add(micros, Ordering::Relaxed);
        self.catch_up().await;
    }

    /// Waits until each node of this test has processed every change that was committed before this call.
    ///
    /// # Panics
    /// If a node cannot reach the database.
    pub async fn catch_up(&self) {
        let nodes: Vec<SessionManager> = self.nodes().values().cloned().collect();
        for node in nodes {
            in_time("the node catches up", node.catch_up())
                .await
                .unwrap_or_else(|error| panic!("a node cannot catch up: {error}"));
        }
    }

    pub(crate) fn passed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.passed)
    }

    pub(crate) fn add(&self, node: SessionManager) -> u64 {
        let number = self.0.next_node.fetch_add(1, Ordering::Relaxed);
        self.nodes().insert(number, node);
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        self.nodes().remove(&number);
    }

    pub(crate) fn server_addr() -> std::net::SocketAddr {
        SERVER.addr()
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, SessionManager>> {
        self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // If the thread has ended, the process is ending, and the server with it.
        let _ = DROPPER.send(std::mem::take(&mut self.name));
    }
}

/// The thread that drops databases: a test may end outside of any runtime.
static DROPPER: LazyLock<mpsc::Sender<String>> = LazyLock::new(|| {
    let (sender, names) = mpsc::channel::<String>();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        for name in names {
            runtime.block_on(async {
                let dropped = connect(&SERVER.url()).await;
                let dropped = dropped.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
                if let Err(error) = dropped {
                    eprintln!("the database {name} of a test was not dropped: {error}");
                }
            });
        }
    });
    sender
});

async fn make_template(server: &Sandbox) {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let make = async || {
        let client = connect(&server.url()).await;
        let tables = migrations_sql(&Config::default()).expect("the default names are valid");
        // A test that was cancelled may have begun it.
        for statement in
            [format!("DROP DATABASE IF EXISTS {TEMPLATE}"), format!("CREATE DATABASE {TEMPLATE}")]
        {
            client.batch_execute(&statement).await.expect("the server makes a database");
        }
        let template = connect(&url_of(server, TEMPLATE)).await;
        template.batch_execute(&format!("BEGIN; {tables} COMMIT")).await.expect("the migrations run");
        drop(template);
        // A database with connections cannot be copied.
        let connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        crate::wait::eventually("the template has no connection", async || {
            client.query_one(connections, &[&TEMPLATE]).await.expect("a count").get::<_, i64>(0) == 0
        })
        .await;
    };
    MADE.get_or_init(make).await;
}

fn url_of(server: &Sandbox, database: &str) -> String {
    let url = server.url();
    let (start, _) = url.rsplit_once('/').expect("the sandbox's URL names its database");
    format!("{start}/{database}")
}

async fn connect(url: &str) -> Client {
    let config = tokio_postgres::Config::from_str(url).expect("the sandbox's URL is valid");
    let connected = in_time("PostgreSQL accepts a connection", config.connect(NoTls)).await;
    let (client, connection) =
        connected.unwrap_or_else(|error| panic!("the private PostgreSQL does not answer: {error}"));
    tokio::spawn(connection);
    client
}
