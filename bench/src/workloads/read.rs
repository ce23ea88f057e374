//! Reads of sessions that are in memory, by every contender with a cache, as requests: each read is a task's await.

use super::in_flight;
use super::lineup::{self, Lineup, parts};
use crate::contest::Bench;
use crate::drive::Op;
use crate::names::read::NAME;
use crate::payload::Payload;
use crate::peers::redis::Announce;
use crate::peers::tower_sessions::Table;

const SESSIONS: usize = 10_000;
const IN_FLIGHT: [usize; 2] = [1, 64];

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut lineup = Lineup::new(NAME, plan, Payload::Small, SESSIONS);
    lineup.enter_ours(servers).await?;
    if let Some(redis) = &servers.redis {
        lineup.enter_redis(&redis.volatile, [lineup::REDIS, lineup::REDIS_POOL], Announce::No).await?;
    }
    lineup
        .enter(lineup::TOWER_MOKA, async |payload, sessions| {
            Ok(Table::fill(servers, payload, sessions).await?.cached())
        })
        .await?;
    lineup.enter_tower(servers).await?;
    for count in IN_FLIGHT {
        lineup.compete(book, &in_flight(count), Op::Read, |_| count).await?;
    }
    Ok(())
}
