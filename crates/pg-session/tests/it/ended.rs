//! A node remembers sessions that have ended: requests with their ids cost no query, until the session may exist again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pg_session::testing::{Guard, Point};
use pg_session::{Config, ErrorKind, SessionId, SessionManager};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::fixtures::{in_time, make, read};
use crate::support::{World, eventually};

/// Longer than any test: trust does not lapse on a busy machine.
const LONG: Duration = Duration::from_secs(600);
const READS: u64 = 50;

fn config(world: &World) -> Config {
    let mut config = world.roomy();
    config.trust_window = LONG;
    config
}

fn unknown_id() -> SessionId {
    SessionId::from_uuid(Uuid::new_v4())
}

async fn is_gone(node: &SessionManager, id: SessionId) -> bool {
    in_time("the read is answered", node.get(id)).await.unwrap().is_none()
}

/// Statements that reads of an ended session have cost.
async fn queries_of_reads(node: &SessionManager, id: SessionId) -> u64 {
    let before = node.status();
    for _ in 0..READS {
        assert!(is_gone(node, id).await);
    }
    let after = node.status();
    let queries = after.loads.statements - before.loads.statements;
    assert_eq!(after.cache.ended - before.cache.ended, READS - queries, "the others are counted");
    assert_eq!(after.cache.hits, before.cache.hits);
    queries
}

#[tokio::test]
async fn reads_of_ended_sessions_cost_no_query() {
    let world = World::new();
    let [a, b] = [world.node_with(config(&world)).await, world.node_with(config(&world)).await];
    let client = world.client().await;

    let deleted = make(&a, 1).await[0].id();
    read(&b, deleted).await;
    a.delete(deleted).await.unwrap();
    assert_eq!(queries_of_reads(&a, deleted).await, 0, "deleted here");
    b.catch_up().await.unwrap();
    assert_eq!(queries_of_reads(&b, deleted).await, 1, "deleted elsewhere");
    assert_eq!(queries_of_reads(&b, deleted).await, 0);

    let unknown = unknown_id();
    assert_eq!(queries_of_reads(&a, unknown).await, 1, "unknown");
    assert_eq!(queries_of_reads(&a, unknown).await, 0);

    let expired = a.create(1).expires_in(Duration::from_millis(1)).await.unwrap().id();
    eventually("it expires", async || a.get(expired).bypass_cache().await.unwrap().is_none()).await;
    let rows = client.query_one("SELECT count(*) FROM sessions", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 1, "its row is still there");
    assert_eq!(queries_of_reads(&a, expired).await, 0, "expired");

    let asked = a.status().loads.statements;
    assert!(a.get(unknown).bypass_cache().await.unwrap().is_none());
    assert_eq!(a.status().loads.statements, asked + 1, "a caller can ask the database");
    b.evict_all().await.unwrap();
    a.catch_up().await.unwrap();
    for id in [deleted, unknown, expired] {
        assert_eq!(queries_of_reads(&a, id).await, 1, "in a new epoch");
    }
}

/// ```text
/// node     get: idle, so it has ended
/// other         writes an access, without a notification ┊ one trust window later ┊
/// node                                                                            ┊ get: alive
/// ```
#[tokio::test]
async fn an_idle_session_is_remembered_for_one_trust_window() {
    let world = World::new();
    let clock = Arc::new(AtomicU64::new(1));
    let builder = SessionManager::builder(config(&world)).url(&world.url).unwrap();
    let node = builder.manual_clock(Arc::clone(&clock)).connect().await.unwrap();
    in_time("the node is in sync", node.wait_until_trusted()).await.unwrap();
    let client = world.client().await;
    let [idle, deleted] = [make(&node, 1).await[0].id(), unknown_id()];
    client.batch_execute("UPDATE sessions SET last_accessed_at = now() - interval '1 year'").await.unwrap();
    node.evict_all().await.unwrap();
    // Otherwise the proof before would do.
    clock.fetch_add(1, Ordering::SeqCst);
    in_time("the node has handled it", node.catch_up()).await.unwrap();
    for id in [idle, deleted] {
        assert_eq!(queries_of_reads(&node, id).await, 1);
    }
    client.batch_execute("UPDATE sessions SET last_accessed_at = now()").await.unwrap();
    assert_eq!(queries_of_reads(&node, idle).await, 0);
    clock.fetch_add(u64::try_from(LONG.as_nanos()).unwrap(), Ordering::SeqCst);
    in_time("trust returns", node.catch_up()).await.unwrap();
    assert_eq!(queries_of_reads(&node, deleted).await, 0);
    read(&node, idle).await;
}

