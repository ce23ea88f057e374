//! Logouts that wait until no node can serve the session: with 1 to 64 nodes on one server, all in this process.
//!
//! Before each, every node has the session in memory. Afterwards, none of them returns it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::{join_all, try_join_all};
use pg_session::UserId;
use uuid::Uuid;

use super::lineup::parts;
use crate::book::{Figures, Metric, Spread};
use crate::contest::{Bench, Contest};
use crate::names::everywhere::{CASE, NAME, NODES};
use crate::payload::Payload;
use crate::peers::ours::{Node, Tables, WAIT_MAX};
use crate::servers::Servers;

const COUNTS: [usize; 4] = [1, 4, 16, 64];
/// Sessions that are there all the time.
const SESSIONS: usize = 1_000;
/// Connections of each node's pool, so that 64 nodes have few enough.
const CONNECTIONS: usize = 2;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    for (name, count) in NODES.into_iter().zip(COUNTS) {
        if !plan.wants(NAME, CASE, name) {
            continue;
        }
        let nodes = start(servers, count).await?;
        let mut contest = Contest::new(NAME, CASE);
        contest.enter(plan, name, |span| log_out(&nodes, span));
        contest.run(plan, book).await?;
        // Their beats are not to disturb what comes next.
        for report in join_all(nodes.iter().map(|node| node.manager.shutdown(WAIT_MAX))).await {
            ensure!(report.is_complete(), "a node left something behind: {report:?}");
        }
    }
    Ok(())
}

async fn start(servers: &Servers, count: usize) -> anyhow::Result<Vec<Node>> {
    let tables = Tables::fill(servers, Payload::Slim, SESSIONS).await?;
    let mut nodes = Vec::with_capacity(count);
    for _ in 0..count {
        let mut config = tables.config();
        config.pool_connections_max = CONNECTIONS;
        nodes.push(tables.node(config).await?);
    }
    // It waits for the rest of the trust window of nodes that have just started.
    log_out_once(&nodes, 0).await?;
    Ok(nodes)
}

/// Logs out one session after the other, each by another node.
async fn log_out(nodes: &[Node], span: Duration) -> anyhow::Result<Figures> {
    let (begun, mut took) = (Instant::now(), Vec::new());
    while took.is_empty() || begun.elapsed() < span {
        took.push(log_out_once(nodes, took.len()).await?.as_secs_f64() * 1e3);
    }
    Ok(vec![(Metric::Millis, Spread::of(&took).median)])
}

async fn log_out_once(nodes: &[Node], turn: usize) -> anyhow::Result<Duration> {
    let author = &nodes[turn % nodes.len()].manager;
    let id = author.create(UserId::from(Uuid::new_v4())).await?.id();
    try_join_all(
        nodes.iter().map(async |node| node.manager.get(id).no_touch().await?.context("a session is gone")),
    )
    .await?;

    let begun = Instant::now();
    let done = author.delete(id).everywhere().await?;
    let took = begun.elapsed();

    let counted = done.acknowledged + done.lapsed;
    ensure!(counted == nodes.len(), "{counted} of {} nodes were waited for", nodes.len());
    for node in nodes {
        let found = node.manager.get(id).no_touch().await?;
        ensure!(found.is_none(), "a node serves a session that was logged out everywhere");
    }
    Ok(took)
}
