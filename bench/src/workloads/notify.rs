//! Updates of several nodes on one server: commit, then notify, beside notifying inside the transaction.
//!
//! With a slow flush each commit sleeps for three milliseconds before it writes to the disk.

use std::sync::Arc;

use super::lineup::{Lineup, parts};
use crate::contest::Bench;
use crate::drive::Op;
use crate::names::notify::{AFTER, INSIDE, NAME, SIXTEEN_SLOW};
use crate::payload::Payload;
use crate::peers::Peer;
use crate::peers::ours::{Notify, Tables};
use crate::servers::{Flush, Servers};

const CASES: [(&str, usize, Flush); 6] = [
    ("1 node", 1, Flush::Normal),
    ("4 nodes", 4, Flush::Normal),
    ("16 nodes", 16, Flush::Normal),
    ("1 node, slow flush", 1, Flush::Slow),
    ("4 nodes, slow flush", 4, Flush::Slow),
    (SIXTEEN_SLOW, 16, Flush::Slow),
];
const SESSIONS: usize = 2_000;
/// Updates in flight on each node: few, as on nodes that share the load.
const IN_FLIGHT: usize = 4;
/// Connections of each node's pool.
const CONNECTIONS: usize = 3;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    for (case, count, flush) in CASES {
        if ![AFTER, INSIDE].iter().any(|contender| plan.wants(NAME, case, contender)) {
            continue;
        }
        let mut lineup = Lineup::new(NAME, plan, Payload::Small, SESSIONS);
        for (name, notify) in [(AFTER, Notify::AfterCommit), (INSIDE, Notify::Inside)] {
            lineup
                .enter_nodes(name, async |payload, sessions| {
                    nodes(servers, payload, sessions, count, flush, notify).await
                })
                .await?;
        }
        lineup.compete(book, case, Op::Update, |_| count * IN_FLIGHT).await?;
        lineup.verify().await?;
    }
    Ok(())
}

async fn nodes(
    servers: &Servers,
    payload: Payload,
    sessions: usize,
    count: usize,
    flush: Flush,
    notify: Notify,
) -> anyhow::Result<Vec<Arc<dyn Peer>>> {
    let tables = Tables::fill(servers, payload, sessions).await?;
    tables.database.set_flush(flush).await?;
    let mut nodes: Vec<Arc<dyn Peer>> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut config = tables.config();
        config.pool_connections_max = CONNECTIONS;
        nodes.push(Arc::new(tables.node_that_notifies(config, notify).await?));
    }
    Ok(nodes)
}
