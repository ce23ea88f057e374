//! Dropping many sessions from memory at once: in constant time, or in steps between which other tasks run.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use pg_session::testing::Guard;
use pg_session::{SessionId, SessionManager};
use tokio::time::Instant;
use uuid::Uuid;

use crate::fixtures::{hit, make, read, read_all};
use crate::support::{World, eventually};

/// Sessions in memory. Before there were steps, dropping them stalled a thread for more than ten times [`STALL_MAX`].
const SESSIONS: usize = 60_000;
/// Much more than one step takes, for the sake of a busy machine.
const STALL_MAX: Duration = Duration::from_millis(250);
const USER: Uuid = Uuid::from_u128(7);

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

/// The longest time for which no other task of this thread had a turn while `work` ran.
async fn longest_stall<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let longest = Cell::new(Duration::ZERO);
    let others = async {
        let mut last = Instant::now();
        loop {
            tokio::task::yield_now().await;
            longest.set(longest.get().max(last.elapsed()));
            last = Instant::now();
        }
    };
    match select(pin!(work), pin!(others)).await {
        Either::Left((output, _)) => (output, longest.get()),
        Either::Right((never, _)) => never,
    }
}

#[tokio::test]
async fn evicting_all_takes_constant_time_and_frees_the_memory() {
    let world = World::new();
    let node = world.node_with(world.roomy()).await;
    let ids = full(&world, &node).await;
    let ((), stall) = longest_stall(async { node.evict_all().await.unwrap() }).await;
    assert!(stall < STALL_MAX, "no other task ran for {stall:?}");
    // One look only: each miss loads its session again.
    assert!(hit(&node, ids[0]).is_none(), "dropped before the answer");
    let freed = async || node.status().cache.sessions <= 1;
    let ((), stall) = longest_stall(eventually("the memory is freed", freed)).await;
    assert!(stall < STALL_MAX, "no other task ran for {stall:?}");
}

#[tokio::test]
async fn deleting_all_sessions_ends_hits_on_every_node_at_once() {
    let world = World::new();
    let a = world.node_with(world.roomy()).await;
    let b = world.node_with(world.roomy()).await;
    let ids = full(&world, &b).await;
    let (deleted, stall) = longest_stall(a.delete_all_sessions()).await;
    assert_eq!(deleted.unwrap(), SESSIONS as u64);
    assert!(stall < STALL_MAX, "no other task ran for {stall:?}");
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
    let node = world.node_with(world.roomy()).await;
    let ids = full(&world, &node).await;
    let kept = make(&node, 1).await[0].id();
    let (evicted, stall) = longest_stall(node.user(USER).evict()).await;
    evicted.unwrap();
    assert!(stall < STALL_MAX, "no other task ran for {stall:?}");
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
