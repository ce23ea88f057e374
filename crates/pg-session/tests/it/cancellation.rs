//! Futures that are dropped right after their first poll: what was submitted happens all the same, and the node does
//! not go on serving what was before.

use std::future::IntoFuture;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::support::{World, eventually};
use crate::tables::{counts, stored, stored_version};

/// Polls once, and drops. The write was submitted, and no caller will learn its outcome.
fn poll_once<F: IntoFuture>(future: F) {
    let mut future = pin!(future.into_future());
    // Ready only if this thread was paused for a whole round trip, or if the write was refused: then it never happens.
    let _: Poll<F::Output> = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_happens_although_its_caller_is_gone() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    let mut session = node.create(1).set("x", &1).await.unwrap();
    let id = session.id();
    session.set("x", &2).unwrap();
    poll_once(node.save(&mut session));
    eventually("it is committed", async || stored_version(&observer, id).await == Some(2)).await;
    assert_eq!(stored(&observer, id).await["x"].text, "2");
    eventually("this node serves it", async || {
        node.get(id).await.unwrap().unwrap().get::<i32>("x").unwrap() == Some(2)
    })
    .await;
    assert!(session.is_modified(), "the handle shows neither outcome");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_happens_although_its_caller_is_gone() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    poll_once(node.create(1).set("x", &1));
    eventually("it is committed", async || counts(&observer).await == (1, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_delete_happens_although_its_caller_is_gone() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    for way in 0..5 {
        let session = node.create(1).group(2).set("x", &1).await.unwrap();
        let id = session.id();
        assert!(node.get(id).await.unwrap().unwrap().is_from_cache());
        match way {
            0 => poll_once(Box::pin(node.delete(id))),
            1 => poll_once(Box::pin(node.delete_many([id]))),
            2 => poll_once(Box::pin(node.user(1).delete())),
            3 => poll_once(Box::pin(node.group(2).delete())),
            _ => poll_once(Box::pin(node.delete_all_sessions())),
        }
        eventually("it is committed", async || counts(&observer).await == (0, 0)).await;
        eventually("this node serves it no more", async || node.get(id).await.unwrap().is_none()).await;
        // Or its notification would drop the next turn's session.
        node.catch_up().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_happens_although_its_caller_is_gone() {
    let world = World::new();
    let (node, other) = (world.node().await, world.node().await);
    let id = node.create(1).await.unwrap().id();
    other.get(id).await.unwrap().unwrap();
    poll_once(Box::pin(node.user(1).evict()));
    for node in [&node, &other] {
        eventually("it is dropped from memory", async || node.status().cache.sessions == 0).await;
    }
    poll_once(Box::pin(node.evict_all()));
    assert!(node.get(id).await.unwrap().is_some(), "the database keeps it");
}
