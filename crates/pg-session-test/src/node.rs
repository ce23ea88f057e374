//! [`Node`]: one process of the application, with wires that can be cut.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use pg_sandbox::Proxy;
use pg_session::{Config, SessionManager};
use pg_session_web::SessionConfig;

use crate::server;
use crate::shared::Shared;
use crate::wait::{WAIT_MAX, eventually, in_time};

/// One node of the application. It dereferences to its [`SessionManager`].
///
/// Its pool and its listener reach PostgreSQL through proxies of its own. So the test can disconnect this node, and others go
/// on. Dropping it stops the node as a crash does: what waits in its memory is lost.
pub struct Node {
    database: Arc<Shared>,
    config: Config,
    pool_wire: Proxy,
    listener_wire: Proxy,
    running: Running,
}

struct Running {
    database: Arc<Shared>,
    number: u64,
    manager: SessionManager,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.database.remove(self.number);
    }
}

impl Node {
    pub(crate) async fn start(database: Arc<Shared>, config: Config) -> Self {
        let wire = async || {
            let wire = Proxy::start(server::addr()).await;
            wire.unwrap_or_else(|error| panic!("no proxy for a node: {error}"))
        };
        let (pool_wire, listener_wire) = (wire().await, wire().await);
        let running = run(&database, &config, &pool_wire, &listener_wire).await;
        Self { database, config, pool_wire, listener_wire, running }
    }

    /// The settings for the layer of pg-session-tower or the middleware of pg-session-actix, with the test's keys.
    #[must_use]
    pub fn web(&self) -> SessionConfig {
        SessionConfig::new(self.running.manager.clone(), self.database.signer.clone())
    }

    /// Restarts the node, as a deployment does: it writes what waits, ends, and starts with an empty memory. Applications that
    /// were made with the old manager keep it: make them again.
    ///
    /// # Panics
    /// If the shutdown fails or takes longer than [`WAIT_MAX`](crate::WAIT_MAX), or the node cannot start again.
    pub async fn restart(&mut self) {
        let report = self.running.manager.shutdown(WAIT_MAX).await;
        assert!(report.is_complete(), "the node did not shut down completely: {report:?}");
        self.running = run(&self.database, &self.config, &self.pool_wire, &self.listener_wire).await;
    }

    /// Cuts the node off: its connections close, and new ones are refused. It learns of it at once and does not serve from
    /// memory any more.
    pub fn cut(&self) {
        for wire in [&self.pool_wire, &self.listener_wire] {
            wire.refuse();
            wire.cut();
        }
    }

    /// Cuts the connection of the listener only: the node receives no notifications, and reads from the database.
    pub fn cut_listener(&self) {
        self.listener_wire.refuse();
        self.listener_wire.cut();
    }

    /// Stalls the node's network: connections stay open, and nothing arrives. The node learns of it by its time limits.
    pub fn stall(&self) {
        self.pool_wire.stall();
        self.listener_wire.stall();
    }

    /// Ends all faults of this node. It recovers by itself; see [`wait_until_trusted`](SessionManager::wait_until_trusted).
    pub fn heal(&self) {
        self.pool_wire.heal();
        self.listener_wire.heal();
    }

    /// Waits until the node does not serve from memory any more.
    ///
    /// # Panics
    /// If it is still trusted after [`WAIT_MAX`](crate::WAIT_MAX).
    pub async fn wait_until_not_trusted(&self) {
        eventually("the node is not trusted", async || !self.is_trusted()).await;
    }

    /// Whether the node serves from memory now.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.running.manager.status().trusted_for.is_some()
    }
}

impl Deref for Node {
    type Target = SessionManager;

    fn deref(&self) -> &SessionManager {
        &self.running.manager
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("manager", &self.running.manager).finish_non_exhaustive()
    }
}

async fn run(database: &Arc<Shared>, config: &Config, pool: &Proxy, listener: &Proxy) -> Running {
    let url = &database.url;
    let manager = async {
        let builder = SessionManager::builder(config.clone());
        builder.url(&pool.url_for(url))?.listen_on_url(&listener.url_for(url))?.connect().await
    };
    let manager = in_time("the node starts", Box::pin(manager)).await;
    let manager = manager.unwrap_or_else(|error| panic!("the node cannot start: {error}"));
    let trusted = in_time("the node is trusted", manager.wait_until_trusted()).await;
    trusted.unwrap_or_else(|error| panic!("the node cannot be trusted: {error}"));
    let number = database.add(manager.clone());
    Running { database: Arc::clone(database), number, manager }
}
