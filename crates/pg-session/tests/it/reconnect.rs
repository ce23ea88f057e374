//! A lost connection with missed changes: what happened meanwhile is never hidden by what is still in memory.
//!
//! ```text
//! B  disconnected ┊                              ┊ LISTEN ─ barrier ─▶ trusted
//! A               ┊ updates, deletes and creates ┊
//! ```
//!
//! The proxy is in B's listening connection only: its pool goes on working.

use std::time::Duration;

use pg_sandbox::Proxy;
use pg_session::testing::Guard;
use pg_session::{Session, SessionId, SessionManager};
use tokio::time::Instant;

use crate::captured_logs::CapturedLogs;
use crate::fixtures::{all, driver_config, hit, ids, in_time, make, n, read, read_all, update_all};
use crate::support::{WAIT_MAX, World, eventually};

/// A, B that listens through the wire, and the wire.
async fn pair(world: &World) -> (SessionManager, SessionManager, Proxy) {
    let [a] = world.nodes().await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, world.roomy()).await;
    (a, b, wire)
}

async fn disconnect_listener(node: &SessionManager, wire: &Proxy) {
    wire.refuse();
    wire.cut();
    eventually("the node has noticed", async || node.status().trusted_for.is_none()).await;
}

async fn recover(node: &SessionManager, wire: &Proxy) {
    wire.accept();
    in_time("the node is in sync again by itself", node.wait_until_trusted()).await.unwrap();
}

/// What happened while B was disconnected: a third of the sessions each was updated, deleted, and left alone.
struct Missed {
    updated: Vec<SessionId>,
    deleted: Vec<SessionId>,
    unchanged: Vec<SessionId>,
    created: Vec<SessionId>,
}

/// B has `3 * share` sessions in memory when it loses its connection; A changes them.
async fn miss(a: &SessionManager, b: &SessionManager, wire: &Proxy, share: usize) -> Missed {
    let mut sessions = make(a, 3 * share).await;
    read_all(b, &ids(&sessions)).await;
    disconnect_listener(b, wire).await;
    let (changed, unchanged) = sessions.split_at_mut(2 * share);
    let (updated, deleted) = changed.split_at_mut(share);
    update_all(a, updated, 2).await;
    assert_eq!(a.delete_many(deleted.iter().map(Session::id)).await.unwrap(), share as u64);
    let created = ids(&make(a, 10).await);
    Missed { updated: ids(updated), deleted: ids(deleted), unchanged: ids(unchanged), created }
}

async fn shows_the_truth(node: &SessionManager, missed: &Missed) {
    assert!(read_all(node, &missed.updated).await.iter().all(|session| n(session) == 2));
    for answer in all(missed.deleted.iter().map(|&id| node.get(id))).await {
        assert!(answer.unwrap().is_none());
    }
    assert!(read_all(node, &missed.unchanged).await.iter().all(|session| n(session) == 1));
    assert!(read_all(node, &missed.created).await.iter().all(|session| n(session) == 1));
}

#[tokio::test]
async fn a_disconnected_node_answers_from_the_database() {
    let world = World::new();
    let (a, b, wire) = pair(&world).await;
    let missed = miss(&a, &b, &wire, 50).await;
    let hits = b.status().cache.hits;
    shows_the_truth(&b, &missed).await;
    shows_the_truth(&b, &missed).await;
    assert_eq!(b.status().cache.hits, hits, "each time");
    assert!(b.catch_up().await.is_err(), "and says that it cannot catch up");
}

/// The window alone would end it ten minutes later.
#[tokio::test]
async fn a_loss_ends_the_trust_at_once() {
    let world = World::new();
    let [a] = world.nodes().await;
    let wire = world.proxy().await;
    let mut config = world.roomy();
    config.trust_window = Duration::from_secs(600);
    let b = world.node_listening_through(&wire, config).await;
    let id = make(&a, 1).await[0].id();
    read(&b, id).await;
    assert!(hit(&b, id).is_some());
    disconnect_listener(&b, &wire).await;
    assert!(hit(&b, id).is_none());
}

#[tokio::test]
async fn a_reconnected_node_shows_nothing_that_it_missed() {
    let world = World::new();
    let (a, b, wire) = pair(&world).await;
    for _ in 0..3 {
        let missed = miss(&a, &b, &wire, 100).await;
        recover(&b, &wire).await;
        shows_the_truth(&b, &missed).await;
        shows_the_truth(&b, &missed).await;
    }
}

/// B: disconnected ┊ A: update · the tables are locked ┊ B: listens, barrier: trusted, revalidation waits for the lock.
///
/// Answers what B serves from memory at this moment.
async fn served_before_revalidation(world: &World, without: Option<Guard>) -> Option<Session> {
    let (a, b, wire) = pair(world).await;
    if let Some(guard) = without {
        b.probes().remove(guard);
    }
    let mut sessions = make(&a, 1).await;
    let id = sessions[0].id();
    read(&b, id).await;
    disconnect_listener(&b, &wire).await;
    update_all(&a, &mut sessions, 2).await;
    let mut client = world.client().await;
    let transaction = client.transaction().await.unwrap();
    transaction.execute("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE", &[]).await.unwrap();
    recover(&b, &wire).await;
    let served = hit(&b, id);
    transaction.rollback().await.unwrap();
    assert!(without.is_some() || n(&read(&b, id).await) == 2);
    served
}

