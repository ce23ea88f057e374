//! A database that goes back in time: a restored backup, or a failover that lost commits.
//!
//! ```text
//! history 1   v1 ── backup ── v2 (n = 2), acknowledged, cached
//! history 2   v1 ◀─ restore ── v2 (n = 3), acknowledged
//! ```
//!
//! The version number 2 occurs twice, with different content.

use pg_sandbox::Proxy;
use pg_session::{ErrorKind, Lease, LockError, Session, SessionId, SessionManager, UpdateError, Version};
use tokio_postgres::Client;

use crate::fixtures::{hit, in_time, make, n, read, update_all};
use crate::support::{World, eventually};

const TABLES: [&str; 4] = ["sessions", "session_attributes", "session_labels", "session_locks"];

/// Keeps a copy of all tables.
async fn back_up(client: &Client) {
    for table in TABLES {
        client.batch_execute(&format!("CREATE TABLE saved_{table} AS TABLE {table}")).await.unwrap();
    }
}

/// Puts the copy back, without triggers. So no node is notified.
async fn restore(client: &Client) {
    for table in TABLES {
        client.batch_execute(&format!("ALTER TABLE {table} DISABLE TRIGGER USER")).await.unwrap();
        let columns = if table == "session_locks" {
            "(session_id, name, owner, label, fence, acquired_at, expires_at)"
        } else {
            ""
        };
        let list = if columns.is_empty() { "*" } else { columns.trim_matches(['(', ')']) };
        let text = format!(
            "BEGIN; TRUNCATE {table}; INSERT INTO {table} {columns} SELECT {list} FROM saved_{table}; COMMIT"
        );
        client.batch_execute(&text).await.unwrap();
        client.batch_execute(&format!("ALTER TABLE {table} ENABLE TRIGGER USER")).await.unwrap();
    }
}

/// A node of the first history, its wire, and its handles of sessions at version 2 with `n` = 2. The database holds
/// version 2 with `n` = 3, which `other` has written.
struct Restored {
    node: SessionManager,
    other: SessionManager,
    wire: Proxy,
    handles: Vec<Session>,
}

async fn restored(world: &World, sessions: usize) -> Restored {
    let wire = world.proxy().await;
    let node = world.node_listening_through(&wire, world.roomy()).await;
    let mut handles = make(&node, sessions).await;
    let client = world.client().await;
    back_up(&client).await;
    update_all(&node, &mut handles, 2).await;
    for handle in &handles {
        assert_eq!(n(&hit(&node, handle.id()).expect("it is cached")), 2);
    }
    wire.refuse();
    wire.cut();
    eventually("the node has noticed", async || node.status().trusted_for.is_none()).await;
    restore(&client).await;
    let [other] = world.nodes().await;
    let mut others = Vec::new();
    for handle in &handles {
        others.push(read(&other, handle.id()).await);
    }
    assert!(others.iter().all(|session| session.version() == Version::FIRST && n(session) == 1));
    update_all(&other, &mut others, 3).await;
    assert!(others.iter().zip(&handles).all(|(other, handle)| other.version() == handle.version()));
    Restored { node, other, wire, handles }
}

impl Restored {
    async fn heal(&self) {
        self.wire.accept();
        in_time("the node is in sync again", self.node.wait_until_trusted()).await.unwrap();
    }

    async fn n_of(&self, id: SessionId) -> i64 {
        n(&self.other.get(id).bypass_cache().await.unwrap().expect("it is alive"))
    }
}

#[tokio::test]
async fn a_reused_version_does_not_verify_a_cached_session() {
    let world = World::new();
    let restored = restored(&world, 20).await;
    restored.heal().await;
    for handle in &restored.handles {
        assert_eq!(n(&read(&restored.node, handle.id()).await), 3);
    }
    let all_cached =
        async || restored.handles.iter().all(|handle| hit(&restored.node, handle.id()).is_some());
    eventually("the sessions are cached again", all_cached).await;
    assert!(restored.handles.iter().all(|handle| n(&hit(&restored.node, handle.id()).unwrap()) == 3));
}

/// The tables are replaced while the node listens, without a notification and in the same run of the server.
#[tokio::test]
async fn tables_replaced_under_a_running_node_are_noticed() {
    let world = World::new();
    let [node, other] = world.nodes().await;
    let client = world.client().await;
    let mut handles = make(&node, 3).await;
    back_up(&client).await;
    update_all(&node, &mut handles, 2).await;
    assert!(handles.iter().all(|handle| n(&hit(&node, handle.id()).expect("it is cached")) == 2));
    restore(&client).await;
    let mut others = Vec::new();
    for handle in &handles {
        others.push(other.get(handle.id()).bypass_cache().await.unwrap().expect("it is restored"));
    }
    update_all(&other, &mut others, 3).await;
    in_time("the next proof is received", node.catch_up()).await.unwrap();
    for handle in &handles {
        assert_eq!(n(&read(&node, handle.id()).await), 3);
    }
    assert!(node.delete(handles[0].id()).await.unwrap(), "it is the right server");
}

