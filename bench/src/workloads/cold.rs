//! Reads of sessions that are not in memory: a hundred thousand sessions, and a memory that has room for a few.

use anyhow::ensure;

use super::in_flight;
use super::lineup::{self, Lineup, parts};
use crate::contest::Bench;
use crate::drive::Op;
use crate::names::cold::NAME;
use crate::payload::Payload;
use crate::peers::ours::{Node, Tables};
use crate::peers::redis::Announce;

const SESSIONS: usize = 100_000;
/// One in a thousand reads may find its session in memory.
const CACHED: usize = SESSIONS / 1_000;
const IN_FLIGHT: [usize; 2] = [1, 64];

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut lineup = Lineup::new(NAME, plan, Payload::Small, SESSIONS);
    let mut ours: Option<Node> = None;
    lineup
        .enter(lineup::OURS, async |payload, sessions| {
            let tables = Tables::fill(servers, payload, sessions).await?;
            let mut config = tables.config();
            config.cache_sessions_max = CACHED;
            Ok(ours.insert(tables.node(config).await?).clone())
        })
        .await?;
    lineup.enter_tower(servers).await?;
    if let Some(redis) = &servers.redis {
        lineup.enter_redis(&redis.volatile, [lineup::REDIS, lineup::REDIS_POOL], Announce::No).await?;
    }
    for count in IN_FLIGHT {
        lineup.compete(book, &in_flight(count), Op::Read, |_| count).await?;
    }
    if let Some(node) = ours {
        let stats = node.manager.status().cache;
        ensure!(stats.hits < stats.misses / 100, "{} of the cold reads were hits: {stats:?}", stats.hits);
    }
    lineup.verify().await
}
