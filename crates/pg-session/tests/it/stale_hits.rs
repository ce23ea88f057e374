//! The observer compares hits with the database. Its count of stale ones stays 0, and rises without each guard that hits depend on.
//!
//! The controls ask the memory alone: a read that the memory does not answer would correct it. Where the story needs a trusted
//! node, its trust outlasts any delay of a busy machine. A hit then counts as stale without waiting for the equally long bound
//! ([`Guard::ObserverBound`]). `hits_of_a_node_in_sync_are_not_stale_without_the_bound` shows that this alone counts nothing.
//!
//! Without `Split`, `Fence`, `CompleteRegistry` and `Acknowledgement`, no hit is older than the trust window allows: their tests see
//! other faults. `IndexRollback` keeps the memory from growing. `Forgotten` has stories of threads (`torture/model/cache`).
//! `OwnBeat` has `ServerIdentity` and the pings of the listener behind it.

use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::testing::{Guard, Point};
use pg_session::{Config, Session, SessionId, SessionManager};
use tokio::time::Instant;

use crate::fixtures::{all, hit, ids, in_time, make, n, read, read_all, update_all};
use crate::support::{World, eventually};

/// Every hit is compared, and judged when the bound has passed.
fn observed(config: Config) -> Config {
    config.with(|config| {
        config.observed_hits_interval = 1;
        config.trust_window = Duration::from_secs(2);
    })
}

async fn observed_node(world: &World) -> SessionManager {
    world.node_with(observed(world.roomy())).await
}

/// A node that stays trusted, and whose hits are judged at once.
fn trusted_for_long(config: Config) -> Config {
    observed(config).with(|config| config.trust_window = Duration::from_secs(600))
}

async fn long_trusted_node(world: &World) -> SessionManager {
    world.node_with(trusted_for_long(world.roomy())).await
}

/// Two such nodes: one with a shorter window would remove the row of the other. The second one lacks a guard.
async fn nodes_without(world: &World, guard: Guard) -> [SessionManager; 2] {
    let (a, b) = (long_trusted_node(world).await, long_trusted_node(world).await);
    without(&b, guard);
    [a, b]
}

/// Without the guard, and with every hit judged at once.
pub fn without(node: &SessionManager, guard: Guard) {
    node.probes().remove(guard);
    node.probes().remove(Guard::ObserverBound);
}

/// Users ask for the session, and the observer sees that the memory is too old.
pub async fn stale_hits_are_seen(node: &SessionManager, id: SessionId) {
    eventually("a stale hit is counted", async || {
        let _ = node.served_from_memory(id);
        node.status().observer.stale > 0
    })
    .await;
    let text = node.metrics().to_string();
    // On a busy machine, a second hit may come before the observer has dropped the session.
    let stale = text.lines().find_map(|line| line.strip_prefix("pg_session_observer_stale_total "));
    assert!(stale.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count >= 1), "{text}");
    if let Some(served) = hit(node, id) {
        assert_ne!((served.version().get(), n(&served)), (1, 1), "the observer has dropped it");
    }
}

/// ```text
/// B        ticket ── SELECT ──▶ Loaded ┊ receives the delete ┊ install
/// A        delete, COMMIT, NOTIFY      ┊
/// ```
#[tokio::test]
async fn control_without_the_ticket_the_observer_sees_it() {
    let world = World::new();
    let [a, b] = nodes_without(&world, Guard::FillTicket).await;
    let id = make(&a, 1).await[0].id();
    let gate = b.probes().close(Point::Loaded);
    let load = async { b.get(id).bypass_cache().await.unwrap() };
    let overtake = async {
        gate.arrived(1).await;
        assert!(a.delete(id).await.unwrap());
        in_time("it is received", b.catch_up()).await.unwrap();
        gate.open();
    };
    let (loaded, ()) = tokio::join!(load, overtake);
    assert!(loaded.is_some());
    stale_hits_are_seen(&b, id).await;
}

/// A: commits 2 ┊ B: deletes, and A knows ┊ A: publishes 2.
#[tokio::test]
async fn control_without_publish_order_the_observer_sees_it() {
    let world = World::new();
    let [b, a] = nodes_without(&world, Guard::PublishOrder).await;
    let mut sessions = make(&a, 1).await;
    let id = sessions[0].id();
    let gate = a.probes().close(Point::Committed);
    let overtake = async {
        in_time("the update is committed", gate.arrived(1)).await;
        assert!(b.delete(id).await.unwrap());
        a.catch_up().await.unwrap();
        gate.open();
    };
    tokio::join!(update_all(&a, &mut sessions, 2), overtake);
    assert!(hit(&a, id).is_some());
    stale_hits_are_seen(&a, id).await;
}

