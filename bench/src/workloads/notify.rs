//! Updates of several nodes on one server: commit, then notify, beside notifying inside the transaction.
//!
//! With a slow flush each commit sleeps for three milliseconds before it writes to the disk.

use std::sync::Arc;

use super::lineup::{Lineup, parts};
use crate::contest::Bench;
use crate::drive::Op;
use crate::names::notify::{AFTER, INSIDE, NAME, NORMAL, SLOW};
use crate::payload::Payload;
use crate::peers::Peer;
use crate::peers::ours::{Notify, Tables};
use crate::servers::{Flush, Servers};

const NODES: [usize; 3] = [1, 4, 16];
const SESSIONS: usize = 2_000;
/// Updates in flight on each node: few, as on nodes that share the load.
const IN_FLIGHT: usize = 4;
/// Connections of each node's pool.
const CONNECTIONS: usize = 3;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let cases = NORMAL.into_iter().zip(NODES).map(|(case, count)| (case, count, Flush::Normal));
    let slow = SLOW.into_iter().zip(NODES).map(|(case, count)| (case, count, Flush::Slow));
    for (case, count, flush) in cases.chain(slow) {
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
