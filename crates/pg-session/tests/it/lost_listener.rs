//! A node that has lost its listener keeps its row in the registry, and says since when. No one takes it for trusted, and no one
//! waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pg_sandbox::Proxy;
use pg_session::testing::Guard;
use pg_session::{NodeInfo, SessionManager};

use crate::everywhere::{LONG, SHORT, config, old_node};
use crate::fixtures::{in_time, make, read};
use crate::support::{NAP, World, eventually};

/// Long enough to see whether a caller waits for it.
const WINDOW: Duration = Duration::from_secs(2);

/// What the other node says.
async fn other(node: &SessionManager) -> NodeInfo {
    let nodes = node.nodes().await.unwrap();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    nodes.into_iter().find(|node| !node.is_this).unwrap()
}

/// ```text
/// A   removes rows that fall silent ──────────────── everywhere() returns at once ──────
/// B   listener lost ── row: lost since ── beats ── beats ────────────────── listens again
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_listener_keeps_its_row_and_says_so() {
    let world = World::new();
    let a = world.node_with(config(&world, WINDOW)).await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, config(&world, WINDOW)).await;
    let id = make(&a, 1).await[0].id();
    read(&b, id).await;
    let client = world.client().await;
    let now =
        async || -> SystemTime { client.query_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0) };
    let before = now().await;
    wire.refuse();
    wire.cut();
    let lost = "SELECT count(*) FROM session_nodes WHERE listener_lost_at IS NOT NULL";
    eventually("B says that it has no listener", async || {
        client.query_one(lost, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    assert!(b.status().trusted_for.is_none());

    let row = "SELECT node, first_beat, beat FROM session_nodes WHERE listener_lost_at IS NOT NULL";
    let row = client.query_one(row, &[]).await.unwrap();
    let (node, first, beat): (uuid::Uuid, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let beats = "SELECT first_beat, beat FROM session_nodes WHERE node = $1";
    // Four beats are a window. Without them, A removes the row.
    eventually("B beats for a window and a half", async || {
        let row = client.query_one(beats, &[&node]).await.expect("the row stays");
        assert_eq!(row.get::<_, i64>(0), first, "the row stays");
        row.get::<_, i64>(1) >= beat + 6
    })
    .await;
    assert!(b.status().trusted_for.is_none(), "its beats prove nothing");
    let nodes = a.nodes().await.unwrap();
    let found: Vec<_> = nodes.iter().filter(|node| node.listener_lost_at.is_some()).collect();
    let [found] = &found[..] else { panic!("{nodes:?}") };
    assert!(found.answered_after.is_none(), "{found:?}");
    let since = found.listener_lost_at.unwrap();
    assert!(since >= before && since <= now().await, "{since:?}, {before:?}");

    // A's row is older than a window, so it waits for nodes that are silent alone.
    let done = in_time("no one waits for B", a.delete(id).everywhere()).await.unwrap();
    assert_eq!((done.acknowledged, done.lapsed), (1, 1));
    assert!(done.took < WINDOW, "{done:?}");
    assert!(b.get(id).await.unwrap().is_none(), "it reads from the database");

    wire.heal();
    in_time("B listens again", b.wait_until_trusted()).await.unwrap();
    let nodes = a.nodes().await.unwrap();
    assert!(nodes.iter().all(|node| node.listener_lost_at.is_none()), "{nodes:?}");
    assert!(nodes.iter().all(|node| node.answered_after.is_some()), "{nodes:?}");
}

/// ```text
/// A   deletes ── everywhere() ············ returns
/// B   listener lost · the pin rests on the last proof ── row: lost
/// ```
///
/// Returns whether the pin says "alive" after `everywhere()` has returned.
async fn a_pin_outlives_everywhere(without: Option<Guard>) -> bool {
    let world = World::new();
    let a = old_node(&world).await;
    let wire: Proxy = world.proxy().await;
    let clock = Arc::new(AtomicU64::new(1));
    let builder = SessionManager::builder(config(&world, SHORT)).url(&world.url).unwrap();
    let builder = builder.listen_on_url(&wire.url_for(&world.url)).unwrap();
    let b = builder.manual_clock(Arc::clone(&clock)).connect().await.unwrap();
    in_time("the node is in sync", b.wait_until_trusted()).await.unwrap();
    if let Some(guard) = without {
        b.probes().remove(guard);
    }
    let id = make(&a, 1).await[0].id();
    let pin = in_time("the session is pinned", b.pin(&read(&b, id).await)).await.unwrap();
    wire.refuse();
    wire.cut();
    eventually("B notices the loss", async || b.status().trusted_for.is_none()).await;
    assert!(other(&a).await.listener_lost_at.is_none() || without.is_some(), "its pin is alive");
    assert!(pin.check().is_ok(), "the last proof still holds for it");
    let everywhere = tokio::spawn({
        let a = a.clone();
        async move { a.delete(id).everywhere().await }
    });
    // With the guard, B's clock goes on, and B says nothing before its window has passed.
    let step = u64::try_from(NAP.as_nanos()).unwrap();
    eventually("it ends", async || {
        clock.fetch_add(if without.is_none() { step } else { 0 }, Ordering::SeqCst);
        everywhere.is_finished()
    })
    .await;
    let outlives = pin.check().is_ok();
    let done = everywhere.await.unwrap().unwrap();
    assert_eq!((done.acknowledged, done.lapsed), (1, 1));
    assert!(done.took < LONG, "{done:?}");
    outlives
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_listener_is_shown_when_no_pin_rests_on_its_proof() {
    assert!(!a_pin_outlives_everywhere(None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_shown_too_early_a_pin_outlives_everywhere() {
    assert!(a_pin_outlives_everywhere(Some(Guard::LossAfterWindow)).await);
}
