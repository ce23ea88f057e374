//! A full queue of notifications.

use pg_sandbox::Sandbox;
use pg_session::ErrorKind;

use crate::support::{World, eventually};

/// ```text
/// client   listens in an open transaction ┊ the queue is full: deletes fail ┊ the client ends: they pass
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_named_and_cleared_once_it_can_be() {
    // PostgreSQL 17 brought the setting; before it, the queue has 8 GB.
    let Ok(sandbox) = Sandbox::builder().setting("max_notify_queue_pages", "64").start() else { return };
    let world = World::on(&sandbox);
    let node = world.node().await;
    let session = node.create(1).await.unwrap();
    let client = world.client().await;
    client.batch_execute("BEGIN; LISTEN idle; COMMIT; BEGIN; SELECT 1").await.unwrap();
    let flood = world.client().await;
    while flood.batch_execute("SELECT pg_notify('flood', repeat('x', 7000))").await.is_ok() {}
    let error = node.delete(session.id()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("notification queue is full"), "{error}");
    assert!(node.create(2).await.is_ok(), "it sends no notification");
    let found = node.get(session.id()).bypass_cache().await.unwrap();
    assert!(found.is_some(), "the deletion was not made, and reads go on");
    drop(client);
    eventually("the queue is read", async || node.delete(session.id()).await.is_ok_and(|ended| ended)).await;
    assert!(node.get(session.id()).await.unwrap().is_none());
}
