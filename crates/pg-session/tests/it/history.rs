//! A random history: three nodes, one of which keeps losing its listener, and tasks that read, update and delete a few
//! sessions; every answer is checked against what had been acknowledged by then. Half of the writes come from clients of
//! the SQL contract, and some of their transactions are rolled back.
//!
//! Run it with `PG_SESSION_SEED=…` to repeat the choices (the interleaving stays the scheduler's). With
//! `Guard::FillTicket` removed on all nodes it fails in five of six runs; the control runs that always fail are those
//! of `fill_race`, `publish_race`, `reconnect` and `half_open`.
//!
//! - I2 one task's reads of one session on one node never go backwards, and never find again what was gone.
//! - I3 a read sees every update acknowledged `trust_window` before it started; on the acknowledging node, before it
//!   started.
//! - I4 the same for deletes.
//! - I5 each acknowledged update is in the table, and each version was acknowledged to one caller.
//! - I6 row and attributes belong to one version: the newest attribute was written with the session's version, and
//!   the two that are written together agree.

mod check;
mod clerk;
mod journal;

use std::sync::Arc;
use std::time::Duration;

use pg_sandbox::Proxy;
use pg_session::{Session, SessionId, SessionManager, UpdateError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::check::Reader;
use self::clerk::Clerk;
use self::journal::{Journal, Story};
use crate::observer::Observer;
use crate::support::World;

const NODES: usize = 3;
/// Where the SQL contract is used: on no node.
const ELSEWHERE: usize = NODES;
const READERS_PER_NODE: usize = 2;
const WRITERS_PER_NODE: usize = 2;
/// Sessions that live at the same time.
const SESSIONS: usize = 5;
const DURATION: Duration = Duration::from_millis(2_500);
const TRUST_WINDOW: Duration = Duration::from_millis(600);
/// How long a fault lasts, and how long there is peace before the next one, at most.
const FAULT_MS_MAX: u64 = 900;
const PEACE_MS_MAX: u64 = 300;

/// SplitMix64: enough to choose by, and the same everywhere for the same seed.
pub struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).expect("below `limit`")
    }

    fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX))
    }
}

