//! Several hosts: one that accepts and never answers does not keep the listener from the next.

use std::net::SocketAddr;

use pg_listen::{Listener, Phase};
use pg_sandbox::Proxy;
use tokio_postgres::Config;

use crate::fixtures::{
    Proxied, SANDBOX, TIMEOUT, eventually, expect_lost, expect_payload, expect_start, notify, started, unique,
};

/// A host that accepts each connection and never sends a byte.
async fn silent_host() -> Proxy {
    let host = Proxy::start(SANDBOX.addr()).await.unwrap();
    host.stall();
    host
}

/// Both hosts, the first one first.
fn hosts(first: SocketAddr, second: SocketAddr, name: &str) -> Config {
    let both = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user=postgres dbname=postgres application_name={name} \
         target_session_attrs=read-write",
        first.port(),
        second.port()
    );
    both.parse().unwrap()
}

#[tokio::test]
async fn a_silent_first_host_does_not_hide_the_second() {
    let (proxied, silent) = (Proxied::new().await, silent_host().await);
    let listener = Listener::builder(hosts(silent.addr(), SANDBOX.addr(), &proxied.name))
        .connect_timeout(TIMEOUT)
        .start()
        .unwrap();
    let channel = unique("channel");
    let mut subscription = started(&listener, &channel).await;
    let client = proxied.client().await;
    notify(&client, &channel, "received").await;
    assert_eq!(expect_payload(&mut subscription).await, "received");
    assert_eq!(silent.connections(), 1);

    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
    client.execute(terminate, &[&proxied.name]).await.unwrap();
    expect_lost(&mut subscription).await;
    expect_start(&mut subscription).await;
    assert_eq!(silent.connections(), 1, "the last good host comes first");
}

#[tokio::test]
async fn a_first_host_that_falls_silent_is_left_for_the_second() {
    let proxied = Proxied::new().await;
    let first = Proxy::start(SANDBOX.addr()).await.unwrap();
    let listener = Listener::builder(hosts(first.addr(), SANDBOX.addr(), &proxied.name))
        .barrier_interval(TIMEOUT / 4)
        .barrier_timeout(TIMEOUT)
        .connect_timeout(TIMEOUT)
        .start()
        .unwrap();
    let mut subscription = started(&listener, &unique("channel")).await;
    assert_eq!(first.connections(), 1, "the first host is the one in use");
    first.stall();
    expect_lost(&mut subscription).await;
    expect_start(&mut subscription).await;
}

#[tokio::test]
async fn an_error_says_what_became_of_each_host() {
    let silent = silent_host().await;
    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    let listener =
        Listener::builder(hosts(silent.addr(), closed, "nobody")).connect_timeout(TIMEOUT).start().unwrap();
    eventually("a failed attempt", async || listener.status().phase() == Phase::Backoff).await;
    let status = listener.status();
    let error = status.last_error().unwrap();
    assert!(error.contains("host 1: no connection to postgres within"), "{error}");
    assert!(error.contains("host 2: ") && error.contains("refused"), "{error}");
}
