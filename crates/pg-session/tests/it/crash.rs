//! PostgreSQL restarted and killed under load: what was acknowledged is there, nothing happened twice, and the nodes
//! come back by themselves.
//!
//! Each session counts its updates in an attribute, each update is checked against the version that it was made
//! from. Both begin at 1. So at any time `counter == version`, and an update that was applied twice would break it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{ErrorKind, SessionId, SessionManager, UpdateError};
use tokio::task::JoinSet;

use crate::fixtures::{in_time, make, n, read_all};
use crate::support::{WAIT_MAX, World, eventually};
use crate::tables::{stored, stored_version};

const SESSIONS: usize = 8;
const TASKS_PER_NODE: usize = 6;
/// Acknowledgements that each phase waits for.
const PHASE: u64 = 200;
/// How long a statement may take on a server that freezes: several times what it takes on a busy machine. A server that ends
/// closes its connections, so no statement waits for it.
const FROZEN_TIMEOUT: Duration = Duration::from_secs(1);
/// Errors of a frozen server after which it goes on: several of each task.
const FROZEN_ERRORS_MAX: u64 = 50;
/// The pause after an error, so that a dead server is not asked thousands of times.
const PAUSE: Duration = Duration::from_millis(5);

/// What the tasks have seen.
#[derive(Default)]
struct Counters {
    acknowledged: AtomicU64,
    /// Writes whose outcome is unknown.
    unknown: AtomicU64,
    /// Errors of any kind, reads included.
    errors: AtomicU64,
    stop: AtomicBool,
}

/// Of one task: the counters that were acknowledged, by session and version.
type Acknowledged = BTreeMap<(SessionId, i64), i64>;

async fn keep_counting(
    node: SessionManager,
    ids: Vec<SessionId>,
    first: usize,
    counters: Arc<Counters>,
) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    let mut turn = first;
    while !counters.stop.load(Ordering::Relaxed) {
        turn += 1;
        match count_up(&node, ids[turn % ids.len()]).await {
            Ok((id, version, counter)) => {
                counters.acknowledged.fetch_add(1, Ordering::Relaxed);
                acknowledged.insert((id, version), counter);
            }
            Err(UpdateError::Conflict { .. }) => {}
            Err(UpdateError::Failed(error)) => {
                counters.errors.fetch_add(1, Ordering::Relaxed);
                match error.kind() {
                    ErrorKind::OutcomeUnknown => counters.unknown.fetch_add(1, Ordering::Relaxed),
                    ErrorKind::Unavailable | ErrorKind::Timeout => 0,
                    other => panic!("{other:?}: {error:?}"),
                };
                tokio::time::sleep(PAUSE).await;
            }
            Err(other) => {
                panic!("no client deletes here: a session that cannot be read is not gone: {other:?}")
            }
        }
        tokio::task::yield_now().await;
    }
    acknowledged
}

async fn count_up(node: &SessionManager, id: SessionId) -> Result<(SessionId, i64, i64), UpdateError> {
    let mut session = node.get(id).await?.ok_or(UpdateError::NotFound)?;
    let counter = n(&session);
    assert_eq!(counter, session.version().get(), "I6, and no update was applied twice");
    session.set("n", &(counter + 1))?;
    node.save(&mut session).check_version().await?;
    Ok((id, session.version().get(), counter + 1))
}

/// Does `fault` to the server in the middle of the load, and checks everything afterwards.
async fn survives(query_timeout: Duration, fault: impl FnOnce(&Sandbox, &Counters) + Send + 'static) {
    let sandbox = Arc::new(Sandbox::start().unwrap());
    let world = World::on(&sandbox);
    let mut config = world.roomy();
    config.query_timeout = query_timeout;
    let nodes = [world.node_with(config.clone()).await, world.node_with(config).await];
    let ids: Vec<SessionId> = make(&nodes[0], SESSIONS).await.iter().map(|session| session.id()).collect();
    let counters = Arc::new(Counters::default());
    let mut tasks = JoinSet::new();
    for task in 0..2 * TASKS_PER_NODE {
        tasks.spawn(keep_counting(nodes[task % 2].clone(), ids.clone(), task, Arc::clone(&counters)));
    }
    another_phase(&counters).await;
    let (server, felt) = (Arc::clone(&sandbox), Arc::clone(&counters));
    tokio::task::spawn_blocking(move || fault(&server, &felt)).await.unwrap();
    another_phase(&counters).await;
    counters.stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Acknowledged::new();
    while let Some(of_task) = tasks.join_next().await {
        for (update, counter) in of_task.unwrap() {
            assert_eq!(acknowledged.insert(update, counter), None, "I5: two updates made the same version");
        }
    }
    assert!(counters.errors.load(Ordering::Relaxed) > 0, "the fault was felt");

    for node in &nodes {
        in_time("the node is in sync again by itself", node.wait_until_trusted()).await.unwrap();
        node.catch_up().await.unwrap();
    }
    everything_is_there(&world, &nodes, &ids, &acknowledged, counters.unknown.load(Ordering::Relaxed)).await;
}

async fn another_phase(counters: &Counters) {
    let goal = counters.acknowledged.load(Ordering::Relaxed) + PHASE;
    eventually("updates go through", async || {
        tokio::time::sleep(PAUSE).await;
        counters.acknowledged.load(Ordering::Relaxed) >= goal
    })
    .await;
}

async fn everything_is_there(
    world: &World,
    nodes: &[SessionManager],
    ids: &[SessionId],
    acknowledged: &Acknowledged,
    unknown: u64,
) {
    let mut updates = 0;
    let client = world.client().await;
    for &id in ids {
        let version = stored_version(&client, id).await.expect("no client deletes it");
        let held = &stored(&client, id).await["n"];
        let (counter, written) = (held.text.parse().unwrap(), held.version);
        assert_eq!((version, written), (counter, counter), "each update was applied once, as a whole");
        let counters =
            acknowledged.range((id, 0)..=(id, i64::MAX)).next_back().map(|(&(_, version), &n)| (version, n));
        assert!(
            counters.is_none_or(|(counters, n)| counters <= version && n == counters),
            "I5: {counters:?} was acknowledged"
        );
        updates += u64::try_from(version - 1).unwrap();
    }
    let least = u64::try_from(acknowledged.len()).unwrap();
    assert!((least..=least + unknown).contains(&updates), "{least} ≤ {updates} ≤ {least} + {unknown}");
    for node in nodes {
        for session in read_all(node, ids).await {
            let known = acknowledged.range((session.id(), 0)..=(session.id(), i64::MAX)).next_back();
            assert!(known.is_none_or(|(&(_, version), _)| session.version().get() >= version));
            assert_eq!(n(&session), session.version().get());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_restart_loses_no_acknowledged_update() {
    survives(WAIT_MAX, |server, _| server.restart().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgresql_under_load_loses_no_acknowledged_update() {
    survives(WAIT_MAX, |server, _| {
        server.kill().unwrap();
        server.start_again().unwrap();
    })
    .await;
}

/// Frozen for longer than a statement may take: connections stay open, and nothing answers until it goes on. What was
/// sent is carried out then, although no caller waits for it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_postgresql_loses_no_acknowledged_update() {
    survives(FROZEN_TIMEOUT, |server, counters| {
        server.pause().unwrap();
        // If no write was in flight, none has an unknown outcome.
        while counters.unknown.load(Ordering::Relaxed) == 0
            && counters.errors.load(Ordering::Relaxed) < FROZEN_ERRORS_MAX
        {
            std::thread::sleep(PAUSE);
        }
        server.resume().unwrap();
    })
    .await;
}
