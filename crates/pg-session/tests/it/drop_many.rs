//! Dropping many sessions from memory at once: in constant time, or in steps between which other tasks run.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use pg_session::testing::Guard;
use pg_session::{SessionId, SessionManager};
use uuid::Uuid;

use crate::fixtures::{hit, make, read, read_all};
use crate::support::{World, eventually};

const SESSIONS: usize = 60_000;
/// Sessions that may leave the memory between two turns of another task: a few steps, if other threads run meanwhile. No
/// time is measured, because a busy machine stalls any task.
const DROPPED_AT_ONCE_MAX: usize = SESSIONS / 6;
const USER: Uuid = Uuid::from_u128(7);

/// A busy machine does not end its trust, which would hide what is in memory.
async fn roomy_node(world: &World) -> SessionManager {
    let mut config = world.roomy();
    config.trust_window = Duration::from_secs(600);
    world.node_with(config).await
}

/// A node, and the ids of as many sessions of one user that it has in memory.
async fn full(world: &World, node: &SessionManager) -> Vec<SessionId> {
    let rows = world
        .client()
        .await
        .query(
            "INSERT INTO sessions (id, user_id, version, idle_limited, created_at, updated_at,
                                   last_accessed_at, expires_at)
             SELECT gen_random_uuid(), $1, 1, true, now(), now(), now(), now() + interval '1 hour'
             FROM generate_series(1, $2::bigint) RETURNING id",
            &[&USER, &i64::try_from(SESSIONS).unwrap()],
        )
        .await
        .unwrap();
    let ids: Vec<SessionId> = rows.iter().map(|row| SessionId::from_uuid(row.get(0))).collect();
    for some in ids.chunks(6_000) {
        read_all(node, some).await;
    }
    assert_eq!(node.status().cache.sessions, SESSIONS);
    ids
}

/// The most sessions that left the node's memory between two turns of another task of this thread while `work` ran.
async fn most_at_once<T>(node: &SessionManager, work: impl Future<Output = T>) -> (T, usize) {
    let most = Cell::new(0);
    let others = async {
        let mut last = node.status().cache.sessions;
        loop {
            tokio::task::yield_now().await;
            let now = node.status().cache.sessions;
            most.set(most.get().max(last.saturating_sub(now)));
            last = now;
        }
    };
    let output = match select(pin!(work), pin!(others)).await {
        Either::Left((output, _)) => output,
        Either::Right((never, _)) => never,
    };
    (output, most.get())
}

#[tokio::test]
async fn evicting_all_takes_constant_time_and_frees_the_memory() {
    let world = World::new();
    let node = roomy_node(&world).await;
    let ids = full(&world, &node).await;
    let ((), most) = most_at_once(&node, async { node.evict_all().await.unwrap() }).await;
    assert!(most < DROPPED_AT_ONCE_MAX, "no other task ran while {most} sessions were dropped");
    // One look only: each miss loads its session again.
    assert!(hit(&node, ids[0]).is_none(), "dropped before the answer");
    let freed = async || node.status().cache.sessions <= 1;
    let ((), most) = most_at_once(&node, eventually("the memory is freed", freed)).await;
    assert!(most < DROPPED_AT_ONCE_MAX, "no other task ran while {most} sessions were dropped");
}

#[tokio::test]
async fn deleting_all_sessions_ends_hits_on_every_node_at_once() {
    let world = World::new();
    let a = roomy_node(&world).await;
    let b = roomy_node(&world).await;
    let ids = full(&world, &b).await;
    let (deleted, most) = most_at_once(&b, a.delete_all_sessions()).await;
    assert_eq!(deleted.unwrap(), SESSIONS as u64);
    assert!(most < DROPPED_AT_ONCE_MAX, "no other task ran while {most} sessions were dropped");
    b.catch_up().await.unwrap();
    assert!(ids.iter().all(|&id| hit(&b, id).is_none()));
    eventually("the memory is freed", async || b.status().cache.sessions == 0).await;
    let [session] = &make(&b, 1).await[..] else { panic!("one") };
    // The loads that the looks above began may still refuse it.
    eventually("what comes later is kept", async || {
        read(&b, session.id()).await;
        hit(&b, session.id()).is_some()
    })
    .await;
}

#[tokio::test]
async fn dropping_a_user_with_many_sessions_stalls_no_task() {
    let world = World::new();
    let node = roomy_node(&world).await;
    let ids = full(&world, &node).await;
    let kept = make(&node, 1).await[0].id();
    let (evicted, most) = most_at_once(&node, node.user(USER).evict()).await;
    evicted.unwrap();
    assert!(most < DROPPED_AT_ONCE_MAX, "no other task ran while {most} sessions were dropped");
    assert!(ids.iter().all(|&id| hit(&node, id).is_none()), "dropped before the answer");
    assert!(hit(&node, kept).is_some());
}

#[tokio::test]
async fn control_without_generations_an_evicted_session_is_served() {
    let world = World::new();
    let [node] = world.nodes().await;
    node.probes().remove(Guard::Generation);
    let id = make(&node, 1).await[0].id();
    node.evict_all().await.unwrap();
    assert!(hit(&node, id).is_some());
}
