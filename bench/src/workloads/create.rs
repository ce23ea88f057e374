//! Creates of sessions with five small attributes, each for a new user, with a limit per user. What that limit costs, what
//! the indices do, and what PostgreSQL makes of batches without a client shows beside it.

use super::in_flight;
use super::lineup::{self, Lineup, parts};
use crate::contest::Bench;
use crate::drive::Op;
use crate::names::create::NAME;
use crate::payload::Payload;
use crate::peers::bare_inserts::BareInserts;
use crate::peers::ours::Tables;
use crate::peers::redis::Announce;

/// Sessions that are there before.
const SESSIONS: usize = 10_000;
const IN_FLIGHT: [usize; 2] = [1, 64];

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut lineup = Lineup::new(NAME, plan, Payload::Small, SESSIONS);
    lineup.enter_ours(servers).await?;
    lineup
        .enter(lineup::UNLIMITED, async |payload, sessions| {
            Tables::fill(servers, payload, sessions).await?.unlimited().await
        })
        .await?;
    lineup
        .enter(lineup::ONE_INDEX, async |payload, sessions| {
            let tables = Tables::fill(servers, payload, sessions).await?;
            tables.drop_indices().await?;
            tables.unlimited().await
        })
        .await?;
    if let Some(redis) = &servers.redis {
        let durable = [lineup::REDIS_FSYNC, lineup::REDIS_FSYNC_POOL];
        lineup.enter_redis(&redis.durable, durable, Announce::No).await?;
    }
    lineup.enter_tower(servers).await?;
    let mut batches = Vec::new();
    for name in [lineup::BARE_INSERTS, lineup::BARE_INSERTS_ONE_INDEX] {
        if plan.wants_contender(NAME, name) {
            let tables = Tables::fill(servers, Payload::Small, SESSIONS).await?;
            if name == lineup::BARE_INSERTS_ONE_INDEX {
                tables.drop_indices().await?;
            }
            batches.push((name, BareInserts::new(&tables).await?));
        }
    }
    for count in IN_FLIGHT {
        let mut contest = lineup.contest(&in_flight(count), Op::Create, |_| count);
        for (name, batches) in &batches {
            contest.enter(plan, name, move |span| batches.drive(count, span));
        }
        contest.run(plan, book).await?;
    }
    for (_, batches) in &batches {
        batches.verify().await?;
    }
    lineup.verify().await
}
