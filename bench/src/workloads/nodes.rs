//! Several nodes on one database: updates on four at once beside one alone, and reads with a few updates on two.

use std::sync::Arc;

use super::lineup::{Lineup, parts};
use crate::contest::Bench;
use crate::drive::Op;
use crate::names::nodes::{FOUR, NAME, ONE, UPDATES};
use crate::payload::Payload;
use crate::peers::Peer;
use crate::peers::ours::Tables;
use crate::servers::Servers;

const SESSIONS: usize = 10_000;
const IN_FLIGHT: usize = 64;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut lineup = Lineup::new(NAME, plan, Payload::Small, SESSIONS);
    for (name, count) in [(ONE, 1), (FOUR, 4)] {
        lineup
            .enter_nodes(name, async |payload, sessions| nodes(servers, payload, sessions, count).await)
            .await?;
    }
    let in_flight = |name: &str| if name == FOUR { 4 * IN_FLIGHT } else { IN_FLIGHT };
    lineup.compete(book, UPDATES, Op::Update, in_flight).await?;
    lineup.verify().await
}

/// Nodes on the same tables.
pub(crate) async fn nodes(
    servers: &Servers,
    payload: Payload,
    sessions: usize,
    count: usize,
) -> anyhow::Result<Vec<Arc<dyn Peer>>> {
    let tables = Tables::fill(servers, payload, sessions).await?;
    let mut nodes: Vec<Arc<dyn Peer>> = Vec::with_capacity(count);
    for _ in 0..count {
        nodes.push(Arc::new(tables.node(tables.config()).await?));
    }
    Ok(nodes)
}
