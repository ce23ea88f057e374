//! The cleaner: it deletes what has expired, skips rows in use and leaves the work to another cleaner.

use std::time::Duration;

use pg_session::{IdleLimit, UserId};

use crate::support::{World, eventually};

/// Makes the sessions' last access, or end, lie in the past, as only time could.
async fn age(world: &World, column: &str, users: &[i64]) {
    let users: Vec<uuid::Uuid> = users.iter().map(|&user| UserId::from(user).as_uuid()).collect();
    let statement =
        format!("UPDATE sessions SET {column} = {column} - interval '365 days' WHERE user_id = ANY ($1)");
    world.client().await.execute(&statement, &[&users]).await.unwrap();
}

async fn count(world: &World, table: &str) -> i64 {
    world.client().await.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleanup_deletes_expired_and_idle_sessions_only() {
    let world = World::new();
    let mut config = world.config();
    config.cleanup_batch_max = 3; // several statements each
    config.sessions_per_user_max = 0;
    let node = world.node_with(config).await;
    for user in [1, 2, 3] {
        for _ in 0..10 {
            let create = node.create(user).set("a", "x");
            create.set("page", &"x".repeat(600)).await.unwrap();
        }
    }
    node.create(2).idle_limit(IdleLimit::Exempt).await.unwrap();
    let with_offer = node
        .create(4)
        .set_until("offer", &"20 %".repeat(200), std::time::SystemTime::UNIX_EPOCH)
        .set("name", "Ann")
        .await
        .unwrap();
    assert_eq!(with_offer.keys(), ["name"], "expired before it began");
    age(&world, "expires_at", &[1]).await;
    age(&world, "last_accessed_at", &[2]).await;

    let done = node.cleanup().await.unwrap();
    assert_eq!(
        (done.expired, done.idle, done.attributes, done.left_to_another),
        (10, 10, 1, false),
        "{done:?}"
    );
    assert_eq!(count(&world, "sessions").await, 12, "user 3, the exempt one, the one with the offer");
    assert_eq!(count(&world, "session_attributes").await, 10, "those of deleted sessions went with them");
    assert_eq!(node.user(3).list().await.unwrap().len(), 10);
    let again = node.cleanup().await.unwrap();
    assert_eq!((again.expired, again.idle, again.attributes), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleanup_leaves_work_to_running_cleaner() {
    let world = World::new();
    let node = world.node().await;
    node.create(1).await.unwrap();
    age(&world, "expires_at", &[1]).await;
    let mut client = world.client().await;
    let channel: String = client
        .query_one("SELECT 'pg_session_' || left(encode(sha256(convert_to($1, 'UTF8') || '\\x00'::bytea), 'hex'), 16)", &[&world.schema])
        .await
        .unwrap()
        .get(0);
    let other = client.transaction().await.unwrap();
    let lock = format!("SELECT pg_advisory_xact_lock(hashtextextended('{channel}/clean', 0))");
    other.batch_execute(&lock).await.unwrap();
    let done = node.cleanup().await.unwrap();
    assert!(done.left_to_another && done.expired == 0, "{done:?}");
    other.rollback().await.unwrap();
    assert_eq!(node.cleanup().await.unwrap().expired, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleanup_runs_periodically_and_skips_locked_rows() {
    let world = World::new();
    let node = world.node().await;
    let held = node.create(1).await.unwrap();
    node.create(2).await.unwrap();
    age(&world, "expires_at", &[1, 2]).await;
    let mut client = world.client().await;
    let holder = client.transaction().await.unwrap();
    holder.execute("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", &[&held.id().expose()]).await.unwrap();
    let mut config = world.config();
    config.cleanup_interval = Duration::from_millis(20);
    let cleaner = world.node_with(config).await;
    eventually("the other row is gone while one is held", || async { count(&world, "sessions").await == 1 })
        .await;
    holder.rollback().await.unwrap();
    eventually("and then the held one", || async { count(&world, "sessions").await == 0 }).await;
    drop(cleaner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleaned_up_session_leaves_every_memory() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let session = a.create(1).await.unwrap();
    b.get(session.id()).await.unwrap().unwrap();
    assert_eq!(b.status().cache.sessions, 1);
    age(&world, "expires_at", &[1]).await;
    assert_eq!(a.cleanup().await.unwrap().expired, 1);
    b.catch_up().await.unwrap();
    assert_eq!(b.status().cache.sessions, 0);
    assert!(b.get(session.id()).await.unwrap().is_none());
}
