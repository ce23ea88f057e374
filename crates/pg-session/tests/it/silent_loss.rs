//! A firewall drops the idle connections of the pool without a message. At most one request is slow for it, and none fails.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use pg_sandbox::Proxy;
use pg_session::{SessionManager, UserId};
use tokio::time::Instant;
use tokio_postgres::NoTls;

use crate::fixtures::{all, driver_config, in_time, make, n};
use crate::support::World;

const QUERY_TIMEOUT: Duration = Duration::from_secs(4);
/// A request that takes longer is slow. Less than the shortest wait for a silent connection.
const SLOW: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug)]
enum PoolOf {
    Library,
    Application,
}

/// A node whose pool goes through `wire` and has `connections`, all of them idle.
async fn node(world: &World, wire: &Proxy, pool_of: PoolOf, connections: usize) -> SessionManager {
    let mut config = world.roomy();
    config.query_timeout = QUERY_TIMEOUT;
    config.pool_connections_max = connections;
    // No proof uses the connections while the test looks.
    config.trust_window = Duration::from_secs(300);
    let url = wire.url_for(&world.url);
    let builder = SessionManager::builder(config).listen_on(driver_config(&world.url));
    let builder = match pool_of {
        PoolOf::Library => builder.url(&url).unwrap(),
        PoolOf::Application => {
            let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
            let manager = Manager::from_config(driver_config(&url), NoTls, settings);
            builder.pool(Pool::builder(manager).max_size(connections).build().unwrap())
        }
    };
    let node = builder.connect().await.unwrap();
    in_time("the node is in sync", node.wait_until_trusted()).await.unwrap();
    let users = 0..i64::try_from(connections).unwrap();
    for outcome in all(users.map(async |user| node.user(user).list().await)).await {
        outcome.unwrap();
    }
    in_time("the pool is full", wire.wait_for_connections(connections)).await;
    node
}

/// What a request takes.
async fn timed<T>(request: impl IntoFuture<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let outcome = request.await;
    (outcome, began.elapsed())
}

async fn at_most_one_request_is_slow(pool_of: PoolOf, connections: usize) {
    let world = World::new();
    let wire = world.proxy().await;
    let node = node(&world, &wire, pool_of, connections).await;
    let mut session = make(&node, 1).await.remove(0);
    wire.forget();
    let mut times = Vec::new();
    for round in 0..connections + 2 {
        let (found, took) = timed(node.get(session.id()).bypass_cache()).await;
        assert_eq!(n(&found.unwrap().unwrap()), i64::try_from(round).unwrap() + 1, "{pool_of:?}");
        times.push(took);
        let (listed, took) = timed(node.user(UserId::from(0)).list()).await;
        assert_eq!(listed.unwrap().len(), 1);
        times.push(took);
        session.set("n", &(round + 2)).unwrap();
        let (updated, took) = timed(node.save(&mut session)).await;
        updated.unwrap();
        times.push(took);
    }
    let slow = times.iter().filter(|took| **took > SLOW).count();
    assert!(slow <= 1, "{pool_of:?}, {connections} connections: {times:?}");
    assert!(times[0] < QUERY_TIMEOUT, "within the caller's time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_loss_of_idle_connections_slows_one_request() {
    for connections in [1, 2, 8] {
        at_most_one_request_is_slow(PoolOf::Library, connections).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_loss_in_the_applications_pool_slows_one_request() {
    at_most_one_request_is_slow(PoolOf::Application, 8).await;
}

/// One of them is dead: the others answer, and stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_that_answer_are_kept() {
    let world = World::new();
    let wire = world.proxy().await;
    let node = node(&world, &wire, PoolOf::Library, 4).await;
    let client = world.client().await;
    let session = make(&node, 1).await.remove(0);
    // The read has no answer within its time, and its connection is closed.
    client.batch_execute("BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE").await.unwrap();
    in_time("an error", node.get(session.id()).bypass_cache()).await.unwrap_err();
    client.batch_execute("COMMIT").await.unwrap();
    in_time("the two that had no answer are closed", wire.wait_for_connections(2)).await;
    for _ in 0..8 {
        let (found, took) = timed(node.get(session.id()).bypass_cache()).await;
        assert!(found.unwrap().is_some() && took < SLOW, "{took:?}");
    }
    assert_eq!(wire.connections(), 2, "none of them was closed or made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_fails_when_connections_are_cut() {
    let world = World::new();
    let wire = world.proxy().await;
    let node = node(&world, &wire, PoolOf::Library, 4).await;
    let session = make(&node, 1).await.remove(0);
    for _ in 0..20 {
        let lists = all((0..4).map(async |user: i64| node.user(user).list().await));
        // The reads are sent first, or their connections are lent and not yet used.
        let cut = async { wire.cut() };
        let (lists, read, ()) = tokio::join!(lists, node.get(session.id()).bypass_cache(), cut);
        assert!(read.unwrap().is_some());
        for list in lists {
            list.unwrap();
        }
    }
}
