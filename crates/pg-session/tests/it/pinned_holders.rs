//! What holds a pin: a stream, a task that is blocked, a socket that follows its session.

use std::future::pending;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use pg_session::{Cause, Closed, SessionManager};

use crate::fixtures::{in_time, make, read};
use crate::support::World;

/// Nodes whose trust does not end while a test waits.
async fn nodes(world: &World) -> [SessionManager; 2] {
    let config = world.roomy().with(|config| config.trust_window = Duration::from_secs(600));
    [world.node_with(config.clone()).await, world.node_with(config).await]
}

const LOGGED_OUT: Closed = Closed::Ended(Cause::Logout);

/// A: rotates three times ┊ the holders on A and B follow, also over ids that were retired meanwhile.
#[tokio::test]
async fn a_holder_follows_three_rotations_in_a_row() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    let mut session = make(&a, 1).await.remove(0);
    let pins = [a.pin(&session).await.unwrap(), b.pin(&read(&b, session.id()).await).await.unwrap()];
    for _ in 0..3 {
        a.rotate(&mut session).await.unwrap();
    }
    for (node, mut pin) in [&a, &b].into_iter().zip(pins) {
        for step in 1..=4 {
            if pin.id() == session.id() {
                break;
            }
            assert!(step < 4, "three rotations");
            assert_eq!(in_time("it ends", pin.closed()).await, Closed::Ended(Cause::Rotated));
            let successor = pin.successor().expect("the session goes on");
            pin = in_time("it is pinned", node.pin(&read(node, successor).await)).await.unwrap();
        }
        assert_eq!(pin.check(), Ok(()));
    }
}

/// handler: pins ┊ logout ┊ the client's upgrade is complete, the stream is asked for its first item.
#[tokio::test]
async fn stream_whose_session_ends_during_upgrade_delivers_nothing() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    let session = make(&a, 1).await.remove(0);
    let here = a.pin(&session).await.unwrap().guard(stream::repeat("news"));
    let there = b.pin(&session).await.unwrap().guard(stream::repeat("news"));
    assert!(a.delete(session.id()).await.unwrap());
    in_time("the other node knows", there.pin().ended()).await;
    for guarded in [here, there] {
        assert_eq!(guarded.collect::<Vec<_>>().await, [Err(LOGGED_OUT)]);
    }
}

#[tokio::test]
async fn a_sender_that_is_blocked_is_dropped_soon_after_the_end() {
    let world = World::new();
    let [a, _] = nodes(&world).await;
    let session = make(&a, 1).await.remove(0);
    let pin = a.pin(&session).await.unwrap();
    assert_eq!(pin.limit(async { "sent" }).await, Ok("sent"));
    let blocked = tokio::spawn({
        let pin = pin.clone();
        async move { pin.limit(pending::<()>()).await }
    });
    // It has time to say why.
    let mut news = pin.clone().guard(stream::pending::<()>());
    let goodbye = tokio::spawn({
        let pin = pin.clone();
        async move { pin.limit(news.next()).await }
    });
    assert!(a.delete(session.id()).await.unwrap());
    assert_eq!(in_time("it is dropped", blocked).await.unwrap(), Err(LOGGED_OUT));
    assert_eq!(in_time("it ends by itself", goodbye).await.unwrap(), Ok(Some(Err(LOGGED_OUT))));
}