async fn create_in_transaction(client: &Client) -> SessionId {
    client.batch_execute("BEGIN").await.unwrap();
    SessionId::from_uuid(client.query_one("SELECT session_create()", &[]).await.unwrap().get(0))
}

/// Returns whether the node finds the session after this:
///
/// ```text
/// SQL    BEGIN ── session_create ──────────────────────────── COMMIT, NOTIFY
/// node                     ticket ── SELECT (no row) ── Loaded ┊ receives it ┊ remember?
/// ```
async fn finds_a_session_that_overtook_its_load(without: Option<Guard>) -> bool {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    without.into_iter().for_each(|guard| node.probes().remove(guard));
    let client = world.operator().await;
    let id = create_in_transaction(&client).await;
    let gate = node.probes().close(Point::Loaded);
    let overtake = async {
        gate.arrived(1).await;
        client.batch_execute("COMMIT").await.unwrap();
        node.catch_up().await.unwrap();
        gate.open();
    };
    let (was_gone, ()) = tokio::join!(is_gone(&node, id), overtake);
    assert!(was_gone, "the load does not see it");
    !is_gone(&node, id).await
}

#[tokio::test]
async fn a_load_overtaken_by_a_creation_remembers_no_end() {
    assert!(finds_a_session_that_overtook_its_load(None).await);
}

#[tokio::test]
async fn control_without_the_ticket_a_new_session_has_ended() {
    assert!(!finds_a_session_that_overtook_its_load(Some(Guard::EndedTicket)).await);
}

/// ```text
/// SQL    BEGIN ── session_create ───────────────── COMMIT, NOTIFY
/// node                         get: gone, remembered              ┊ receives it ┊ get: there
/// ```
#[tokio::test]
async fn a_creation_forgets_the_end_that_was_remembered() {
    let world = World::new();
    let [a, b] = [world.node_with(config(&world)).await, world.node_with(config(&world)).await];
    let client = world.operator().await;
    let id = create_in_transaction(&client).await;
    for node in [&a, &b] {
        assert_eq!(queries_of_reads(node, id).await, 1);
    }
    client.batch_execute("COMMIT").await.unwrap();
    for node in [&a, &b] {
        node.catch_up().await.unwrap();
        read(node, id).await;
    }

    // Moved from another store: clients know the id before.
    let moved = unknown_id();
    for node in [&a, &b] {
        assert_eq!(queries_of_reads(node, moved).await, 1);
    }
    a.create(1).with_id(moved).set("large", &"x".repeat(600)).await.unwrap();
    read(&a, moved).await;
    b.catch_up().await.unwrap();
    read(&b, moved).await;
}

/// Two nodes move one session from another store.
///
/// ```text
/// A     creates it, NOTIFY ········································ (B has not received it)
/// B   get: gone, remembered   ┊ creates it: the id exists ┊ get: there
/// ```
#[tokio::test]
async fn a_creation_that_meets_its_id_forgets_the_end() {
    let world = World::new();
    let a = world.node_with(config(&world)).await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, config(&world)).await;
    let id = unknown_id();
    assert_eq!(queries_of_reads(&b, id).await, 1);
    wire.stall();
    a.create(1).with_id(id).await.unwrap();
    assert_eq!(queries_of_reads(&b, id).await, 0, "B has not received it");
    assert_eq!(b.create(1).with_id(id).await.unwrap_err().kind(), ErrorKind::Database);
    read(&b, id).await;
}
