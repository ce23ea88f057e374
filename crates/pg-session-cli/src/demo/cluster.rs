//! The cluster: three nodes of one application, as they would run on three machines.
//!
//! Each node is a [`SessionManager`] with its own memory, its own connections and its own listener; nothing is shared
//! but the database. B reaches it through two wires that can be cut, one of the listener and one of the pool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_sandbox::Proxy;
use pg_session::{Config, Migrations, SessionManager};

use super::print::took;
use super::reporter::{DemoError, Reporter};
use super::server::Server;
use crate::failure::{Failure, ensure};

/// Connections of each node, beside the listener's: the user's server should have some left.
const POOL_CONNECTIONS: usize = 4;
/// How long the nodes may take to write what they still hold and to close their connections.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// One node.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) sessions: SessionManager,
}

/// Three nodes and their server.
pub(super) struct Cluster {
    pub(super) server: Arc<Server>,
    pub(super) a: Node,
    pub(super) b: Node,
    pub(super) c: Node,
    /// `None` where the server has no TCP port to put a proxy in front of.
    pub(super) wires: Option<Wires>,
}

/// B's ways to the server.
pub(super) struct Wires {
    listener: Proxy,
    pool: Proxy,
}

impl Cluster {
    /// Creates the tables and starts the nodes.
    pub(super) async fn set(server: Arc<Server>, reporter: &Reporter) -> Result<Self, DemoError> {
        server.prepare(reporter).await?;
        let set = async {
            let begin = Instant::now();
            let cluster = Self::start(server).await?;
            Ok((format!("in sync after {}", took(begin.elapsed())), cluster))
        };
        reporter.step("three nodes A, B and C, each with its own memory and connections", set).await
    }

    async fn start(server: Arc<Server>) -> Result<Self, Failure> {
        let wires = match server.addr().await? {
            Some(addr) => {
                Some(Wires { listener: Proxy::start(addr).await?, pool: Proxy::start(addr).await? })
            }
            None => None,
        };
        let a = node("A", builder(&server).postgres(server.postgres().clone())).await?;
        let b = match &wires {
            None => builder(&server).postgres(server.postgres().clone()),
            Some(wires) => builder(&server)
                .postgres(server.through(wires.pool.addr()))
                .listen_on(server.through(wires.listener.addr())),
        };
        let b = node("B", b).await?;
        let c = node("C", builder(&server).postgres(server.postgres().clone())).await?;
        Ok(Self { server, a, b, c, wires })
    }

    /// All nodes, by name.
    pub(super) fn nodes(&self) -> [&Node; 3] {
        [&self.a, &self.b, &self.c]
    }

    /// Ends the nodes: queued writes are committed, last accesses are flushed, connections are closed.
    pub(super) async fn shut_down(self) -> Result<(String, ()), Failure> {
        let begin = Instant::now();
        for node in self.nodes() {
            let report = node.sessions.shutdown(SHUTDOWN_WAIT).await;
            ensure(report.is_complete(), || format!("{} left something behind: {report:?}", node.name))?;
        }
        Ok((took(begin.elapsed()), ()))
    }
}

impl Node {
    /// Whether the node answers from memory.
    pub(super) fn is_trusted(&self) -> bool {
        self.sessions.status().trusted_for.is_some()
    }
}

impl Wires {
    /// B receives nothing any more, and cannot listen again.
    pub(super) fn cut_listener(&self) {
        self.listener.refuse();
        self.listener.cut();
    }

    /// B reaches nothing any more.
    pub(super) fn cut_pool(&self) {
        self.pool.refuse();
        self.pool.cut();
    }

    /// B can connect again.
    pub(super) fn mend(&self) {
        self.pool.heal();
        self.listener.heal();
    }
}

fn builder(server: &Server) -> pg_session::Builder {
    let mut config = Config::default();
    server.schema().clone_into(&mut config.schema);
    // The first node creates the tables. The others find them.
    config.migrations = Migrations::Apply;
    config.pool_connections_max = POOL_CONNECTIONS;
    SessionManager::builder(config)
}

async fn node(name: &'static str, builder: pg_session::Builder) -> Result<Node, Failure> {
    let sessions = builder.connect().await?;
    sessions.wait_until_trusted().await?;
    Ok(Node { name, sessions })
}