/// B: disconnected ┊ A: delete ┊ B: trusted again, and the verification of its memory takes its time.
#[tokio::test]
async fn control_without_revalidation_the_observer_sees_it() {
    let world = World::new();
    let a = long_trusted_node(&world).await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, trusted_for_long(world.roomy())).await;
    without(&b, Guard::Revalidation);
    let id = make(&a, 1).await[0].id();
    read(&b, id).await;
    wire.refuse();
    wire.cut();
    eventually("the node has noticed", async || b.status().trusted_for.is_none()).await;
    assert!(a.delete(id).await.unwrap());
    let gate = b.probes().close(Point::Verified);
    wire.accept();
    in_time("the verification is on its way", gate.arrived(1)).await;
    stale_hits_are_seen(&b, id).await;
    gate.open();
}

#[tokio::test]
async fn control_without_expiry_the_observer_sees_it() {
    let world = World::new();
    let node = observed_node(&world).await;
    node.probes().remove(Guard::Expiry);
    let session = node.create(1).set("n", &1).expires_in(Duration::from_millis(200)).await.unwrap();
    stale_hits_are_seen(&node, session.id()).await;
}

#[tokio::test]
async fn control_without_generations_the_observer_sees_it() {
    let world = World::new();
    let node = observed_node(&world).await;
    node.probes().remove(Guard::Generation);
    let id = make(&node, 1).await[0].id();
    assert_eq!(node.delete_all_sessions().await.unwrap(), 1);
    stale_hits_are_seen(&node, id).await;
}

/// An update replaces the entry: the index lists it twice for a moment.
#[tokio::test]
async fn control_without_index_count_the_observer_sees_it() {
    let world = World::new();
    let a = long_trusted_node(&world).await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, trusted_for_long(world.roomy())).await;
    without(&b, Guard::IndexCount);
    let mut sessions = make(&b, 1).await;
    let (id, user) = (sessions[0].id(), sessions[0].user_id().unwrap());
    assert!(hit(&b, id).is_some(), "what the update replaces");
    // Its own notification would remove the entry first, if it came before the publish.
    wire.stall();
    update_all(&b, &mut sessions, 2).await;
    assert!(hit(&b, id).is_some());
    wire.heal();
    assert_eq!(a.user(user).delete().await.unwrap(), 1);
    stale_hits_are_seen(&b, id).await;
}

/// ```text
/// listener   database A ┊ another server ┊ answers its pings
/// node       trusted    ┊                ┊ not trusted; it loads the session, which is deleted in A
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_trust_window_the_observer_sees_it() {
    // A database that the other server has, too.
    let world = World::in_postgres();
    let a = long_trusted_node(&world).await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, trusted_for_long(world.roomy())).await;
    without(&b, Guard::TrustWindow);
    let other = Sandbox::start().unwrap();
    wire.redirect(other.addr());
    wire.cut();
    let id = make(&a, 1).await[0].id();
    eventually("the node keeps what it loads", async || {
        read(&b, id).await;
        b.status().trusted_for.is_none() && hit(&b, id).is_some()
    })
    .await;
    assert!(a.delete(id).await.unwrap());
    stale_hits_are_seen(&b, id).await;
}

/// ```text
/// SQL    BEGIN ── session_create ──────────────────────────── COMMIT, NOTIFY
/// node                     ticket ── SELECT (no row) ── Loaded ┊ receives it ┊ remembers an end
/// ```
#[tokio::test]
async fn control_without_ended_ticket_the_observer_sees_it() {
    let world = World::new();
    let node = observed_node(&world).await;
    node.probes().remove(Guard::EndedTicket);
    let client = world.operator().await;
    client.batch_execute("BEGIN").await.unwrap();
    let id = client.query_one("SELECT session_create(attributes => '{\"n\": 2}')", &[]).await.unwrap().get(0);
    let id = SessionId::from_uuid(id);
    let gate = node.probes().close(Point::Loaded);
    let overtake = async {
        gate.arrived(1).await;
        client.batch_execute("COMMIT").await.unwrap();
        node.catch_up().await.unwrap();
        gate.open();
    };
    let load = async { node.get(id).await.unwrap() };
    assert!(tokio::join!(load, overtake).0.is_none());
    stale_hits_are_seen(&node, id).await;
    assert!(node.get(id).await.unwrap().is_some(), "the end is forgotten");
}

