//! Several hosts in the connection string: one that accepts and never answers does not hide the next, for pool and listener.

use std::net::SocketAddr;
use std::time::Duration;

use pg_session::{Config, ErrorKind, SessionManager};

use crate::fixtures::in_time;
use crate::support::{World, eventually};

fn hosts(addrs: &[SocketAddr]) -> String {
    let list = |part: fn(&SocketAddr) -> String| addrs.iter().map(part).collect::<Vec<_>>().join(",");
    let (hosts, ports) = (list(|addr| addr.ip().to_string()), list(|addr| addr.port().to_string()));
    format!("host={hosts} port={ports} user=postgres dbname=postgres sslmode=disable")
}

fn config(world: &World) -> Config {
    let mut config = world.config();
    config.connect_timeout = Duration::from_secs(3);
    config.query_timeout = Duration::from_secs(1);
    config.trust_window = Duration::from_secs(2);
    config
}

/// The pool waits longer for a connection than a statement may take: these are separate limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_first_host_does_not_stop_the_start() {
    let world = World::in_postgres();
    let silent = world.silent_host().await;
    let url = hosts(&[silent.addr(), world.addr()]);
    let node = in_time("the node starts", SessionManager::connect(&url, config(&world))).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
    assert!(node.create(1).await.is_ok());
    let accepted = silent.connections();
    assert!(
        (1..=4).contains(&accepted),
        "the last good host comes first: {accepted} connections to the silent one"
    );
}

/// ```text
/// node    connected to host 1 ┊ host 1 falls silent: statements time out ── host 1 ── host 2: served, trusted
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_falls_silent_is_left_for_the_second() {
    let world = World::in_postgres();
    let first = world.proxy().await;
    let url = hosts(&[first.addr(), world.addr()]);
    let node = in_time("the node starts", SessionManager::connect(&url, config(&world))).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
    assert!(first.connections() >= 2, "pool and listener use the first host");

    first.stall();
    eventually("the pool reaches the second host", async || node.create(1).await.is_ok()).await;
    // Trust from before the stall ends first.
    eventually("the listener reaches the second host", async || node.catch_up().await.is_ok()).await;
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
    assert_eq!(node.status().connect_error, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_says_what_became_of_each_host() {
    let world = World::in_postgres();
    let silent = world.silent_host().await;
    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    let url = hosts(&[silent.addr(), closed]);
    let outcome = in_time("the start fails", SessionManager::connect(&url, config(&world))).await;
    let error = outcome.expect_err("no host answers");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = format!("{error:?}");
    assert!(text.contains("host 1: no connection to postgres within"), "{text}");
    assert!(text.contains("host 2: ") && text.contains("refused"), "{text}");
}
