//! The end of a node: ordered by `shutdown`, or by dropping the last handle.

use std::time::Duration;

use pg_session::{Error, ErrorKind, SessionManager, UpdateError};

use crate::support::{World, eventually};
use crate::tables::{Holder, counts, stored};

const DEADLINE: Duration = Duration::from_secs(10);

fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_commits_what_is_queued_and_refuses_what_is_new() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    let mut session = node.create(1).set("x", &1).await.unwrap();
    let id = session.id();

    // One update is in flight, one waits behind it, and then the end is ordered.
    let holder = Holder::hold(&world, &[id]).await;
    let mut updates = Vec::new();
    for key in ["first", "second"] {
        let (node, mut session) = (node.clone(), session.clone());
        session.set(key, &1).unwrap();
        updates.push(tokio::spawn(async move { node.save(&mut session).await }));
    }
    holder.blocks(&observer).await;
    eventually("one waits", async || node.status().writes.waiting == 1).await;
    let ends: Vec<_> = (0..2)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move { node.shutdown(DEADLINE).await })
        })
        .collect();
    eventually(
        "new work is refused",
        async || matches!(node.evict_all().await, Err(error) if error.kind() == ErrorKind::ShuttingDown),
    )
    .await;
    session.set("late", &1).unwrap();
    match node.save(&mut session).await {
        Err(UpdateError::Failed(error)) => assert_eq!(error.kind(), ErrorKind::ShuttingDown),
        other => panic!("{other:?}"),
    }
    assert_refused(node.create(2).await);
    assert_refused(node.delete(id).await);
    assert_refused(node.delete_many([id]).await);
    assert_refused(node.user(1).delete().await);
    holder.commit().await;

    for update in updates {
        update.await.unwrap().expect("what was queued is committed");
    }
    for end in ends {
        assert!(end.await.unwrap().is_complete());
    }
    assert!(node.shutdown(DEADLINE).await.is_complete(), "once more, and nothing happens");
    assert_eq!(stored(&observer, id).await.keys().collect::<Vec<_>>(), ["first", "second", "x"]);
    assert_refused(node.get(id).bypass_cache().await);
    assert_eq!(counts(&observer).await, (1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_says_what_it_had_to_leave_behind() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    let session = node.create(1).await.unwrap();
    let holder = Holder::hold(&world, &[session.id()]).await;
    let updates: Vec<_> = ["first", "second", "third"]
        .map(|key| {
            let (node, mut session) = (node.clone(), session.clone());
            session.set(key, &1).unwrap();
            tokio::spawn(async move { node.save(&mut session).await })
        })
        .into();
    holder.blocks(&observer).await;
    eventually("the others wait", async || node.status().writes.waiting == 2).await;
    let report = node.shutdown(Duration::from_millis(50)).await;
    assert!(!report.is_complete() && !report.all_tasks_ended, "{report:?}");
    holder.commit().await;
    assert!(node.shutdown(DEADLINE).await.is_complete(), "given time, it ends");
    for update in updates {
        // The pool closes with the first deadline: what had not left by then is refused, and nothing is lost unsaid.
        match update.await.unwrap() {
            Ok(()) => {}
            Err(UpdateError::Failed(error)) => assert_eq!(error.kind(), ErrorKind::ShuttingDown),
            Err(other) => panic!("{other:?}"),
        }
    }
}

async fn backends(world: &World, observer: &tokio_postgres::Client) -> i64 {
    let text = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    observer.query_one(text, &[&world.schema]).await.unwrap().get(0)
}

/// A node whose every connection bears the schema's name.
async fn named_node(world: &World) -> SessionManager {
    let url = format!("{}?application_name={}", world.url, world.schema);
    let node = SessionManager::connect(&url, world.config()).await.unwrap();
    node.wait_until_trusted().await.unwrap();
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_handle_ends_every_connection() {
    let world = World::new();
    let observer = world.client().await;
    let node = named_node(&world).await;
    let clone = node.clone();
    let session = node.create(1).await.unwrap();
    assert!(backends(&world, &observer).await >= 2, "a pool and a listener");
    drop(node);
    assert!(clone.get(session.id()).bypass_cache().await.unwrap().is_some(), "a clone keeps it going");
    drop(clone);
    eventually("no backend is left", async || backends(&world, &observer).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_every_connection() {
    let world = World::new();
    let observer = world.client().await;
    let node = named_node(&world).await;
    node.create(1).await.unwrap();
    assert!(node.shutdown(DEADLINE).await.is_complete());
    eventually("no backend is left", async || backends(&world, &observer).await == 0).await;
}
