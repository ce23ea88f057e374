//! Losing a lock: taken by force, cut off from the database, answers that never come; and what keeps it through all that.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use pg_sandbox::{Direction, Proxy, Sandbox};
use pg_session::{ErrorKind, Lease, LockError, Loss, SessionManager};
use tokio::time::Instant;

use crate::fixtures::in_time;
use crate::lock::{assert_held, free};
use crate::support::{WAIT_MAX, World, eventually};

/// Long enough for a busy machine to renew it in time.
const LEASE: Duration = Duration::from_secs(3);
/// What a busy machine may be late.
const SLACK: Duration = Duration::from_millis(800);

/// A node all of whose connections go through the wire.
async fn behind(wire: &Proxy, world: &World) -> SessionManager {
    let far = World { url: wire.url_for(&world.url), schema: world.schema.clone() };
    let mut config = far.config();
    config.query_timeout = Duration::from_millis(500);
    // The next statement goes over the connection on which the last one was prepared, or over a new one.
    config.pool_connections_max = 1;
    // Proofs of the listener's connection use the pool, too; the next one comes after these tests.
    config.trust_window = Duration::from_secs(600);
    far.node_with(config).await
}

/// A node beside the server, and one behind a wire.
async fn near_and_far(world: &World) -> (SessionManager, Proxy, SessionManager) {
    let wire = world.proxy().await;
    let [near] = world.nodes().await;
    let far = behind(&wire, world).await;
    (near, wire, far)
}

fn assert_unknown<T: std::fmt::Debug>(outcome: Result<T, LockError>) {
    match outcome {
        Err(LockError::Failed(error)) => assert_eq!(error.kind(), ErrorKind::OutcomeUnknown),
        other => panic!("the outcome is unknown: {other:?}"),
    }
}

/// Asserts that the lock becomes free long before its lease ends.
async fn assert_released(seen_from: &SessionManager) {
    let began = Instant::now();
    free(seen_from, "x").await;
    assert!(began.elapsed() < Duration::from_secs(20), "given back, not expired");
}

/// Waits until the lock was renewed so many times, as another node sees it.
async fn renewed(seen_from: &SessionManager, name: &str, times: usize) {
    let ends = RefCell::new(BTreeSet::new());
    eventually("it is renewed", async || {
        let holder = seen_from.locks().holder(name).await.unwrap();
        ends.borrow_mut().extend(holder.map(|holder| holder.until));
        ends.borrow().len() > times
    })
    .await;
}

