//! [`TestDatabase`]: one database for one test, on a PostgreSQL server of this process.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pg_session::{Config, KeyRing, Migrations, SessionManager, Signer, SigningKey};
use tokio_postgres::Client;

use crate::node::Node;
use crate::server::{connect, create_database};
use crate::shared::Shared;
use crate::wait::in_time;

/// A database of its own, with the tables of pg-session, and the nodes that use it.
///
/// The first call in a process starts a private PostgreSQL, which ends with the process. Tests in parallel do not affect each
/// other. Dropping the value drops the database. Clones are the same database.
#[derive(Clone, Debug)]
pub struct TestDatabase(Arc<Shared>);

impl TestDatabase {
    /// Makes the database.
    ///
    /// # Panics
    /// If PostgreSQL cannot be started; the message says what to install.
    pub async fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Relaxed));
        let url = create_database(&name).await;
        let signer =
            Signer::new(KeyRing::new(&SigningKey::generate().expect("the system has random numbers")));
        Self(Arc::new(Shared::new(name, url, signer)))
    }

    /// The connection string of the database, for the application's own pool.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The configuration of a node: the default, but missing tables are created, and a pool has at
    /// most four connections.
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
        Node::start(Arc::clone(&self.0), config).await
    }

    /// A connection beside the library.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn client(&self) -> Client {
        connect(&self.0.url).await
    }

    /// Lets `time` pass at once, for everything that is judged by the database's clock. That is
    /// sessions, idle limits, attributes with an expiry, retired ids, elevations, and the locks of
    /// ended holders. Every stored time moves back by `time` in one transaction. Then all nodes of
    /// this test have evicted their caches. Cookies of this test's browsers age too, see
    /// [`Browser::with_time_of`](crate::Browser::with_time_of).
    ///
    /// A lock that is held ends, as if its holder had been paused for so long. The application's own tables do not change.
    ///
    /// # Panics
    /// If a node of the test cannot reach the database: heal it first.
    pub async fn let_pass(&self, time: Duration) {
        let mut nodes = self.0.nodes();
        if nodes.is_empty() {
            let node = Box::pin(SessionManager::connect(self.url(), self.config())).await;
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
        self.0.passed.fetch_add(micros, Relaxed);
        self.catch_up().await;
    }

    /// Waits until each node of this test has processed every change that was committed before this call.
    ///
    /// # Panics
    /// If a node cannot reach the database.
    pub async fn catch_up(&self) {
        for node in self.0.nodes() {
            in_time("the node catches up", node.catch_up())
                .await
                .unwrap_or_else(|error| panic!("a node cannot catch up: {error}"));
        }
    }

    pub(crate) fn passed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.passed)
    }
}
