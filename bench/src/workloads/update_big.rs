//! Updates of one attribute of 1 kB, of sessions with twenty of them, beside sessions with five small ones: what a
//! change costs as the session grows.

use super::in_flight;
use super::lineup::{self, Lineup, parts};
use crate::contest::Bench;
use crate::drive::Op;
use crate::names::update_big::{NAME, OURS_SMALL};
use crate::payload::Payload;
use crate::peers::ours::Tables;
use crate::peers::redis::Announce;

const SESSIONS: usize = 10_000;
const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut lineup = Lineup::new(NAME, plan, Payload::Big, SESSIONS);
    for (name, small) in [(lineup::OURS, false), (OURS_SMALL, true)] {
        lineup
            .enter(name, async |payload, sessions| {
                let payload = if small { Payload::Small } else { payload };
                let tables = Tables::fill(servers, payload, sessions).await?;
                tables.node(tables.config()).await
            })
            .await?;
    }
    if let Some(redis) = &servers.redis {
        let durable = [lineup::REDIS_FSYNC, lineup::REDIS_FSYNC_POOL];
        lineup.enter_redis(&redis.durable, durable, Announce::No).await?;
    }
    lineup.enter_tower(servers).await?;
    for count in IN_FLIGHT {
        lineup.compete(book, &in_flight(count), Op::Update, |_| count).await?;
    }
    lineup.verify().await
}
