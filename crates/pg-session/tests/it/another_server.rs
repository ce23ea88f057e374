//! A listener that works and reaches another database or server than the pool: never trusted.

use std::time::Duration;

use deadpool_postgres::{Manager, Pool};
use pg_sandbox::Sandbox;
use pg_session::{Config, Error, ErrorKind, SessionManager};
use tokio_postgres::NoTls;

use crate::fixtures::{driver_config, hit, in_time, make, read};
use crate::support::{World, eventually};

fn config(world: &World) -> Config {
    let mut config = world.roomy();
    config.query_timeout = Duration::from_secs(3);
    config.trust_window = Duration::from_secs(1);
    config
}

async fn connect(world: &World, listen_on: &str) -> Result<SessionManager, Error> {
    let builder = SessionManager::builder(config(world)).url(&world.url)?;
    builder.listen_on(driver_config(listen_on)).connect().await
}

#[tokio::test]
async fn a_listener_on_another_database_is_refused_at_start() {
    let (world, other) = (World::new(), World::in_own_database().await);
    let error = connect(&world, &other.url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`listen_on`"), "{error}");
}

#[tokio::test]
async fn a_listener_on_another_server_is_refused_at_start() {
    let (world, sandbox) = (World::new(), Sandbox::start().unwrap());
    let error = connect(&world, &sandbox.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`listen_on`"), "{error}");
}

#[tokio::test]
async fn a_refused_listener_leaves_no_tables_behind() {
    let (world, other) = (World::new(), World::in_own_database().await);
    let client = world.client().await;
    let exists = async || -> bool {
        let text = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
        client.query_one(text, &[&world.schema]).await.unwrap().get(0)
    };
    let error = connect(&world, &other.url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`listen_on`"), "{error}");
    assert!(!exists().await, "another database");
    // Nothing listens at port 1.
    let error = connect(&world, "postgres://postgres@127.0.0.1:1/postgres").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!exists().await, "no server");
    // The application's pool, and the listener at the address of `url`.
    let pool = Pool::builder(Manager::new(driver_config(&world.url), NoTls)).max_size(2).build().unwrap();
    let builder = SessionManager::builder(config(&world)).pool(pool).url(&other.url).unwrap();
    let error = builder.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(!exists().await, "another database than the application's pool");
    let node = connect(&world, &world.url).await.unwrap();
    in_time("the node is trusted", node.wait_until_trusted()).await.unwrap();
    assert!(exists().await, "the right address");
}

/// ```text
/// B   listens on the server that the pool uses ┊ reconnects: to another server ── never trusted there
/// A                                            ┊ deletes a session that B has cached
/// ```
#[tokio::test]
async fn a_listener_that_moves_to_another_server_ends_trust() {
    let (world, sandbox) = (World::in_postgres(), Sandbox::start().unwrap());
    let [a] = world.nodes().await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, config(&world)).await;
    let id = make(&a, 1).await[0].id();
    read(&b, id).await;
    assert!(hit(&b, id).is_some());

    wire.redirect(sandbox.addr());
    wire.cut();
    let other = World::on(&sandbox).client().await;
    // The listener's own barrier: it is in sync there.
    let barriers = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_catalog.pg_notify(%'";
    eventually("B listens on the other server", async || {
        other.query_one(barriers, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    assert!(b.status().trusted_for.is_none());
    assert!(a.delete(id).await.unwrap());
    assert!(in_time("it is read", b.get(id)).await.unwrap().is_none());
    assert!(b.catch_up().await.is_err(), "it does not receive what the pool sends");
    assert!(b.status().trusted_for.is_none(), "its own barriers prove nothing");

    wire.redirect(world.addr());
    wire.cut();
    in_time("B is trusted again", b.wait_until_trusted()).await.unwrap();
}