#[tokio::test]
async fn a_checked_update_from_a_lost_history_is_a_conflict() {
    let world = World::new();
    let mut restored = restored(&world, 4).await;
    let node = restored.node.clone();
    let [by_version, by_attribute, with_overflow, with_row] = &mut restored.handles[..] else {
        panic!("four")
    };
    let conflict = |outcome: Result<(), UpdateError>| match outcome {
        Err(UpdateError::Conflict { keys }) => keys,
        other => panic!("it overwrote the other history: {other:?}"),
    };
    by_version.set("m", &1).unwrap();
    assert!(conflict(node.save(by_version).check_version().await).is_empty());
    by_attribute.set("n", &4).unwrap();
    assert_eq!(conflict(node.save(by_attribute).check_attributes().await), ["n"]);
    with_overflow.set("n", &4).unwrap();
    with_overflow.set("large", &"x".repeat(10_000)).unwrap();
    assert_eq!(conflict(node.save(with_overflow).check_attributes().await), ["n"]);
    with_row.set("n", &4).unwrap();
    with_row.remove("m");
    assert!(conflict(node.save(with_row).group(None).check_version().await).is_empty());
    for handle in &restored.handles {
        assert_eq!(restored.n_of(handle.id()).await, 3, "what was acknowledged stays");
    }
}

#[tokio::test]
async fn an_unchecked_update_from_a_lost_history_keeps_other_keys() {
    let world = World::new();
    let mut restored = restored(&world, 8).await;
    let node = restored.node.clone();
    // One alone, and the others in one batch.
    let (one, many) = restored.handles.split_first_mut().unwrap();
    one.set("m", &1_i64).unwrap();
    node.save(one).await.unwrap();
    assert_eq!((n(one), one.version().get()), (3, 3));
    let updates = many.iter_mut().map(|handle| {
        handle.set("m", &1_i64).unwrap();
        node.save(handle)
    });
    for outcome in crate::fixtures::all(updates).await {
        outcome.unwrap();
    }
    restored.heal().await;
    for handle in &restored.handles {
        let session = read(&restored.node, handle.id()).await;
        assert_eq!((n(&session), session.get::<i64>("m").unwrap()), (3, Some(1)));
    }
}

#[tokio::test]
async fn a_rotation_from_a_lost_history_carries_what_there_is() {
    let world = World::new();
    let mut restored = restored(&world, 1).await;
    let node = restored.node.clone();
    node.rotate(&mut restored.handles[0]).keep_all().await.unwrap();
    assert_eq!(restored.n_of(restored.handles[0].id()).await, 3);
}

/// The restored database is behind what the node has cached, and nothing has changed it since.
#[tokio::test]
async fn a_lower_version_is_cached_after_a_restore() {
    let world = World::new();
    let wire = world.proxy().await;
    let node = world.node_listening_through(&wire, world.roomy()).await;
    let client = world.client().await;
    let mut handles = make(&node, 1).await;
    let id = handles[0].id();
    back_up(&client).await;
    for value in 2..10 {
        update_all(&node, &mut handles, value).await;
    }
    wire.cut();
    eventually("the node has noticed", async || node.status().trusted_for.is_none()).await;
    restore(&client).await;
    in_time("the node is in sync again", node.wait_until_trusted()).await.unwrap();
    assert_eq!(n(&read(&node, id).await), 1);
    eventually("it is cached again", async || hit(&node, id).is_some()).await;
    assert_eq!(n(&hit(&node, id).unwrap()), 1);

    let lost = handles[0].version();
    let error = node.get(id).min_version(lost).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("or_latest"), "{error}");
    assert_eq!(node.status().loads.lost_versions, 0);
    for reads in 1..4 {
        let session = node.get(id).min_version(lost).or_latest().await.unwrap().unwrap();
        assert_eq!((session.version(), n(&session)), (Version::FIRST, 1));
        assert_eq!(node.status().loads.lost_versions, reads);
    }
}

#[tokio::test]
async fn fences_grow_across_a_restore_and_a_lost_row() {
    let world = World::new();
    let [node] = world.nodes().await;
    let client = world.client().await;
    let session = make(&node, 1).await.remove(0).id();
    let mut highest = 0;
    let mut above = |lease: &Lease| {
        assert!(lease.fence().get() > highest, "{} after {highest}", lease.fence());
        highest = lease.fence().get();
    };
    let take = async || -> Result<[Lease; 2], LockError> {
        Ok([
            node.locks().try_lock("x").await?,
            node.locks().session_lock(session, "x").wait(crate::support::WAIT_MAX).await?,
        ])
    };
    for round in 0..6 {
        let leases = take().await.unwrap();
        let [first, second] = &leases;
        above(first);
        above(second);
        for lease in leases {
            lease.release().await.unwrap();
        }
        match round {
            1 => back_up(&client).await,
            // The rows are as they were two acquisitions ago.
            3 => restore(&client).await,
            4 => client.batch_execute("DELETE FROM session_locks").await.unwrap(),
            _ => {}
        }
    }
}
