//! A row that another client has locked delays the lock that needs it, and nothing else.
//!
//! ```text
//! client    BEGIN; SELECT ... FROM session_locks ... FOR UPDATE
//! node      requests for this lock wait, without a connection
//! node      other requests end meanwhile
//! client    COMMIT
//! node      the requests that waited end
//! ```

use std::time::Duration;

use pg_session::{ErrorKind, Lease, LockError, SessionManager};

use crate::fixtures::{in_time, make, read};
use crate::lock::assert_held;
use crate::row_locks::{Task, config, finish, finish_behind, promptly};
use crate::support::{WAIT_MAX, World, eventually};
use crate::tables::Holder;

/// More than the pool has connections.
const CALLERS: usize = 8;

const LOCK_ROWS: &str = "SELECT FROM session_locks FOR UPDATE";

fn spawn_try_locks(node: &SessionManager, name: &str) -> Vec<Task<Result<Lease, LockError>>> {
    let call = |_| {
        let (node, name) = (node.clone(), name.to_owned());
        tokio::spawn(async move { node.locks().try_lock(&name).await })
    };
    (0..CALLERS).map(call).collect()
}

/// Waits until the node works on so many requests for locks.
async fn asked(node: &SessionManager, count: usize) {
    eventually("the locks are asked for", async || node.status().locks == count).await;
}

/// A read from the database, a write of each kind, and another lock.
async fn others_go_on(node: &SessionManager, user: i64) {
    let mut session = promptly("a create", node.create(user)).await.unwrap();
    session.set("n", &2).unwrap();
    promptly("an update", node.save(&mut session)).await.unwrap();
    promptly("a read", node.get(session.id()).bypass_cache()).await.unwrap().unwrap();
    let name = format!("other {user}");
    let lease = promptly("another lock", node.locks().try_lock(&name)).await.unwrap();
    promptly("its release", lease.release()).await.unwrap();
    assert!(promptly("a logout", node.delete(session.id())).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_lock_row_delays_no_other_request() {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    node.locks().try_lock("x").await.unwrap().release().await.unwrap();
    let holder = Holder::begin(&world, LOCK_ROWS).await;
    let waiting = spawn_try_locks(&node, "x");
    asked(&node, CALLERS).await;
    for user in 0..5 {
        others_go_on(&node, user).await;
    }
    let outcomes = finish_behind(holder, waiting).await;
    let (taken, held): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(taken.len(), 1, "one of them has it");
    held.into_iter().for_each(|outcome| _ = assert_held(outcome));
}

/// As many locks as the pool has connections, and more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_locked_lock_rows_delay_no_other_request() {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    let names: Vec<String> = (0..CALLERS).map(|n| format!("x{n}")).collect();
    for name in &names {
        node.locks().try_lock(name).await.unwrap().release().await.unwrap();
    }
    let holder = Holder::begin(&world, LOCK_ROWS).await;
    let waiting: Vec<_> = names.iter().flat_map(|name| spawn_try_locks(&node, name)).collect();
    asked(&node, CALLERS * CALLERS).await;
    for user in 0..5 {
        others_go_on(&node, user).await;
    }
    let taken = finish_behind(holder, waiting).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(taken, CALLERS, "each has one holder");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_row_delays_only_its_renewal_and_release() {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    let (extended, released) = (node.locks().try_lock("x").await, node.locks().try_lock("y").await);
    let (extended, released) = (extended.unwrap(), released.unwrap());
    let holder = Holder::begin(&world, LOCK_ROWS).await;
    let waiting = vec![
        tokio::spawn(async move { extended.extend(Duration::from_secs(300)).await.map(|()| Some(extended)) }),
        tokio::spawn(async move { released.release().await.map(|()| None) }),
    ];
    for user in 0..5 {
        others_go_on(&node, user).await;
    }
    let mut leases = finish_behind(holder, waiting).await.into_iter().map(Result::unwrap);
    let extended = leases.next().flatten().unwrap();
    assert!(extended.is_held() && extended.remaining() > Duration::from_secs(200));
    assert!(node.locks().holder("y").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_session_delays_only_its_own_locks() {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    let sessions = make(&node, 2).await;
    let [locked, other] = [sessions[0].id(), sessions[1].id()];
    let holder = Holder::hold(&world, &[locked]).await;
    let waiting: Vec<_> = (0..CALLERS)
        .map(|n| {
            let (node, name) = (node.clone(), format!("x{n}"));
            tokio::spawn(async move { node.locks().session_lock(locked, &name).await })
        })
        .collect();
    asked(&node, CALLERS).await;
    let lease = promptly("a lock of another session", node.locks().session_lock(other, "x")).await.unwrap();
    promptly("its release", lease.release()).await.unwrap();
    others_go_on(&node, 7).await;
    assert!(finish_behind(holder, waiting).await.into_iter().all(|lease| lease.is_ok()));
}

/// Each of them finds the row locked by another one at times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contention_for_a_lock_is_no_error() {
    let world = World::new();
    let mut config = config(&world);
    config.row_lock_wait = Duration::from_millis(1);
    let nodes = [world.node_with(config.clone()).await, world.node_with(config).await];
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let node = nodes[task % 2].clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    match node.locks().try_lock("x").await {
                        Ok(lease) => lease.release().await.unwrap(),
                        outcome => _ = assert_held(outcome),
                    }
                    let lease = node.locks().lock("x").wait(WAIT_MAX).await.unwrap();
                    lease.extend(Duration::from_secs(90)).await.unwrap();
                    lease.release().await.unwrap();
                }
            })
        })
        .collect();
    finish(tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_row_locked_for_too_long_is_contention() {
    let world = World::new();
    let mut config = config(&world);
    config.query_timeout = Duration::from_millis(300);
    let node = world.node_with(config).await;
    let observer = world.client().await;
    node.locks().try_lock("x").await.unwrap().release().await.unwrap();
    let holder = Holder::begin(&world, LOCK_ROWS).await;
    for outcome in finish(spawn_try_locks(&node, "x")).await {
        let Err(LockError::Failed(error)) = outcome else { panic!("the row is locked: {outcome:?}") };
        assert_eq!(error.kind(), ErrorKind::Contention, "{error}");
        assert!(error.to_string().contains("pg_blocking_pids"), "{error}");
    }
    assert!(!holder.has_waiter(&observer).await, "no statement is left on the server");
    holder.commit().await;
    let lease = in_time("the row is free", node.locks().lock("x")).await.unwrap();
    let session = make(&node, 1).await.remove(0);
    read(&node, session.id()).await;
    drop(lease);
}
