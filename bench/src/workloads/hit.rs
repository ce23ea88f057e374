//! Hits: reads of sessions in memory by one and two threads, of a thousand to a million sessions, beside the floor: the
//! cache crate's own `get` and one read of the clock. Redis and tower-sessions behind moka take turns with them, one read
//! at a time.
//!
//! The sessions to read are drawn before, into a list that is walked in order: what a thread pays for is the read.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pg_session::{SessionId, SessionManager};
use quick_cache::sync::Cache;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Uniform, Zipf};
use tokio::runtime::Handle;

use super::lineup::{self, parts};
use super::million::Million;
use super::pin_table;
use super::threads::{Done, on_threads, walk, walk_async};
use crate::contest::{Bench, Contest};
use crate::drive::{Crew, Op};
use crate::names::hit::{NAME, UNIFORM};
use crate::payload::Payload;
use crate::peers::ours::{Node, Tables};
use crate::peers::redis::{Announce, RedisPeer, Way};
use crate::peers::tower_sessions::Table;
use crate::plan::Plan;
use crate::servers::Servers;

const ZIPF: &str = "zipf";
/// The skew of requests over users, as caches are commonly measured.
const ZIPF_EXPONENT: f64 = 0.99;
/// Reads in the list that is walked: more than any contender makes of it between two looks at the clock.
const DRAWS: usize = 1 << 19;

const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// Sessions that Redis and tower-sessions have; how many does not matter to them.
const PEERS_SESSIONS: usize = 10_000;

/// How we are called with so many sessions in memory.
pub(crate) fn ours(sessions: usize, threads: usize) -> String {
    format!("ours, {}", of(sessions, threads))
}

fn bare(sessions: usize, threads: usize) -> String {
    format!("bare cache, {}", of(sessions, threads))
}

fn of(sessions: usize, threads: usize) -> String {
    let sessions = match sessions {
        1_000 => "1k",
        100_000 => "100k",
        _ => "1m",
    };
    let s = if threads == 1 { "" } else { "s" };
    format!("{sessions} sessions, {threads} thread{s}")
}

pub(crate) async fn run(bench: &mut Bench, million: &mut Million) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut nodes = Vec::new();
    for sessions in SIZES {
        let wanted = [1, 2].iter().any(|&threads| {
            plan.wants_contender(NAME, &ours(sessions, threads))
                || plan.wants_contender(NAME, &bare(sessions, threads))
        });
        if wanted {
            let node = match sessions {
                1_000_000 => million.get(servers).await?.0,
                _ => filled(servers, sessions).await?,
            };
            let floor = Arc::new(bare_cache(&node));
            nodes.push((node, floor));
        }
    }
    let others = others(plan, servers).await?;
    for case in [UNIFORM, ZIPF] {
        let mut contest = Contest::new(NAME, case);
        for (node, floor) in &nodes {
            enter(&mut contest, plan, case, node, floor)?;
        }
        for (name, crew) in &others {
            contest.enter(plan, name, move |span| Arc::clone(crew).drive(Op::Read, 1, span));
        }
        let missed: u64 = nodes.iter().map(|(node, _)| node.manager.status().cache.misses).sum();
        contest.run(plan, book).await?;
        let misses: u64 = nodes.iter().map(|(node, _)| node.manager.status().cache.misses).sum();
        ensure!(misses == missed, "{} of the hits were misses", misses - missed);
    }
    Ok(())
}

/// A node that has all of its sessions in memory.
pub(super) async fn filled(servers: &Servers, sessions: usize) -> anyhow::Result<Node> {
    let tables = Tables::fill(servers, Payload::Slim, sessions).await?;
    let node = tables.node(tables.config()).await?;
    node.fill_memory().await?;
    Ok(node)
}

/// The same crate, the same hasher, the same room and the same keys, with as little around them as possible.
fn bare_cache(node: &Node) -> Cache<SessionId, Arc<u64>> {
    let cache = Cache::new(node.manager.config().cache_sessions_max);
    for (number, &id) in node.tables.ids.iter().enumerate() {
        cache.insert(id, Arc::new(number as u64));
    }
    cache
}

