//! What it costs the server to prove to each of N nodes that it receives every notification: a shared tick beside the private
//! barriers that came before it.
//!
//! The nodes are bare connections that listen, each of which also sends its beats. All of a database's nodes prove one after
//! the other, as their timers spread them. Nothing is sent before all have received what came before.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_postgres::Statement;

use super::lineup::parts;
use crate::book::{Figures, Metric};
use crate::contest::{Bench, Contest};
use crate::names::proving::{CASE, NAME, PRIVATE, SHARED};
use crate::servers::{Arrivals, Servers, Usage};

const NODES: [usize; 4] = [4, 16, 64, 256];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Each node writes a token into its row. One notification has the tokens of all rows.
    SharedTick,
    /// Each node sends a notification of its own, which all receive.
    PrivateBarriers,
}

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut clusters = Vec::new();
    for (at, nodes) in NODES.into_iter().enumerate() {
        if plan.wants_contender(NAME, SHARED[at]) || plan.wants_contender(NAME, PRIVATE[at]) {
            clusters.push((at, Mutex::new(Cluster::connect(servers, nodes).await?)));
        }
    }
    let mut contest = Contest::new(NAME, CASE);
    for (protocol, names) in [(Protocol::SharedTick, SHARED), (Protocol::PrivateBarriers, PRIVATE)] {
        for (at, cluster) in &clusters {
            contest.enter(plan, names[*at], move |span| async move {
                cluster.lock().await.prove(protocol, span).await
            });
        }
    }
    contest.run(plan, book).await
}

/// The simulated nodes of one database.
struct Cluster {
    nodes: Vec<Node>,
    usage: Usage,
}

struct Node {
    arrivals: Arrivals,
    number: i32,
    beat: Statement,
    tick: Statement,
    barrier: Statement,
}

impl Cluster {
    async fn connect(servers: &Servers, count: usize) -> anyhow::Result<Self> {
        let database = servers.database().await?;
        // As the registry of nodes: a beat waits for no flush and leaves the index alone.
        let registry = "CREATE UNLOGGED TABLE beats (node int PRIMARY KEY, token bigint NOT NULL) WITH (fillfactor = 30)";
        database.client().await?.batch_execute(registry).await?;
        let mut nodes = Vec::with_capacity(count);
        for number in 0..i32::try_from(count)? {
            let arrivals = Arrivals::listen(&database, "proofs").await?;
            let client = &arrivals.client;
            let beat =
                "INSERT INTO beats VALUES ($1, $2) ON CONFLICT (node) DO UPDATE SET token = EXCLUDED.token";
            let tick = "SELECT pg_notify('proofs', string_agg(to_hex(token), ',')) FROM beats";
            let barrier = "SELECT pg_notify('proofs', to_hex($1::int8))";
            let (beat, tick) = (client.prepare(beat).await?, client.prepare(tick).await?);
            let barrier = client.prepare(barrier).await?;
            nodes.push(Node { arrivals, number, beat, tick, barrier });
        }
        let usage = Usage::of(&database).await?;
        Ok(Self { nodes, usage })
    }

    /// Proofs of all nodes, at least one.
    async fn prove(&mut self, protocol: Protocol, span: Duration) -> anyhow::Result<Figures> {
        let (begun, before) = (Instant::now(), self.usage.so_far()?);
        let mut proofs = 0_u32;
        while proofs == 0 || begun.elapsed() < span {
            for at in 0..self.nodes.len() {
                let Node { arrivals, number, beat, barrier, .. } = &self.nodes[at];
                let token = fastrand::i64(..);
                if protocol == Protocol::SharedTick {
                    arrivals.client.execute(beat, &[number, &token]).await?;
                } else {
                    arrivals.client.execute(barrier, &[&token]).await?;
                    self.receive().await?;
                }
            }
            if protocol == Protocol::SharedTick {
                let Node { arrivals, tick, .. } = &self.nodes[proofs as usize % self.nodes.len()];
                arrivals.client.execute(tick, &[]).await?;
                self.receive().await?;
            }
            proofs += 1;
        }
        let used = self.usage.so_far()?.saturating_sub(before);
        Ok(vec![(Metric::ServerMicrosEach, used.as_secs_f64() * 1e6 / f64::from(proofs))])
    }

    /// Each node receives one notification.
    async fn receive(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.arrivals.next().await?;
        }
        Ok(())
    }
}
