//! A manager that outlives the tokio runtime in which it was connected: in a `static` beside `#[tokio::test]`, or with two
//! `block_on`. Its tasks are gone, so no call may wait for them.

use std::time::Duration;

use pg_session::{Error, ErrorKind, SessionId, SessionManager};
use tokio::runtime::{Builder, Runtime};

use crate::fixtures::{in_time, make};
use crate::support::{World, eventually};

fn runtimes() -> [Runtime; 2] {
    let single = Builder::new_current_thread().enable_all().build().unwrap();
    let multi = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    [single, multi]
}

async fn begin(world: &World) -> (SessionManager, SessionId) {
    let node = world.node().await;
    let id = make(&node, 1).await[0].id();
    (node, id)
}

fn explains<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    let error = outcome.expect_err("it cannot work");
    assert_eq!(error.kind(), ErrorKind::ShuttingDown, "{error:?}");
    assert!(error.to_string().contains("tokio runtime"), "{error}");
}

#[test]
fn calls_after_the_end_of_the_runtime_are_errors() {
    for first in runtimes() {
        let world = World::new();
        let (node, id) = first.block_on(begin(&world));
        drop(first);
        Runtime::new().unwrap().block_on(async {
            explains(in_time("trusted", node.wait_until_trusted()).await);
            explains(in_time("catch_up", node.catch_up()).await);
            explains(in_time("get", node.get(id)).await);
            explains(in_time("get", node.get(id).bypass_cache()).await);
            explains(in_time("create", node.create(2)).await);
            explains(in_time("delete", node.delete(id)).await);
            explains(in_time("cleanup", node.cleanup()).await);
            let locked = in_time("lock", node.locks().lock("cart")).await.expect_err("it cannot work");
            assert!(format!("{locked:?}").contains("tokio runtime"), "{locked:?}");
            let status = node.status();
            assert!(status.trusted_for.is_none());
            assert!(status.trust_error.expect("a reason").contains("tokio runtime"));
            assert!(in_time("shutdown", node.shutdown(Duration::from_secs(5))).await.all_tasks_ended);
        });
    }
}

/// ```text
/// runtime 1   the node's tasks ┊ a load waits for a lock on the table ┊ ends
/// runtime 2                    ┊ get ──────────────────────────────────────▶ an error
/// ```
#[test]
fn a_read_in_flight_ends_with_the_runtime() {
    for first in runtimes() {
        let world = World::new();
        let (node, id) = first.block_on(begin(&world));
        let second = Runtime::new().unwrap();
        // The loader's runtime must run beside the reader.
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = std::thread::spawn(move || first.block_on(stopped));
        second.block_on(async {
            let client = world.client().await;
            client.batch_execute("BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE").await.unwrap();
            let read = tokio::spawn({
                let node = node.clone();
                async move { node.get(id).bypass_cache().await.map(|_| ()) }
            });
            let waits = "SELECT count(*) FROM pg_stat_activity
                         WHERE wait_event_type = 'Lock' AND query LIKE $1";
            let pattern = format!("%{}%", world.schema);
            let observer = world.client().await;
            eventually("the load waits", async || {
                observer.query_one(waits, &[&pattern]).await.unwrap().get::<_, i64>(0) > 0
            })
            .await;
            stop.send(()).unwrap();
            explains(in_time("the read ends", read).await.unwrap());
            client.batch_execute("ROLLBACK").await.unwrap();
        });
        running.join().unwrap().unwrap();
    }
}
