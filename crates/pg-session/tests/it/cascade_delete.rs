//! Rows of a session are deleted with it, by every client and beside every write.

use std::ops::Range;
use std::time::Duration;

use pg_session::{Loss, SessionManager, UserId};
use tokio_postgres::Client;

use crate::fixtures::{all, in_time};
use crate::support::World;
use crate::tables::{Holder, counts};

const LEASE: Duration = Duration::from_millis(1_500);
/// Has a row of its own.
const LARGE: usize = 600;

/// Sessions, attributes with rows of their own, locks.
async fn rows(client: &Client) -> [i64; 3] {
    let text = "SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM session_attributes),
                       (SELECT count(*) FROM session_locks)";
    let row = client.query_one(text, &[]).await.unwrap();
    [row.get(0), row.get(1), row.get(2)]
}

async fn nodes() -> (World, SessionManager, SessionManager, Client) {
    let world = World::new();
    let (a, b, client) = (world.node().await, world.node().await, world.client().await);
    (world, a, b, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_session_row_cascades_to_its_rows_only() {
    let (_world, a, b, client) = nodes().await;
    let mut ids = Vec::new();
    let mut leases = vec![a.locks().lock("report").await.unwrap()];
    for user in 1..=2 {
        let mut session = a.create(user).set("cart", &"x".repeat(LARGE)).await.unwrap();
        ids.push(session.id().expose());
        for _ in 0..2 {
            a.rotate(&mut session).await.unwrap();
            ids.push(session.id().expose());
        }
        leases.push(b.locks().session_lock(session.id(), "checkout").await.unwrap());
    }
    assert_eq!(rows(&client).await, [6, 6, 3]);
    let delete = "DELETE FROM sessions WHERE id = $1";

    client.execute(delete, &[&ids[0]]).await.unwrap();
    assert_eq!(rows(&client).await, [5, 5, 3], "a retired id is deleted alone");
    client.execute(delete, &[&ids[2]]).await.unwrap();
    assert_eq!(rows(&client).await, [3, 3, 2], "the other's stay");
    client.execute("DELETE FROM sessions", &[]).await.unwrap();
    assert_eq!(rows(&client).await, [0, 0, 1], "the lock of no session stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_table_leaves_nothing_of_its_sessions() {
    let (_world, a, _, client) = nodes().await;
    let session = a.create(1).set("cart", &"x".repeat(LARGE)).await.unwrap();
    let of_session = a.locks().session_lock(session.id(), "checkout").lease(LEASE).await.unwrap();
    let of_all = a.locks().lock("report").await.unwrap();
    client.batch_execute("TRUNCATE sessions").await.unwrap();
    assert_eq!(rows(&client).await, [0, 0, 1]);
    assert!(a.locks().holder("report").await.unwrap().is_some_and(|holder| holder.fence == of_all.fence()));
    assert_eq!(in_time("the loss is reported", of_session.lost()).await, Loss::Gone);
}

/// The delete's snapshot does not have the attribute, nor that the session has any: only a look after the
/// wait can take it along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attribute_inserted_during_delete_goes_with_session() {
    let (world, a, b, client) = nodes().await;
    let id = a.create(1).set("x", &1).await.unwrap().id();
    let text = id.expose();
    let script = format!(
        "UPDATE sessions SET version = version + 1, has_overflow = true WHERE id = '{text}';
         INSERT INTO session_attributes (session_id, key, value, version)
         SELECT id, 'late', '1', version FROM sessions WHERE id = '{text}'"
    );
    let update = Holder::begin(&world, &script).await;
    let delete = tokio::spawn(async move { b.delete(id).await });
    update.blocks(&client).await;
    update.commit().await;
    assert!(delete.await.unwrap().unwrap());
    assert_eq!(counts(&client).await, (0, 0));
}

/// Client: inserts the lock ┊ acquisition: finds the session alive, waits for the insert ┊ the session is deleted ┊ client:
/// rolls back · acquisition: inserts the lock. So the delete must wait for the acquisition, which holds the session, and look
/// for locks when it has waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_acquired_during_delete_goes_with_session() {
    let (world, a, b, client) = nodes().await;
    let id = a.create(1).await.unwrap().id();
    let script = format!(
        "INSERT INTO session_locks (session_id, name, owner, fence, acquired_at, expires_at)
         VALUES ('{}', 'checkout', gen_random_uuid(), 1, now(), now() + interval '1 hour')",
        id.expose()
    );
    let other = Holder::begin(&world, &script).await;
    let taking = tokio::spawn({
        let a = a.clone();
        async move { a.locks().session_lock(id, "checkout").lease(LEASE).await }
    });
    other.blocks(&client).await;
    let delete = tokio::spawn(async move { b.delete(id).await });
    other.blocks_many(&client, 2).await;
    other.client.batch_execute("ROLLBACK").await.unwrap();

    let lease = taking.await.unwrap().expect("it came before the end of the session");
    assert!(delete.await.unwrap().unwrap());
    assert_eq!(in_time("the loss is reported", lease.lost()).await, Loss::Gone);
    assert_eq!(rows(&client).await, [0, 0, 0]);
}

/// The plans are kept with the connection, and may be from a time when the table was small.
#[tokio::test]
async fn what_goes_with_a_session_is_looked_up() {
    const SESSIONS: i64 = 2_000;
    let world = World::new();
    let node = world.node().await;
    let client = world.client().await;
    // Planned anew each time; the trigger's plans are not.
    let delete = "DELETE FROM sessions WHERE id = $1";
    let create =
        |users: Range<i64>| all(users.map(async |user| node.create(UserId::from(user)).await.unwrap().id()));
    let few = create(0..20).await;
    client.batch_execute("ANALYZE sessions").await.unwrap();
    for id in &few[..10] {
        client.execute(delete, &[&id.expose()]).await.unwrap();
    }
    let ids = create(20..SESSIONS).await;
    client.batch_execute("BEGIN").await.unwrap();
    client.execute(delete, &[&ids[0].expose()]).await.unwrap();
    let read = "SELECT seq_tup_read FROM pg_stat_xact_all_tables WHERE relid = 'sessions'::regclass";
    let read: i64 = client.query_one(read, &[]).await.unwrap().get(0);
    assert!(read < SESSIONS, "all {read} rows were read");
    client.batch_execute("COMMIT").await.unwrap();
}
