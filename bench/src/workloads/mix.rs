//! Nineteen reads to one update, spread over two nodes: what requests do to an application. Each update makes the other
//! node read the session again. Redis is one store for both.

use super::lineup::{self, Lineup, parts};
use super::nodes::nodes;
use crate::contest::Bench;
use crate::drive::Op;
use crate::names::mix::NAME;
use crate::payload::Payload;
use crate::peers::redis::Announce;

const CASE: &str = "95 % reads, 5 % updates, 64 in flight";
const OURS: &str = "ours, two nodes";
const SESSIONS: usize = 10_000;
const IN_FLIGHT: usize = 64;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut lineup = Lineup::new(NAME, plan, Payload::Small, SESSIONS);
    lineup.enter_nodes(OURS, async |payload, sessions| nodes(servers, payload, sessions, 2).await).await?;
    if let Some(redis) = &servers.redis {
        let durable = [lineup::REDIS_FSYNC, lineup::REDIS_FSYNC_POOL];
        lineup.enter_redis(&redis.durable, durable, Announce::No).await?;
        let plain = [lineup::REDIS, lineup::REDIS_POOL];
        lineup.enter_redis(&redis.volatile, plain, Announce::No).await?;
    }
    lineup.compete(book, CASE, Op::Mix, |_| IN_FLIGHT).await?;
    lineup.verify().await
}
