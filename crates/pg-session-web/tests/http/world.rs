//! The shared server, a schema for each test, nodes, and sites: an edge that serves the application on a port.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, KeyRing, Migrations, SessionManager, Signer, SigningKey};
use pg_session_web::{CookiePolicy, SessionConfig};
use tokio::time::Instant;

use super::app::Gate;
use super::browser::Browser;

static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    Sandbox::builder().setting("max_connections", "400").start().expect("PostgreSQL starts")
});

/// The shared server, for examples, whose tables are in `public`.
pub fn shared_url() -> String {
    SANDBOX.url()
}

/// How long a test waits for something that should take milliseconds.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// Between two looks at something that sends no signal.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The sessions of a part of the application that has a cookie of its own.
pub fn alone(sessions: SessionConfig) -> SessionConfig {
    let cookie =
        CookiePolicy::named("alone").and_then(|cookie| cookie.insecure_for_all_hosts_of("shop.localhost"));
    sessions.cookie(cookie.expect("a name and a domain"))
}

/// Serves the application with these sessions until the process ends; from an edge.
pub type Serve = fn(SessionConfig, Arc<Gate>) -> SocketAddr;

/// One test's place: a schema that no other test uses, and an edge that serves it.
pub struct Site {
    serve: Serve,
    pub url: String,
    pub schema: String,
    pub node: SessionManager,
    pub signer: Signer,
    pub key: SigningKey,
    pub gate: Arc<Gate>,
}

impl Site {
    pub async fn new(serve: Serve) -> Self {
        Self::on(&SANDBOX, serve).await
    }

    pub async fn on(sandbox: &Sandbox, serve: Serve) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let schema = format!("web_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let url = sandbox.url();
        let node = node(&url, config(&schema)).await;
        let key = SigningKey::generate().expect("a key");
        let signer = Signer::new(KeyRing::new(&key));
        Self { serve, url, schema, node, signer, key, gate: Arc::new(Gate::new()) }
    }

    /// How this site is served.
    pub fn edge(&self) -> Serve {
        self.serve
    }

    /// The default settings on this node.
    pub fn sessions(&self) -> SessionConfig {
        SessionConfig::new(self.node.clone(), self.signer.clone())
    }

    /// A browser at a server of its own with the default settings.
    pub fn browser(&self) -> Browser {
        self.browser_with(self.sessions())
    }

    pub fn browser_with(&self, sessions: SessionConfig) -> Browser {
        Browser::new(self.serve(sessions))
    }

    pub fn serve(&self, sessions: SessionConfig) -> SocketAddr {
        (self.serve)(sessions, Arc::clone(&self.gate))
    }

    /// Another node of the same application: same tables, same keys.
    pub async fn other_node(&self) -> SessionManager {
        node(&self.url, config(&self.schema)).await
    }

    /// A browser at a node that keeps an id which was rotated readable for this long.
    pub async fn browser_with_grace(&self, grace: Duration) -> Browser {
        let mut config = config(&self.schema);
        config.rotation_grace = grace;
        self.browser_with(SessionConfig::new(node(&self.url, config).await, self.signer.clone()))
    }

    /// The database's clock, in milliseconds since 1970.
    pub async fn milliseconds(&self) -> u128 {
        let query = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let now: i64 = self.client().await.query_one(query, &[]).await.expect("a time").get(0);
        now.try_into().expect("after 1970")
    }

    /// Rows in the sessions' table.
    pub async fn rows(&self) -> i64 {
        let query = "SELECT count(*) FROM sessions";
        self.client().await.query_one(query, &[]).await.expect("a count").get(0)
    }

    /// A connection beside the library.
    pub async fn client(&self) -> tokio_postgres::Client {
        let config = tokio_postgres::Config::from_str(&self.url).expect("the sandbox's URL parses");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("the server answers");
        tokio::spawn(connection);
        client.batch_execute(&format!("SET search_path TO {}", self.schema)).await.expect("search_path");
        client
    }

    /// Statements that the node has sent for reading and writing.
    pub fn statements(&self) -> u64 {
        let status = self.node.status();
        status.loads.statements + status.writes.update_statements + status.writes.create_statements
    }
}

pub fn config(schema: &str) -> Config {
    let mut config = Config::default();
    schema.clone_into(&mut config.schema);
    config.migrations = Migrations::Apply;
    config.pool_connections_max = 4;
    config.query_timeout = WAIT_MAX;
    // A test that locks a row waits until a statement waits for it.
    config.row_lock_wait = WAIT_MAX;
    config
}

async fn node(url: &str, config: Config) -> SessionManager {
    let node = SessionManager::connect(url, config).await.expect("the node starts");
    in_time("the node is in sync", node.wait_until_trusted()).await.unwrap();
    node
}

/// Awaits something that should take milliseconds.
pub async fn in_time<F: IntoFuture>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(WAIT_MAX, future.into_future()).await {
        Ok(output) => output,
        Err(_) => panic!("never happened: {what}"),
    }
}

/// Waits until `condition` holds, asking again and again; a test fails if it never does.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !in_time(what, condition()).await {
        assert!(began.elapsed() < WAIT_MAX, "never happened: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
