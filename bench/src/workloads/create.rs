//! Creates of sessions with five small attributes, for a new user each, with the limit of sessions per user in force. What
//! that limit costs, and what the indices do, shows beside it.

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
    lineup
        .enter(lineup::UNLIMITED, async |payload, sessions| {
            Tables::fill(servers, payload, sessions).await?.unlimited().await
        })
        .await?;
    lineup
        .enter(lineup::ONE_INDEX, async |payload, sessions| {
            let tables = Tables::fill(servers, payload, sessions).await?;
            let client = tables.database.client().await?;
            client.batch_execute("DROP INDEX sessions_user_id_idx, sessions_expires_at_idx").await?;
            tables.unlimited().await
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