#[tokio::test]
async fn entries_of_earlier_connection_are_verified_before_served() {
    assert!(served_before_revalidation(&World::new(), None).await.is_none());
}

#[tokio::test]
async fn control_without_revalidation_the_missed_update_is_hidden() {
    let served = served_before_revalidation(&World::new(), Some(Guard::Revalidation)).await;
    assert_eq!(served.map(|session| n(&session)), Some(1));
}

/// B: disconnected ┊ the tables are locked ┊ B: connected again, eight attempts to verify fail ┊ unlocked: verified.
#[tokio::test]
async fn verification_continues_after_many_failures() {
    let world = World::new();
    let [a] = world.nodes().await;
    let wire = world.proxy().await;
    let mut config = world.roomy();
    config.query_timeout = Duration::from_millis(100);
    // On a busy machine a start may take longer.
    let began = Instant::now();
    let b = loop {
        let builder = SessionManager::builder(config.clone()).url(&world.url).unwrap();
        match builder.listen_on(driver_config(&wire.url_for(&world.url))).connect().await {
            Ok(node) => break node,
            Err(error) => assert!(began.elapsed() < WAIT_MAX, "the node starts: {error}"),
        }
    };
    in_time("the node is in sync", b.wait_until_trusted()).await.unwrap();
    let sessions = make(&a, 1).await;
    read(&b, sessions[0].id()).await;
    disconnect_listener(&b, &wire).await;
    let logs = CapturedLogs::default();
    let _listening = logs.listen();
    let mut client = world.client().await;
    let transaction = client.transaction().await.unwrap();
    transaction.execute("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE", &[]).await.unwrap();
    recover(&b, &wire).await;
    eventually("eight attempts failed", async || logs.text().contains("attempts=8")).await;
    transaction.rollback().await.unwrap();
    eventually("it is verified", async || logs.text().contains("verified the cached sessions")).await;
    assert!(hit(&b, sessions[0].id()).is_some(), "it is served from memory without a load");
}

/// Reads one session after the other: while the revalidation runs, the first few are loaded, and then no more.
async fn loads_to_read_again(node: &SessionManager, ids: &[SessionId]) -> u64 {
    let before = node.status().loads.sessions;
    for &id in ids {
        assert_eq!(n(&read(node, id).await), 1);
    }
    node.status().loads.sessions - before
}

#[tokio::test]
async fn unchanged_sessions_become_hits_again_without_being_loaded() {
    let world = World::new();
    let (a, b, wire) = pair(&world).await;
    let missed = miss(&a, &b, &wire, 2_000).await;
    recover(&b, &wire).await;
    let loads = loads_to_read_again(&b, &missed.unchanged).await;
    assert!(loads < 1_000, "{loads} of 2 000 were loaded one by one");
    shows_the_truth(&b, &missed).await;
    assert!(missed.unchanged.iter().all(|&id| hit(&b, id).is_some()));
}

/// More ids than a statement has parameters.
#[tokio::test]
async fn revalidation_covers_more_sessions_than_parameters() {
    const SESSIONS: i64 = 66_000;
    let world = World::new();
    let (a, b, wire) = pair(&world).await;
    let client = world.client().await;
    let rows = client
        .query(
            "WITH made AS (
                 INSERT INTO sessions (id, user_id, version, idle_limited, created_at, updated_at,
                                       last_accessed_at, expires_at)
                 SELECT gen_random_uuid(), gen_random_uuid(), 1, true, now(), now(), now(),
                        now() + interval '1 hour'
                 FROM generate_series(1, $1::bigint)
                 RETURNING id
             ), set AS (
                 INSERT INTO session_attributes (session_id, key, value, version)
                 SELECT id, 'n', '1', 1 FROM made
             )
             SELECT id FROM made",
            &[&SESSIONS],
        )
        .await
        .unwrap();
    let ids: Vec<SessionId> = rows.iter().map(|row| SessionId::from_uuid(row.get(0))).collect();
    for some in ids.chunks(6_000) {
        read_all(&b, some).await;
    }
    assert_eq!(b.status().cache.sessions, ids.len());
    disconnect_listener(&b, &wire).await;
    let mut changed = read_all(&a, &ids[..100]).await;
    update_all(&a, &mut changed, 2).await;
    recover(&b, &wire).await;
    assert!(read_all(&b, &ids[..100]).await.iter().all(|session| n(session) == 2));
    let loads = loads_to_read_again(&b, &ids[100..]).await;
    assert!(loads < 20_000, "{loads} of 65 900 were loaded one by one");
    assert!(ids.iter().all(|&id| hit(&b, id).is_some()));
}

/// Lost again and again, at any moment of the recovery.
#[tokio::test]
async fn a_connection_that_flaps_hides_nothing() {
    let world = World::new();
    let (a, b, wire) = pair(&world).await;
    let mut sessions = make(&a, 100).await;
    let ids = ids(&sessions);
    for value in 2..30 {
        wire.cut();
        update_all(&a, &mut sessions, value).await;
        if value % 3 == 0 {
            in_time("the node is in sync again by itself", b.wait_until_trusted()).await.unwrap();
            // The cut may not have been noticed yet: a barrier that comes back proves what a hit may rest on.
            eventually("the node has caught up", async || b.catch_up().await.is_ok()).await;
            assert!(read_all(&b, &ids).await.iter().all(|session| n(session) == value));
        }
    }
}