fn seed() -> u64 {
    let seed = match std::env::var("PG_SESSION_SEED") {
        Ok(seed) => seed.parse().expect("PG_SESSION_SEED is a number"),
        Err(_) => uuid::Uuid::new_v4().as_u64_pair().1,
    };
    println!("PG_SESSION_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_history_of_three_nodes_breaks_no_promise() {
    let mut rng = Rng(seed());
    let world = World::new();
    let wire = world.proxy().await;
    let mut config = world.roomy();
    config.trust_window = TRUST_WINDOW;
    let mut nodes = vec![world.node_listening_through(&wire, config.clone()).await];
    while nodes.len() < NODES {
        nodes.push(world.node_with(config.clone()).await);
    }
    let journal = Arc::new(Journal::new(SESSIONS));
    for slot in 0..SESSIONS {
        journal.begin(slot, born(&nodes[slot % NODES]).await);
    }
    let bystander = nodes[0].create(2).await.expect("it is created").id();
    let mut observer = Observer::new(&world).await;
    let end = Instant::now() + DURATION;
    let mut tasks = JoinSet::new();
    tasks.spawn(disturb(wire, rng.fork(), end));
    for (number, node) in nodes.iter().enumerate() {
        for _ in 0..READERS_PER_NODE {
            tasks.spawn(keep_reading(node.clone(), number, Arc::clone(&journal), rng.fork(), end));
        }
        for _ in 0..WRITERS_PER_NODE {
            tasks.spawn(keep_writing(node.clone(), number, Arc::clone(&journal), rng.fork(), end));
            let clerk = Clerk::new(&world).await;
            let journal = Arc::clone(&journal);
            tasks.spawn(keep_writing_sql(clerk, node.clone(), journal, bystander, rng.fork(), end));
        }
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("no promise was broken");
    }
    check::table(&world, &journal).await;
    clerk::bystander(&world, &mut observer, bystander).await;
}

async fn born(node: &SessionManager) -> Arc<Story> {
    let session = node.create(1).set("v", &1_i64).set("w", &1_i64);
    Story::of(&session.await.expect("it is created"))
}

/// Cuts the listening connection, or stalls it, for longer than the trust window at times.
async fn disturb(wire: Proxy, mut rng: Rng, end: Instant) {
    while Instant::now() < end {
        match rng.below(3) {
            0 => wire.stall(),
            _ => wire.cut(),
        }
        tokio::time::sleep(Duration::from_millis(rng.below(FAULT_MS_MAX))).await;
        wire.heal();
        tokio::time::sleep(Duration::from_millis(rng.below(PEACE_MS_MAX))).await;
    }
}

async fn keep_reading(
    node: SessionManager,
    number: usize,
    journal: Arc<Journal>,
    mut rng: Rng,
    end: Instant,
) {
    let mut reader = Reader::of(number, TRUST_WINDOW);
    while Instant::now() < end {
        let story = journal.pick(rng.index(SESSIONS), rng.below(4) == 0);
        // Some ask the database although they need not: loads that a change may overtake.
        let read = match rng.below(3) {
            0 => node.get(story.id).bypass_cache(),
            _ => node.get(story.id),
        };
        let started = Instant::now();
        let found = read.await.expect("the database answers");
        reader.check(&story, started, found.as_ref());
        tokio::task::yield_now().await;
    }
}

async fn keep_writing(
    node: SessionManager,
    number: usize,
    journal: Arc<Journal>,
    mut rng: Rng,
    end: Instant,
) {
    let mut reader = Reader::of(number, TRUST_WINDOW);
    while Instant::now() < end {
        let slot = rng.index(SESSIONS);
        let story = journal.pick(slot, false);
        let started = Instant::now();
        let found = node.get(story.id).await.expect("the database answers");
        reader.check(&story, started, found.as_ref());
        match (rng.below(20), found) {
            (0, _) => {
                if node.delete(story.id).await.expect("the database answers") {
                    story.deleted(number);
                    journal.begin(slot, born(&node).await);
                }
            }
            (1..=6, Some(session)) => blind(&node, number, &story, session, &mut reader).await,
            (_, Some(session)) => checked(&node, number, &story, session, &mut reader).await,
            (_, None) => {}
        }
    }
}

/// As many writes as those of the nodes. The node only makes new sessions.
async fn keep_writing_sql(
    clerk: Clerk,
    node: SessionManager,
    journal: Arc<Journal>,
    bystander: SessionId,
    mut rng: Rng,
    end: Instant,
) {
    while Instant::now() < end {
        let slot = rng.index(SESSIONS);
        let story = journal.pick(slot, false);
        match rng.below(20) {
            0 => {
                if clerk.end(story.id, rng.below(2) == 0).await {
                    story.deleted(ELSEWHERE);
                    journal.begin(slot, born(&node).await);
                }
            }
            1..=3 => clerk.roll_back(story.id).await,
            4..=6 => clerk.roll_back(bystander).await,
            _ => {
                if let Some(version) = clerk.set(story.id, ELSEWHERE).await {
                    story.updated(ELSEWHERE, version);
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Writes the pair of attributes that carry the version they will have.
async fn checked(
    node: &SessionManager,
    number: usize,
    story: &Story,
    mut session: Session,
    reader: &mut Reader,
) {
    let next = session.version().get() + 1;
    session.set("v", &next).expect("it is within the limits");
    session.set("w", &next).expect("it is within the limits");
    match node.save(&mut session).check_version().await {
        Ok(()) => {
            assert_eq!(session.version().get(), next, "a checked update follows what it was checked against");
            reader.acknowledged(story, number, &session);
        }
        Err(UpdateError::Conflict { .. } | UpdateError::NotFound) => {}
        Err(error) => panic!("{error:?}"),
    }
}

/// Writes an attribute without looking: the handle then shows what others wrote before it.
async fn blind(
    node: &SessionManager,
    number: usize,
    story: &Story,
    mut session: Session,
    reader: &mut Reader,
) {
    session.set("blind", &number).expect("it is within the limits");
    match node.save(&mut session).await {
        Ok(()) => reader.acknowledged(story, number, &session),
        Err(UpdateError::NotFound) => {}
        Err(other) => panic!("{other:?}"),
    }
}