/// What the controls do, with every other guard.
#[tokio::test]
async fn hits_of_a_node_in_sync_are_not_stale_without_the_bound() {
    let world = World::new();
    let (a, b) = (long_trusted_node(&world).await, long_trusted_node(&world).await);
    b.probes().remove(Guard::ObserverBound);
    let mut sessions = make(&a, 40).await;
    let ids = ids(&sessions);
    read_all(&b, &ids).await;
    let (deleted, updated) = sessions.split_at_mut(20);
    assert_eq!(a.delete_many(deleted.iter().map(Session::id)).await.unwrap(), 20);
    update_all(&a, updated, 2).await;
    in_time("it is in sync", b.catch_up()).await.unwrap();
    let before = b.status().observer.compared;
    eventually("all are compared", async || {
        read_all(&b, &ids[20..]).await;
        ids.iter().for_each(|&id| drop(b.served_from_memory(id)));
        b.status().observer.compared >= before + 200
    })
    .await;
    let observer = b.status().observer;
    assert_eq!(observer.stale, 0, "{observer:?}");
}

/// Rows change between the hit and its comparison, the listener is slow, lost and silent: nothing is taken for stale.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_behind_a_hit_are_not_stale() {
    let world = World::new();
    let [a] = world.nodes().await;
    let wire = world.proxy().await;
    let config = observed(world.roomy()).with(|config| {
        config.trust_window = Duration::from_millis(500);
        config.query_timeout = Duration::from_secs(2);
    });
    // As `observer::newer_bound`.
    let longest_bound = 3 * config.trust_window + 2 * config.query_timeout;
    let b = world.node_listening_through(&wire, config).await;
    for round in 0..8 {
        let mut sessions = make(&a, 60).await;
        let ids = ids(&sessions);
        read_all(&b, &ids).await;
        match round % 4 {
            // Nothing arrives, and then all of it, or the connection is given up.
            0 => wire.stall(),
            1 => wire.delay(Duration::from_millis(100)),
            2 => wire.cut(),
            _ => {}
        }
        ids.iter().for_each(|&id| drop(hit(&b, id)));
        let (updated, rest) = sessions.split_at_mut(20);
        let (deleted, rotated) = rest.split_at_mut(20);
        update_all(&a, updated, 2).await;
        assert_eq!(a.delete_many(deleted.iter().map(Session::id)).await.unwrap(), 20);
        for outcome in all(rotated.iter_mut().map(|session| a.rotate(session))).await {
            outcome.unwrap();
        }
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            ids.iter().for_each(|&id| drop(hit(&b, id)));
            tokio::task::yield_now().await;
        }
        wire.heal();
        in_time("it is in sync", b.wait_until_trusted()).await.unwrap();
    }
    let until = Instant::now() + longest_bound;
    let kept = make(&a, 1).await[0].id();
    eventually("what was suspected is judged", async || {
        read(&b, kept).await;
        Instant::now() > until
    })
    .await;
    let observer = b.status().observer;
    assert!(observer.compared > 50, "{observer:?}");
    assert_eq!(observer.stale, 0, "{observer:?}");
}

/// The listener receives nothing for a moment: what it then shows is within the promise.
#[tokio::test]
async fn control_without_the_bound_a_change_behind_a_hit_is_stale() {
    let world = World::new();
    let [a] = world.nodes().await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, observed(world.roomy())).await;
    b.probes().remove(Guard::ObserverBound);
    let id = make(&a, 1).await[0].id();
    read(&b, id).await;
    in_time("it is in sync", b.catch_up()).await.unwrap();
    wire.stall();
    assert!(a.delete(id).await.unwrap());
    stale_hits_are_seen(&b, id).await;
}

#[tokio::test]
async fn an_observer_that_is_off_compares_nothing() {
    let world = World::new();
    let mut config = world.roomy();
    config.observed_hits_interval = 0;
    let node = world.node_with(config).await;
    let id = make(&node, 1).await[0].id();
    for _ in 0..50_000 {
        assert!(hit(&node, id).is_some());
    }
    let observer = node.status().observer;
    assert_eq!((observer.compared, observer.skipped), (0, 0));
}

/// By default, one hit in 10 000.
#[tokio::test]
async fn one_hit_in_so_many_is_compared() {
    let world = World::new();
    let [node] = world.nodes().await;
    let id = make(&node, 1).await[0].id();
    for _ in 0..40_000 {
        assert!(hit(&node, id).is_some());
    }
    eventually("they are compared", async || node.status().observer.compared == 4).await;
    assert_eq!(node.status().observer.skipped, 0);
}
