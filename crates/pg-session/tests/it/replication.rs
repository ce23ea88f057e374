//! Logical replication into the tables of a node, as in an upgrade with two servers: what it writes reaches the memory.

use pg_sandbox::Sandbox;
use pg_session::{SessionId, SessionManager};

use crate::fixtures::{hit, ids, in_time, make, n, update_all};
use crate::support::{World, eventually};

/// More than the notifications of one transaction that name sessions.
const MANY: usize = 100;

struct Upgrade {
    /// The old server.
    publisher: SessionManager,
    /// The new server.
    subscriber: SessionManager,
    old: World,
    _servers: [Sandbox; 2],
}

impl Upgrade {
    async fn begin() -> Self {
        let start = || {
            let server = Sandbox::builder().setting("wal_level", "logical");
            server.setting("max_wal_senders", "10").setting("max_replication_slots", "10").start().unwrap()
        };
        let servers = [start(), start()];
        let [old, new] =
            [&servers[0], &servers[1]].map(|server| World { schema: "auth".to_owned(), ..World::on(server) });
        let [publisher, subscriber] = [old.node_with(old.roomy()).await, new.node_with(new.roomy()).await];
        let tables = "sessions, session_attributes, session_labels";
        old.client().await.batch_execute(&format!("CREATE PUBLICATION p FOR TABLE {tables}")).await.unwrap();
        let port = servers[0].addr().port();
        let subscribe = format!(
            "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={port} user=postgres dbname=postgres' PUBLICATION p"
        );
        new.client().await.batch_execute(&subscribe).await.unwrap();
        Self { publisher, subscriber, old, _servers: servers }
    }
}

/// Waits until all have this `n` in memory.
async fn known(node: &SessionManager, ids: &[SessionId], expected: i64) {
    for &id in ids {
        eventually("the change is read, and kept", async || {
            // Many rows are one eviction of everything, after which no read is a hit for a moment.
            let read = node.get(id).await.unwrap().is_some_and(|session| n(&session) == expected);
            read && hit(node, id).is_some_and(|session| n(&session) == expected)
        })
        .await;
    }
}

/// ```text
/// old   create      update       update of many      delete       delete of many      TRUNCATE
/// new           hit        no hit                hit         no hit               hit          no hit
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicated_changes_reach_the_memory_of_the_subscribers_nodes() {
    let Upgrade { publisher, subscriber, old, _servers } = Upgrade::begin().await;
    let mut sessions = make(&publisher, MANY).await;
    let ids = ids(&sessions);
    known(&subscriber, &ids, 1).await;
    update_all(&publisher, &mut sessions[..1], 2).await;
    let first = ids[0];
    known(&subscriber, &ids[..1], 2).await;
    update_all(&publisher, &mut sessions, 3).await;
    known(&subscriber, &ids, 3).await;
    assert!(publisher.delete(first).await.unwrap());
    eventually("one deletion", async || subscriber.get(first).await.unwrap().is_none()).await;
    let operator = old.operator().await;
    let half = "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions ORDER BY id LIMIT 80)";
    assert_eq!(operator.execute(half, &[]).await.unwrap(), 80);
    let alive = async || {
        let mut alive = 0;
        for &id in &ids {
            // TRUNCATE makes other tables of them, which a proof has to name first.
            alive += usize::from(!matches!(subscriber.get(id).await, Ok(None)));
        }
        alive
    };
    eventually("many deletions", async || alive().await == MANY - 81).await;
    operator.batch_execute("TRUNCATE sessions").await.unwrap();
    eventually("none is left", async || alive().await == 0).await;
    in_time("it is trusted", subscriber.wait_until_trusted()).await.unwrap();
}

/// A login that reaches the new server later than the user does.
///
/// ```text
/// old   create
/// new            get: none, remembered ── replicated ── get
/// ```
#[tokio::test]
async fn a_session_that_is_replicated_late_is_found() {
    let world = World::new();
    let node = world.node().await;
    let operator = world.operator().await;
    let id = node.create(1).await.unwrap().id();
    operator.batch_execute("CREATE TABLE saved AS TABLE sessions; DELETE FROM sessions").await.unwrap();
    eventually("the end is remembered", async || {
        node.get(id).await.unwrap().is_none() && node.status().cache.ended > 0
    })
    .await;
    let replicate =
        "BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO sessions TABLE saved; COMMIT";
    operator.batch_execute(replicate).await.unwrap();
    eventually("the session is found", async || node.get(id).await.unwrap().is_some()).await;
    // A touch is no news.
    assert!(hit(&node, id).is_some());
    let touch = "BEGIN; SET LOCAL session_replication_role = replica; UPDATE sessions SET last_accessed_at = now(); COMMIT";
    operator.batch_execute(touch).await.unwrap();
    node.catch_up().await.unwrap();
    assert!(hit(&node, id).is_some());
    let delete = "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM sessions; COMMIT";
    operator.batch_execute(delete).await.unwrap();
    node.catch_up().await.unwrap();
    assert!(hit(&node, id).is_none() && node.get(id).await.unwrap().is_none());
}
