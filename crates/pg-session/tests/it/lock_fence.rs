//! Fencing: tokens only grow, and what checks them refuses a holder who was overtaken.

use std::time::Duration;

use pg_session::testing::Guard;
use pg_session::{Fence, LockError, SessionManager};
use tokio_postgres::Client;

use crate::fixtures::in_time;
use crate::support::{WAIT_MAX, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fence_grows_across_releases_expiries_drops_and_thefts() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let client = world.client().await;
    let expire = "UPDATE session_locks SET expires_at = clock_timestamp()";
    let thief = "UPDATE session_locks SET owner = gen_random_uuid(), fence = fence + 1,
                                          expires_at = clock_timestamp() + interval '100 ms'";
    let mut last = 0;
    for round in 0..24 {
        let node = if round % 2 == 0 { &a } else { &b };
        let lease = node.locks().lock("x").wait(WAIT_MAX).await.unwrap();
        let fence = lease.fence().get();
        assert!(fence > last, "{fence} after {last}, round {round}");
        last = fence;
        match round % 4 {
            0 => lease.release().await.unwrap(),
            1 => client.batch_execute(expire).await.unwrap(),
            2 => client.batch_execute(thief).await.unwrap(),
            _ => drop(lease),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_the_fence_an_overtaken_holder_is_accepted() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let client = world.client().await;
    client.batch_execute(GUARDED).await.unwrap();
    for node in [&a, &b] {
        node.probes().remove(Guard::Fence);
    }
    let overtaken = a.locks().try_lock("x").await.unwrap();
    client.batch_execute("UPDATE session_locks SET expires_at = clock_timestamp()").await.unwrap();
    let next = b.locks().lock("x").wait(WAIT_MAX).await.unwrap();
    assert_eq!(write(&client, next.fence()).await, i64::from(BATCH));
    assert_eq!(
        write(&client, overtaken.fence()).await,
        i64::from(BATCH),
        "nothing tells it from the next holder"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquisition_that_fails_leaves_the_fence_as_it_is() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let lease = a.locks().try_lock("x").await.unwrap();
    for _ in 0..20 {
        assert!(matches!(b.locks().try_lock("x").await, Err(LockError::Held { .. })));
    }
    assert_eq!(b.locks().holder("x").await.unwrap().unwrap().fence, lease.fence());
    lease.release().await.unwrap();
    let lease = b.locks().try_lock("x").await.unwrap();
    lease.release().await.unwrap();
}

/// What the lock protects: a row that remembers the highest fence, and a record of each accepted write, in order.
/// `write_many` writes one by one, each checked, and returns how many were accepted.
const GUARDED: &str = "
    CREATE TABLE guarded (fence bigint NOT NULL, writes bigint NOT NULL);
    INSERT INTO guarded VALUES (0, 0);
    CREATE TABLE accepted (n bigserial PRIMARY KEY, fence bigint NOT NULL);
    CREATE FUNCTION write_many(token bigint, count integer) RETURNS integer LANGUAGE plpgsql AS $$
    DECLARE done integer := 0;
    BEGIN
        FOR i IN 1..count LOOP
            UPDATE guarded SET fence = token, writes = writes + 1 WHERE fence <= token;
            IF FOUND THEN
                done := done + 1;
                INSERT INTO accepted (fence) VALUES (token);
            END IF;
        END LOOP;
        RETURN done;
    END $$;";

/// Writes that one statement makes.
const BATCH: i32 = 250;

async fn write(client: &Client, fence: Fence) -> i64 {
    let row = client.query_one("SELECT write_many($1, $2)", &[&fence.get(), &BATCH]).await.unwrap();
    i64::from(row.get::<_, i32>(0))
}

/// The interleaving: a holder takes the lock and is overtaken: its row expires, as if it had been paused. It goes on
/// writing with its fence, beside the next holder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_accepted_with_lower_fence() {
    const HOLDERS: usize = 4;
    const TURNS: usize = 10;
    const STATEMENTS: usize = 4;
    let world = World::new();
    let nodes: [_; HOLDERS] = world.nodes().await;
    world.client().await.batch_execute(GUARDED).await.unwrap();
    let mut tasks = Vec::new();
    for (holder, node) in nodes.into_iter().enumerate() {
        let client = world.client().await;
        tasks.push(tokio::spawn(async move {
            let mut accepted = 0;
            for turn in 0..TURNS {
                accepted += work(&node, &client, holder + turn, STATEMENTS).await;
            }
            accepted
        }));
    }
    let mut accepted = 0;
    for task in tasks {
        accepted += in_time("the holder ends", task).await.unwrap();
    }

    let client = world.client().await;
    let counted = "SELECT count(*), count(*) FILTER (WHERE fence < before), count(DISTINCT fence)
                   FROM (SELECT fence, max(fence) OVER (ORDER BY n ROWS UNBOUNDED PRECEDING) AS before FROM accepted) a";
    let row = client.query_one(counted, &[]).await.unwrap();
    let (written, lower, fences): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let tried = i64::try_from(HOLDERS * TURNS * STATEMENTS).unwrap() * i64::from(BATCH);
    assert_eq!(tried, 40_000);
    assert_eq!(written, accepted, "each holder knows what was accepted");
    assert_eq!(lower, 0, "no write was accepted after one with a higher fence");
    assert!(written < tried, "holders that were overtaken went on writing, and were refused");
    assert!(fences > 1);
}

/// One acquisition and its writes; every third holder is overtaken in the middle of them.
async fn work(node: &SessionManager, client: &Client, turn: usize, statements: usize) -> i64 {
    let lease = node.locks().lock("x").wait(WAIT_MAX).lease(Duration::from_secs(10)).await.unwrap();
    let mut accepted = write(client, lease.fence()).await;
    if turn.is_multiple_of(3) {
        let expire = "UPDATE session_locks SET expires_at = clock_timestamp() WHERE fence = $1";
        client.execute(expire, &[&lease.fence().get()]).await.unwrap();
        // Another holder takes it and writes: this holder's next write comes after that.
        let next = node.locks().lock("x").wait(WAIT_MAX).await.unwrap();
        assert!(next.fence() > lease.fence());
        accepted += write(client, next.fence()).await;
        next.release().await.unwrap();
        for _ in 2..statements {
            let refused = write(client, lease.fence()).await;
            assert_eq!(refused, 0, "an overtaken holder's write was accepted");
        }
        return accepted;
    }
    for _ in 1..statements {
        accepted += write(client, lease.fence()).await;
    }
    lease.release().await.unwrap();
    accepted
}
