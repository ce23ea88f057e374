//! Locks of a session that is rotated: they go with it, and exclude whom they excluded.

use std::time::Duration;

use pg_session::{LockError, Loss};

use crate::fixtures::in_time;
use crate::lock::assert_held;
use crate::support::World;
use crate::tables::Holder;

/// Long enough for a busy machine to renew it in time.
const LEASE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_locks_of_a_session_go_with_it() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut session = a.create(1).await.unwrap();
    let old = session.id();
    let lease = a.locks().session_lock(old, "checkout").lease(LEASE).await.unwrap();
    b.rotate(&mut session).await.unwrap();

    assert_held(b.locks().session_lock(session.id(), "checkout").wait(Duration::ZERO).await);
    let held = a.locks().session_holder(session.id(), "checkout").await.unwrap().expect("held");
    assert_eq!(held.fence, lease.fence());
    assert!(matches!(b.locks().session_lock(old, "checkout").await, Err(LockError::SessionGone)));
    assert!(matches!(b.locks().session_lock(old, "another").await, Err(LockError::SessionGone)));

    assert_eq!(in_time("its holder learns of the loss", lease.lost()).await, Loss::Gone);
    let next = b.locks().session_lock(session.id(), "checkout").wait(LEASE * 2).await.unwrap();
    assert!(next.fence() > lease.fence(), "I8");
    next.release().await.unwrap();
}

/// A lock is being taken, and not committed yet ┊ the session is rotated, which waits ┊ the lock is committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_acquired_during_rotation_moves_with_session() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    let mut session = a.create(1).await.unwrap();
    let id = session.id().expose();
    // As an acquisition does it.
    let taking = format!(
        "SELECT FROM sessions WHERE id = '{id}' FOR KEY SHARE;
         INSERT INTO session_locks (session_id, name, owner, fence, acquired_at, expires_at)
         VALUES ('{id}', 'checkout', gen_random_uuid(), 1, now(), now() + interval '1 hour')"
    );
    let taking = Holder::begin(&world, &taking).await;
    let rotation = tokio::spawn(async move {
        a.rotate(&mut session).await.unwrap();
        session
    });
    taking.blocks(&observer).await;
    taking.commit().await;
    let session = rotation.await.unwrap();
    assert_held(b.locks().session_lock(session.id(), "checkout").wait(Duration::ZERO).await);
}
