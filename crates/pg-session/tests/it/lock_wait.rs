//! Waiting for a lock: mutual exclusion, wake-ups by notification, deadlines, and waiters that leave.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use pg_sandbox::Direction;
use pg_session::{ErrorKind, Lease, LockError, SessionManager};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::fixtures::in_time;
use crate::lock::{assert_held, free};
use crate::support::{WAIT_MAX, World, eventually};

/// A waiter that is not woken looks after ten seconds.
const WOKEN: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_tasks_on_two_nodes_exclude_each_other() {
    const ROUNDS: usize = 20;
    let world = World::new();
    let nodes: [_; 2] = world.nodes().await;
    let (inside, entered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (node, inside, entered) = (nodes[task % 2].clone(), inside.clone(), entered.clone());
            tokio::spawn(async move {
                let mut fences = Vec::new();
                for _ in 0..ROUNDS {
                    let lease = node.locks().lock("x").wait(WAIT_MAX).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "alone");
                    fences.push(lease.fence());
                    // The others have every opportunity to come in.
                    assert!(node.locks().holder("x").await.unwrap().unwrap().fence == lease.fence());
                    entered.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    lease.release().await.unwrap();
                }
                fences
            })
        })
        .collect();
    let mut fences = Vec::new();
    for task in tasks {
        fences.extend(in_time("the task ends", task).await.unwrap());
    }
    assert_eq!(entered.load(Ordering::SeqCst), 8 * ROUNDS);
    fences.sort_unstable();
    fences.dedup();
    assert_eq!(fences.len(), 8 * ROUNDS, "each acquisition has a fence of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_woken_by_the_release_within_milliseconds() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let client = world.client().await;
    let mut quickest = Duration::MAX;
    for _ in 0..10 {
        let lease = a.locks().try_lock("x").await.unwrap();
        let before = row_lock(&client).await;
        let waiting = b.clone();
        let waiter = tokio::spawn(async move {
            let lease = waiting.locks().lock("x").wait(WAIT_MAX).await.unwrap();
            (lease, Instant::now())
        });
        eventually("the waiter has asked", async || row_lock(&client).await != before).await;
        let released = Instant::now();
        lease.release().await.unwrap();
        let (lease, at) = in_time("the waiter is woken", waiter).await.unwrap();
        quickest = quickest.min(at.duration_since(released));
        assert!(at.duration_since(released) < WOKEN, "not by looking again");
        lease.release().await.unwrap();
    }
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");
}

