//! Updates of one attribute, acknowledged when they are durable: of ten thousand sessions with five small attributes, one
//! at a time and up to 256 at once.

use super::in_flight;
use super::lineup::{self, Lineup, parts};
use crate::contest::Bench;
use crate::drive::Op;
use crate::names::update::NAME;
use crate::payload::Payload;
use crate::peers::bare::Bare;
use crate::peers::bare_batches::BareBatches;
use crate::peers::ours::{Notify, Tables};
use crate::peers::pool::CONNECTIONS;
use crate::peers::redis::Announce;

const SESSIONS: usize = 10_000;
const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut lineup = Lineup::new(NAME, plan, Payload::Small, SESSIONS);
    lineup.enter_ours(servers).await?;
    lineup
        .enter(lineup::INSIDE, async |payload, sessions| {
            let tables = Tables::fill(servers, payload, sessions).await?;
            tables.node_that_notifies(tables.config(), Notify::Inside).await
        })
        .await?;
    lineup
        .enter(lineup::UNCOMBINED, async |payload, sessions| {
            Tables::fill(servers, payload, sessions).await?.uncombined().await
        })
        .await?;
    for (name, connections) in [(lineup::BARE_ONE, 1), (lineup::BARE_POOL, CONNECTIONS)] {
        lineup
            .enter(name, async |payload, sessions| Bare::fill(servers, payload, sessions, connections).await)
            .await?;
    }
    if let Some(redis) = &servers.redis {
        let plain = [lineup::REDIS, lineup::REDIS_POOL];
        lineup.enter_redis(&redis.volatile, plain, Announce::No).await?;
        let durable = [lineup::REDIS_FSYNC, lineup::REDIS_FSYNC_POOL];
        lineup.enter_redis(&redis.durable, durable, Announce::No).await?;
        let published = [lineup::REDIS_FSYNC_PUBLISH, lineup::REDIS_FSYNC_PUBLISH_POOL];
        lineup.enter_redis(&redis.durable, published, Announce::Published).await?;
        let promised = [lineup::REDIS_PROMISES, lineup::REDIS_PROMISES_POOL];
        lineup.enter_redis(&redis.durable, promised, Announce::Versioned).await?;
    }
    lineup.enter_tower(servers).await?;
    let mut batches = None;
    if plan.wants_contender(NAME, lineup::BARE_BATCHES) {
        batches = Some(BareBatches::fill(servers, Payload::Small, SESSIONS).await?);
    }
    for count in IN_FLIGHT {
        let mut contest = lineup.contest(&in_flight(count), Op::Update, |_| count);
        if let Some(batches) = &batches {
            contest.enter(plan, lineup::BARE_BATCHES, move |span| batches.drive(count, span));
        }
        contest.run(plan, book).await?;
    }
    if let Some(batches) = &batches {
        batches.verify().await?;
    }
    lineup.verify().await
}