/// Asserts that the loss is reported when the lease ends, not later, with the lease of its last renewal; and not before what was `left` of it when it was cut off.
async fn assert_expires(lease: &Lease, cut_at: Instant, left: Duration) {
    assert_eq!(in_time("the loss is reported", lease.lost()).await, Loss::Expired);
    let after = cut_at.elapsed();
    assert!(!lease.is_held() && lease.remaining().is_zero());
    assert!(after <= LEASE + SLACK, "{after:?}");
    assert!(after >= left, "reported after {after:?}, when {left:?} had been left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_keep_a_short_lease_for_as_long_as_it_takes() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let lease_time = LEASE * 2;
    let lease = a.locks().try_lock("x").lease(lease_time).await.unwrap();
    let began = Instant::now();
    renewed(&b, "x", 4).await;
    assert!(began.elapsed() > lease_time, "longer than it was taken for");
    assert!(lease.is_held());
    assert_held(b.locks().try_lock("x").await);
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_taken_by_force_is_reported_with_the_next_renewal() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let lease = a.locks().try_lock("x").lease(LEASE).await.unwrap();
    renewed(&b, "x", 1).await;
    let client = world.client().await;
    let thief = "UPDATE session_locks SET owner = gen_random_uuid(), fence = fence + 1";
    client.batch_execute(thief).await.unwrap();
    let stolen = Instant::now();
    assert_eq!(in_time("the loss is reported", lease.lost()).await, Loss::Gone);
    let after = stolen.elapsed();
    assert!(after < LEASE / 3 + SLACK, "a third of the lease: {after:?}");
    assert_eq!(in_time("at once, the second time", lease.lost()).await, Loss::Gone);
    assert!(matches!(lease.extend(LEASE).await, Err(LockError::NotHeld)));
    assert!(matches!(lease.release().await, Err(LockError::NotHeld)));
    assert_held(b.locks().try_lock("x").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_renewals_that_never_come_end_the_lease_in_time() {
    let (near, wire, far) = near_and_far(&World::new()).await;
    let lease = far.locks().try_lock("x").lease(LEASE).await.unwrap();
    renewed(&near, "x", 2).await;
    // The renewals arrive, and are made: the database believes in a holder who must not.
    let (cut_at, left) = (Instant::now(), lease.remaining());
    assert!(!left.is_zero(), "it is held when it is cut off");
    wire.drop_direction(Direction::ToClient);
    assert_expires(&lease, cut_at, left).await;
    assert!(matches!(lease.release().await, Err(LockError::Expired)));
    let next = in_time("it ends in the database, too", near.locks().lock("x").wait(WAIT_MAX)).await.unwrap();
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lost_answer_does_not_end_the_lease() {
    let (near, wire, far) = near_and_far(&World::new()).await;
    let lease = far.locks().try_lock("x").lease(LEASE * 4).await.unwrap();
    let fence = lease.fence();
    // The first renewal prepares the statement and is answered: after that, only an answer to a renewal can get lost.
    eventually("it is renewed once", async || lease.remaining() < LEASE * 3).await;
    eventually("it is renewed once", async || lease.remaining() > LEASE * 3).await;
    wire.drop_direction(Direction::ToClient);
    // The renewal after a third of the lease is made, and is not answered.
    renewed(&near, "x", 1).await;
    wire.heal();
    // Soon after the failure, long before a third of the lease has passed again.
    renewed(&near, "x", 1).await;
    assert!(lease.is_held());
    assert_eq!(near.locks().holder("x").await.unwrap().unwrap().fence, fence);
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_ends_the_lease_in_time() {
    let sandbox = Sandbox::builder().start().unwrap();
    let world = World::on(&sandbox);
    let [a, b] = world.nodes().await;
    let lease = a.locks().try_lock("x").lease(LEASE).await.unwrap();
    renewed(&b, "x", 2).await;
    let (cut_at, left) = (Instant::now(), lease.remaining());
    assert!(!left.is_zero(), "it is held when it is cut off");
    sandbox.pause().unwrap();
    assert_expires(&lease, cut_at, left).await;
    sandbox.resume().unwrap();
    assert!(matches!(lease.release().await, Err(LockError::Expired)));
    in_time("another node gets it", b.locks().lock("x").wait(WAIT_MAX))
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_survives_lost_connections_and_short_restart() {
    let sandbox = Sandbox::builder().start().unwrap();
    let world = World::on(&sandbox);
    let [a, b] = world.nodes().await;
    let lease = a.locks().try_lock("x").await.unwrap();
    let fence = lease.fence();
    let client = world.client().await;
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.batch_execute(terminate).await.unwrap();
    // The pool notices by an error of its own; the extension after that goes through.
    eventually("it is extended", async || lease.extend(Duration::from_secs(120)).await.is_ok()).await;
    sandbox.kill().unwrap();
    assert!(matches!(lease.extend(Duration::from_secs(120)).await, Err(LockError::Failed(_))));
    sandbox.start_again().unwrap();
    eventually("it is extended", async || lease.extend(Duration::from_secs(180)).await.is_ok()).await;
    assert!(lease.is_held());
    eventually("b is connected again", async || b.locks().holder("x").await.is_ok()).await;
    assert_eq!(b.locks().holder("x").await.unwrap().unwrap().fence, fence, "no other caller ever got it");
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unanswered_acquisition_fails_and_is_released() {
    let (near, wire, far) = near_and_far(&World::new()).await;
    // The pool has a connection, so that only the answer is lost.
    far.locks().try_lock("x").await.unwrap().release().await.unwrap();
    wire.drop_direction(Direction::ToClient);
    assert_unknown(in_time("it gives up", far.locks().try_lock("x")).await);
    // It was taken, for a minute, by a client that does not know.
    assert_held(near.locks().try_lock("x").await);
    wire.heal();
    assert_released(&near).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiter_with_lost_answer_gets_the_lock_it_took() {
    let (near, wire, far) = near_and_far(&World::new()).await;
    far.locks().try_lock("x").await.unwrap().release().await.unwrap();
    wire.drop_direction(Direction::ToClient);
    let waiting = far.clone();
    let waiter = tokio::spawn(async move { waiting.locks().lock("x").wait(WAIT_MAX).await });
    eventually("it is taken", async || near.locks().holder("x").await.unwrap().is_some()).await;
    let taken = near.locks().holder("x").await.unwrap().unwrap();
    wire.heal();
    let lease = in_time("the waiter learns of it", waiter).await.unwrap().unwrap();
    assert_eq!(lease.fence(), taken.fence, "the same acquisition, not another");
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unanswered_release_fails_and_continues_in_background() {
    let (near, wire, far) = near_and_far(&World::new()).await;
    let lease = far.locks().try_lock("x").await.unwrap();
    // Not even the request arrives.
    wire.stall();
    assert_unknown(in_time("it gives up", lease.release()).await);
    assert_held(near.locks().try_lock("x").await);
    wire.heal();
    assert_released(&near).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquisition_whose_caller_is_gone_is_given_back() {
    let (near, wire, far) = near_and_far(&World::new()).await;
    far.locks().try_lock("x").await.unwrap().release().await.unwrap();
    wire.stall();
    let mut taking = Box::pin(far.locks().try_lock("x").into_future());
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut taking).await.is_err());
    drop(taking);
    wire.heal();
    // It may arrive or not. In both cases no client keeps the lock.
    in_time("it is free", async {
        near.locks().lock("x").wait(WAIT_MAX).await.unwrap().release().await.unwrap();
    })
    .await;
    assert!(far.shutdown(Duration::from_secs(10)).await.is_complete());
}
