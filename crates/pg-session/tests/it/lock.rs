//! Locks: who gets one, who may release it, what belongs to a session, and what is refused.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pg_session::{ErrorKind, Lease, LockError, Loss, SessionId, SessionManager, UserId};
use uuid::Uuid;

use crate::fixtures::in_time;
use crate::support::{World, eventually};

/// Long enough for a busy machine to renew it in time.
const LEASE: Duration = Duration::from_millis(1_500);
const MINUTE: Duration = Duration::from_secs(60);

/// Asserts that another holder has it.
#[track_caller]
pub fn assert_held(outcome: Result<Lease, LockError>) -> SystemTime {
    match outcome {
        Err(LockError::Held { until }) => until,
        other => panic!("should be held: {other:?}"),
    }
}

/// Waits until the lock is free.
pub async fn free(node: &SessionManager, name: &str) {
    eventually("the lock is free", async || node.locks().holder(name).await.unwrap().is_none()).await;
}

fn kind(outcome: Result<Lease, LockError>) -> ErrorKind {
    match outcome {
        Err(LockError::Failed(error)) => error.kind(),
        other => panic!("should have failed: {other:?}"),
    }
}

#[tokio::test]
async fn held_locks_of_all_nodes_are_listed() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    assert_eq!(b.locks().held().await.unwrap(), []);
    let session = a.create(UserId::from(1)).await.unwrap().id();
    let report = a.locks().try_lock("report").label("node a").await.unwrap();
    let checkout = b.locks().session_lock(session, "checkout").await.unwrap();
    let free = b.locks().try_lock("free").await.unwrap();
    free.release().await.unwrap();
    let held = a.locks().held().await.unwrap();
    let found: Vec<_> = held
        .iter()
        .map(|lock| (lock.session, lock.name.as_str(), lock.holder.label.as_deref(), lock.holder.fence))
        .collect();
    assert_eq!(
        found,
        [
            (None, "report", Some("node a"), report.fence()),
            (Some(session), "checkout", None, checkout.fence())
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_has_one_holder_whom_every_node_can_see() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    assert_eq!(a.locks().holder("report").await.unwrap(), None);
    let lease = a.locks().try_lock("report").label("node a").await.unwrap();
    assert!(lease.is_held());
    assert!(lease.remaining() > MINUTE / 2 && lease.remaining() < MINUTE);

    let until = assert_held(b.locks().try_lock("report").await);
    assert_held(a.locks().try_lock("report").await);
    let holder = b.locks().holder("report").await.unwrap().unwrap();
    assert_eq!(holder.label.as_deref(), Some("node a"));
    assert_eq!(holder.fence, lease.fence());
    assert_eq!(holder.until, until);
    let length = until.duration_since(holder.since).unwrap();
    assert!(length >= MINUTE && length < MINUTE + Duration::from_millis(100), "{length:?}");
    let other = b.locks().try_lock("another").await.unwrap();
    assert!(other.is_held(), "another name is another lock");

    let first = lease.fence();
    lease.release().await.unwrap();
    assert_eq!(b.locks().holder("report").await.unwrap(), None);
    let lease = b.locks().try_lock("report").await.unwrap();
    assert!(lease.fence() > first);
    drop(lease);
    free(&a, "report").await;
    a.locks().try_lock("report").await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_of_sessions_and_locks_without_one_never_meet() {
    let world = World::new();
    let [node] = world.nodes().await;
    let (ann, bob) = (node.create(1).await.unwrap(), node.create(2).await.unwrap());
    let of_ann = node.locks().session_lock(ann.id(), "checkout").await.unwrap();
    let of_bob = node.locks().session_lock(bob.id(), "checkout").await.unwrap();
    let of_all = node.locks().lock("checkout").await.unwrap();
    // Not even a name that spells the session.
    let spelled = node.locks().try_lock(&format!("{}checkout", ann.id().expose())).await.unwrap();
    assert_held(node.locks().session_lock(ann.id(), "checkout").wait(Duration::ZERO).await);
    of_ann.release().await.unwrap();
    assert!(node.locks().session_holder(ann.id(), "checkout").await.unwrap().is_none());
    assert!(node.locks().session_holder(bob.id(), "checkout").await.unwrap().is_some());
    for lease in [of_bob, of_all, spelled] {
        lease.release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_has_ended_has_no_locks() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let client = world.client().await;
    let gone = |outcome| assert!(matches!(outcome, Err(LockError::SessionGone)), "{outcome:?}");
    let session = a.create(1).await.unwrap();
    let lease = a.locks().session_lock(session.id(), "x").lease(LEASE).await.unwrap();
    a.delete(session.id()).await.unwrap();
    assert_eq!(in_time("the loss is reported", lease.lost()).await, Loss::Gone);
    assert!(matches!(lease.release().await, Err(LockError::NotHeld)));
    let left = client.query_one("SELECT count(*) FROM session_locks", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0, "its row went with it");
    gone(b.locks().session_lock(session.id(), "x").await);

    // Expired, idle for too long, never there, and the id that represents "no session" in the table.
    for change in ["expires_at = clock_timestamp()", "last_accessed_at = clock_timestamp() - interval '49 h'"]
    {
        let session = a.create(1).await.unwrap();
        let lease = a.locks().session_lock(session.id(), "x").lease(LEASE).await.unwrap();
        let change = format!("UPDATE sessions SET {change} WHERE id = $1");
        client.execute(&change, &[&session.id().expose()]).await.unwrap();
        gone(b.locks().session_lock(session.id(), "y").await);
        assert_eq!(in_time("the loss is reported", lease.lost()).await, Loss::Gone, "not renewed either");
    }
    gone(a.locks().session_lock(SessionId::from_uuid(Uuid::new_v4()), "x").await);
    gone(a.locks().session_lock(SessionId::from_uuid(Uuid::nil()), "x").await);
    assert!(a.locks().session_holder(SessionId::from_uuid(Uuid::nil()), "x").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holding_a_lock_does_not_keep_an_idle_session_alive() {
    let world = World::new();
    let [node] = world.nodes().await;
    let client = world.client().await;
    let session = node.create(1).await.unwrap();
    let accessed = async || {
        let row = client.query_one("SELECT last_accessed_at, version FROM sessions", &[]).await.unwrap();
        (row.get::<_, SystemTime>(0), row.get::<_, i64>(1))
    };
    let before = accessed().await;
    let lease = node.locks().session_lock(session.id(), "x").lease(LEASE).await.unwrap();
    renewed(&node, session.id(), 3).await;
    lease.release().await.unwrap();
    assert_eq!(accessed().await, before);
}

/// Waits until the lock `x` of the session was renewed so many times.
async fn renewed(node: &SessionManager, session: SessionId, times: usize) {
    let ends = RefCell::new(BTreeSet::new());
    eventually("it is renewed", async || {
        let holder = node.locks().session_holder(session, "x").await.unwrap();
        ends.borrow_mut().insert(holder.expect("it is held").until);
        ends.borrow().len() > times
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_names_and_durations_out_of_bounds_write_nothing() {
    let world = World::new();
    let [node] = world.nodes().await;
    for name in ["", "a\0b", &"n".repeat(256)] {
        assert_eq!(kind(node.locks().lock(name).await), ErrorKind::InvalidArgument, "{name:?}");
        assert_eq!(node.locks().holder(name).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(kind(node.locks().lock("x").label(name).await), ErrorKind::InvalidArgument, "{name:?}");
    }
    for lease in [Duration::ZERO, Duration::from_millis(99), Duration::MAX] {
        assert_eq!(kind(node.locks().lock("x").lease(lease).await), ErrorKind::InvalidArgument);
    }
    assert_eq!(kind(node.locks().lock("x").wait(Duration::MAX).await), ErrorKind::InvalidArgument);
    let rows = world.client().await.query("SELECT FROM session_locks", &[]).await.unwrap();
    assert!(rows.is_empty());

    for name in ["'; DROP TABLE sessions; --", "nächtlich", &"n".repeat(255)] {
        let lease = node.locks().try_lock(name).label(name).await.unwrap();
        assert!(matches!(lease.extend(Duration::ZERO).await, Err(LockError::Failed(_))));
        assert!(lease.is_held(), "a refused extension changes nothing");
        lease.release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_its_holder_releases_a_lock() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let client = world.client().await;
    let overtaken = a.locks().try_lock("x").await.unwrap();
    client.batch_execute("UPDATE session_locks SET expires_at = clock_timestamp()").await.unwrap();
    let lease = b.locks().try_lock("x").await.unwrap();
    assert!(lease.fence() > overtaken.fence());
    assert!(matches!(overtaken.release().await, Err(LockError::NotHeld)), "it is another's now");
    assert!(lease.is_held());
    assert_eq!(a.locks().holder("x").await.unwrap().unwrap().fence, lease.fence());
    lease.extend(MINUTE).await.unwrap();
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releasing_after_the_end_of_the_lease_says_so() {
    let world = World::new();
    let [node] = world.nodes().await;
    let lease = node.locks().try_lock("x").await.unwrap();
    let expire = "UPDATE session_locks SET expires_at = clock_timestamp()";
    world.client().await.batch_execute(expire).await.unwrap();
    assert!(matches!(lease.release().await, Err(LockError::Expired)));
    node.locks().try_lock("x").await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_extended_and_never_shortened() {
    let world = World::new();
    let [node] = world.nodes().await;
    let until = async || node.locks().holder("x").await.unwrap().unwrap().until;
    let lease = node.locks().try_lock("x").await.unwrap();
    let short = until().await;
    lease.extend(MINUTE * 10).await.unwrap();
    assert!(lease.remaining() > MINUTE * 9);
    let long = until().await;
    assert!(long > short + MINUTE * 8);
    lease.extend(MINUTE).await.unwrap();
    assert!(lease.remaining() > MINUTE * 9);
    assert_eq!(until().await, long);
    lease.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_an_hour_off_changes_nothing() {
    let world = World::new();
    let clock = Arc::new(AtomicU64::new(3_600_000_000_000));
    let ahead = SessionManager::builder(world.config()).url(&world.url).unwrap();
    let ahead = ahead.manual_clock(Arc::clone(&clock)).connect().await.unwrap();
    let [node] = world.nodes().await;
    let lease = ahead.locks().try_lock("x").await.unwrap();
    assert_held(node.locks().try_lock("x").await);
    lease.release().await.unwrap();
    let lease = node.locks().try_lock("x").await.unwrap();
    assert_held(ahead.locks().try_lock("x").await);
    lease.release().await.unwrap();

    // A holder whose own clock has passed the end has lost the lease, whatever its keeper has noticed.
    let lease = ahead.locks().try_lock("x").await.unwrap();
    clock.fetch_add(59_400_000_000 - 1, Ordering::SeqCst);
    assert!(lease.is_held());
    clock.fetch_add(1, Ordering::SeqCst);
    assert!(!lease.is_held());
    assert_eq!(in_time("the loss is reported", lease.lost()).await, Loss::Expired);
    clock.fetch_sub(1, Ordering::SeqCst);
    assert!(!lease.is_held(), "lost is lost");
    assert!(matches!(lease.extend(MINUTE).await, Err(LockError::Expired)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_tells_the_holders_and_waits_for_them() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let lease = a.locks().try_lock("x").await.unwrap();
    let idle = a.locks().try_lock("y").await.unwrap();
    let fence = lease.fence();
    let holder = tokio::spawn(async move {
        let loss = lease.lost().await;
        assert!(matches!(lease.extend(MINUTE).await, Err(LockError::Failed(_))), "no more renewals");
        lease.release().await.unwrap();
        loss
    });
    let report = a.shutdown(Duration::from_millis(500)).await;
    assert_eq!(in_time("the holder ends", holder).await.unwrap(), Loss::Shutdown);
    assert_eq!(report.locks_left, 1, "the guard of y is still there");
    assert!(!report.is_complete());
    assert!(!idle.is_held());
    assert!(b.locks().try_lock("x").await.unwrap().fence() > fence, "what was released is free at once");
    assert_held(b.locks().try_lock("y").await);
    assert_eq!(kind(a.locks().try_lock("x").await), ErrorKind::ShuttingDown);
    assert!(b.shutdown(Duration::from_secs(10)).await.is_complete());
}
