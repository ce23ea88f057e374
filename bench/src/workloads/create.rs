//! Creates of sessions with five small attributes, for a new user each, with the limit of sessions per user in force.

use super::in_flight;
use super::lineup::{self, Lineup, parts};
use crate::contest::Bench;
use crate::drive::Op;
use crate::payload::Payload;
use crate::peers::ours::Tables;
use crate::peers::redis::Announce;
use crate::peers::tower_sessions::Table;

pub(crate) const NAME: &str = "create";
/// Sessions that are there before.
const SESSIONS: usize = 10_000;
const IN_FLIGHT: [usize; 2] = [1, 64];

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut lineup = Lineup::new(NAME, plan, Payload::Small, SESSIONS);
    lineup
        .enter(lineup::OURS, async |payload, sessions| {
            let tables = Tables::fill(servers, payload, sessions).await?;
            tables.node(tables.config()).await
        })
        .await?;
    if let Some(redis) = &servers.redis {
        let durable = [lineup::REDIS_FSYNC, lineup::REDIS_FSYNC_POOL];
        lineup.enter_redis(&redis.durable, durable, Announce::No).await?;
    }
    lineup
        .enter(lineup::TOWER, async |payload, sessions| {
            Ok(Table::fill(servers, payload, sessions).await?.plain())
        })
        .await?;
    for count in IN_FLIGHT {
        lineup.compete(book, &in_flight(count), Op::Create, |_| count).await?;
    }
    lineup.verify().await
}