async fn others(plan: &Plan, servers: &Servers) -> anyhow::Result<Vec<(&'static str, Arc<Crew>)>> {
    let mut crews = Vec::new();
    if let Some(redis) = &servers.redis {
        for (name, way) in [(lineup::REDIS, Way::Multiplexed), (lineup::REDIS_POOL, Way::Pooled)] {
            if plan.wants_contender(NAME, name) {
                let redis = &redis.volatile;
                let peer = RedisPeer::fill(redis, way, Payload::Slim, PEERS_SESSIONS, Announce::No).await?;
                crews.push((name, Crew::of(peer, PEERS_SESSIONS).await?));
            }
        }
    }
    if plan.wants_contender(NAME, lineup::TOWER_MOKA) {
        let table = Table::fill(servers, Payload::Slim, PEERS_SESSIONS).await?;
        let crew = Crew::of(table.cached(), PEERS_SESSIONS).await?;
        crew.warm().await?;
        crews.push((lineup::TOWER_MOKA, crew));
    }
    Ok(crews)
}

fn enter<'a>(
    contest: &mut Contest<'a>,
    plan: &Plan,
    case: &str,
    node: &'a Node,
    floor: &'a Arc<Cache<SessionId, Arc<u64>>>,
) -> anyhow::Result<()> {
    let sessions = node.tables.ids.len();
    for threads in [1, 2] {
        let draws: Arc<[Arc<[SessionId]>]> =
            (0..threads).map(|seed| draw(&node.tables.ids, case, seed as u64)).collect::<Result<_, _>>()?;
        let hits = Arc::clone(&draws);
        contest.enter(plan, &ours(sessions, threads), move |span| {
            let (manager, draws) = (node.manager.clone(), Arc::clone(&hits));
            async move {
                let handle = Handle::current();
                on_threads(threads, |thread| handle.block_on(read_ours(&manager, &draws[thread], span)))
            }
        });
        if threads == 1 {
            let untouched = Arc::clone(&draws);
            contest.enter(plan, &format!("ours without touch, {}", of(sessions, threads)), move |span| {
                let (manager, draws) = (node.manager.clone(), Arc::clone(&untouched));
                async move {
                    let handle = Handle::current();
                    on_threads(threads, |thread| {
                        handle.block_on(read_untouched(&manager, &draws[thread], span))
                    })
                }
            });
        }
        if case == ZIPF && sessions == 100_000 {
            let name = format!("upper bound of a table of pins, {}", of(sessions, threads));
            pin_table::enter(contest, plan, &name, node, Arc::clone(&draws));
        }
        contest.enter(plan, &bare(sessions, threads), move |span| {
            let draws = Arc::clone(&draws);
            async move { on_threads(threads, |thread| read_bare(floor, &draws[thread], span)) }
        });
    }
    Ok(())
}

fn draw(ids: &[SessionId], case: &str, seed: u64) -> anyhow::Result<Arc<[SessionId]>> {
    let mut random = SmallRng::seed_from_u64(seed);
    let draws = if case == ZIPF {
        #[allow(clippy::cast_precision_loss, reason = "a million")]
        let ranks = Zipf::new(ids.len() as f64, ZIPF_EXPONENT)?;
        // The rank is a whole number from 1 to the number of sessions.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        (0..DRAWS).map(|_| ids[ranks.sample(&mut random) as usize - 1]).collect()
    } else {
        let numbers = Uniform::new(0, ids.len())?;
        (0..DRAWS).map(|_| ids[numbers.sample(&mut random)]).collect()
    };
    Ok(draws)
}

async fn read_ours(manager: &SessionManager, draws: &[SessionId], span: Duration) -> anyhow::Result<Done> {
    walk_async(draws, span, async |&id| {
        black_box(manager.get(id).await?.context("a session is gone")?);
        Ok(())
    })
    .await
}

/// Reads that do not count as an access: what the accesses cost is the difference.
async fn read_untouched(
    manager: &SessionManager,
    draws: &[SessionId],
    span: Duration,
) -> anyhow::Result<Done> {
    walk_async(draws, span, async |&id| {
        black_box(manager.get(id).no_touch().await?.context("a session is gone")?);
        Ok(())
    })
    .await
}

fn read_bare(
    cache: &Cache<SessionId, Arc<u64>>,
    draws: &[SessionId],
    span: Duration,
) -> anyhow::Result<Done> {
    walk(draws, span, |id| {
        black_box(cache.get(id).context("an entry is gone")?);
        black_box(Instant::now());
        Ok(())
    })
}