/// Changes with each try to take the lock: even one that finds it held locks its row for a moment.
async fn row_lock(client: &Client) -> String {
    client.query_one("SELECT xmax::text FROM session_locks", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_ends_at_its_deadline() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let lease = a.locks().try_lock("x").await.unwrap();
    let began = Instant::now();
    let wait = Duration::from_millis(300);
    // One has the turn, the others queue behind it.
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let node = b.clone();
            tokio::spawn(async move { node.locks().lock("x").wait(wait).await })
        })
        .collect();
    for waiter in waiters {
        assert_held(in_time("the wait ends", waiter).await.unwrap());
        assert!(began.elapsed() >= wait && began.elapsed() < WOKEN);
    }
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_gets_the_lock_of_a_holder_that_vanished() {
    let world = World::new();
    let [node] = world.nodes().await;
    let vanished = "INSERT INTO session_locks (name, owner, fence, acquired_at, expires_at)
                    VALUES ('x', gen_random_uuid(), 7, clock_timestamp(), clock_timestamp() + interval '400 ms')";
    world.client().await.batch_execute(vanished).await.unwrap();
    let began = Instant::now();
    let lease = node.locks().lock("x").wait(WAIT_MAX).await.unwrap();
    assert!(began.elapsed() < WOKEN, "by the holder's end, not by looking again");
    assert!(lease.fence().get() > 7);
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_waiter_takes_no_lock_and_blocks_no_other() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    for _ in 0..20 {
        let lease = a.locks().try_lock("x").await.unwrap();
        let mut first = Box::pin(b.locks().lock("x").wait(WAIT_MAX).into_future());
        let mut second = Box::pin(b.locks().lock("x").wait(WAIT_MAX).into_future());
        for waiter in [&mut first, &mut second] {
            assert!(tokio::time::timeout(Duration::from_millis(2), waiter).await.is_err());
        }
        let releasing = tokio::spawn(lease.release());
        drop(first);
        let lease = in_time("the second gets it", second).await.unwrap();
        releasing.await.unwrap().unwrap();
        drop(lease);
        free(&a, "x").await;
    }
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Lease, LockError>> + Send + 'a>>;

fn waiter(node: &SessionManager) -> Waiting<'_> {
    let mut waiting = node.locks().lock("x").wait(WAIT_MAX).into_future();
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    waiting
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_waiters_share_one_poller_one_more_is_refused() {
    const LOCKS_MAX: usize = 10_000;
    let world = World::new();
    let [a, b] = world.nodes().await;
    let client = world.client().await;
    let lease = a.locks().try_lock("x").await.unwrap();
    let fence = lease.fence();
    let before = row_lock(&client).await;
    let mut waiters = vec![waiter(&b)];
    eventually("the first has asked", async || row_lock(&client).await != before).await;
    waiters.extend((1..LOCKS_MAX).map(|_| waiter(&b)));
    match b.locks().try_lock("y").await {
        Err(LockError::Failed(error)) => assert_eq!(error.kind(), ErrorKind::Overloaded),
        other => panic!("there is no room: {other:?}"),
    }
    let first = waiters.remove(0);
    lease.release().await.unwrap();
    // It has the turn; the others have not asked the database at all.
    let lease = in_time("the first gets it", first).await.unwrap();
    assert!(lease.fence() > fence);
    drop(waiters);
    lease.release().await.unwrap();
    eventually("their places are free", async || b.locks().try_lock("y").await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnected_node_gets_the_lock_by_polling() {
    let world = World::new();
    let wire = world.proxy().await;
    let [holder] = world.nodes().await;
    let disconnected = world.node_listening_through(&wire, world.roomy()).await;
    let lease = holder.locks().try_lock("x").await.unwrap();
    let waiting = disconnected.clone();
    let waiter = tokio::spawn(async move { waiting.locks().lock("x").wait(WAIT_MAX).await });
    wire.refuse();
    wire.cut();
    eventually("the node has lost its listener", async || disconnected.status().trusted_for.is_none()).await;
    lease.release().await.unwrap();
    let lease = in_time("the waiter looks", waiter).await.unwrap().unwrap();
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn release_missed_while_disconnected_wakes_on_reconnect() {
    let world = World::new();
    let wire = world.proxy().await;
    let [holder] = world.nodes().await;
    let node = world.node_listening_through(&wire, world.roomy()).await;
    let lease = holder.locks().try_lock("x").await.unwrap();
    let waiting = node.clone();
    let waiter = tokio::spawn(async move { waiting.locks().lock("x").wait(WAIT_MAX).await });
    // The release is notified and never arrives, and the node does not know.
    wire.drop_direction(Direction::ToClient);
    lease.release().await.unwrap();
    // Cuts the connection, which lost something; the node listens anew.
    wire.heal();
    let began = Instant::now();
    in_time("the waiter is woken", waiter).await.unwrap().unwrap().release().await.unwrap();
    assert!(began.elapsed() < WOKEN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_releases_make_a_waiter_look_and_nothing_else() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let client = world.client().await;
    let forge = async || {
        let forgery = "SELECT pg_notify(
            'pg_session_' || left(encode(sha256(convert_to($1, 'UTF8') || '\\x00'::bytea), 'hex'), 16),
            '1l' || left(encode(sha256('pg-session/lock/1'::bytea || '\\x00'::bytea || decode(repeat('00', 16), 'hex')
                                       || 'x'::bytea), 'hex'), 32))";
        client.execute(forgery, &[&world.schema]).await.unwrap();
    };
    let lease = a.locks().try_lock("x").await.unwrap();
    let before = row_lock(&client).await;
    let waiting = b.clone();
    let waiter = tokio::spawn(async move { waiting.locks().lock("x").wait(WAIT_MAX).await });
    eventually("the waiter has asked", async || row_lock(&client).await != before).await;
    for _ in 0..100 {
        forge().await;
    }
    b.catch_up().await.unwrap();
    assert!(lease.is_held() && !waiter.is_finished());
    // Freed without a word: only the forgery tells the waiter.
    client.batch_execute("UPDATE session_locks SET owner = NULL").await.unwrap();
    forge().await;
    let began = Instant::now();
    in_time("the waiter looks", waiter).await.unwrap().unwrap().release().await.unwrap();
    assert!(began.elapsed() < WOKEN);
    assert!(matches!(lease.release().await, Err(LockError::NotHeld)));
}
