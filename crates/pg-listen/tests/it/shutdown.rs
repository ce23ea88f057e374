//! How a listener ends: for real, and once.

use std::time::{Duration, Instant};

use pg_listen::{ErrorKind, Listener, Phase};
use tokio::time::timeout;

use crate::fixtures::{Proxied, SANDBOX, WAIT_MAX, eventually, notify, started, unique};

#[tokio::test]
async fn shutdown_closes_the_connection_and_ends_every_subscription() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let channel = unique("shutdown");
    let mut subscription = started(&listener, &channel).await;
    let client = proxied.client().await;
    assert_eq!(proxied.backends(&client).await, 1);
    notify(&client, &channel, "queued").await;
    listener.barrier().await.unwrap();

    let other = listener.clone();
    tokio::join!(listener.shutdown(), other.shutdown());
    listener.shutdown().await;
    proxied.wait_for_backends(&client, 0).await;
    timeout(WAIT_MAX, proxied.proxy.wait_for_connections(0)).await.expect("the socket is closed");
    assert_eq!(crate::fixtures::expect_payload(&mut subscription).await, "queued");
    crate::fixtures::expect_in_sync(&mut subscription).await;
    assert!(subscription.recv().await.is_none());
    assert!(subscription.recv().await.is_none());

    assert_eq!(listener.status().phase(), Phase::Closed);
    assert_eq!(listener.subscribe("c").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(listener.barrier().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(listener.notify("c", "p").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(listener.wait_connected().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn the_last_handle_takes_the_listener_with_it() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let mut subscription = started(&listener, &unique("handles")).await;
    let other = listener.clone();
    drop(listener);
    other.barrier().await.unwrap();
    drop(other);
    crate::fixtures::expect_in_sync(&mut subscription).await;
    assert!(timeout(WAIT_MAX, subscription.recv()).await.expect("the end in time").is_none());
    proxied.wait_for_backends(&proxied.client().await, 0).await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_stalled_connection() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let _subscription = started(&listener, &unique("stalled")).await;
    proxied.proxy.stall();
    let waiting = tokio::spawn({
        let listener = listener.clone();
        async move { listener.barrier().await }
    });
    tokio::task::yield_now().await;
    let start = Instant::now();
    timeout(WAIT_MAX, listener.shutdown()).await.expect("an end");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn shutdown_without_a_connection_is_immediate() {
    let proxied = Proxied::new().await;
    proxied.proxy.refuse();
    let listener = proxied.listener().backoff(WAIT_MAX, WAIT_MAX).start().unwrap();
    let mut subscription = listener.subscribe(&unique("never")).await.unwrap();
    eventually("waiting to connect again", async || listener.status().phase() == Phase::Backoff).await;
    timeout(Duration::from_secs(4), listener.shutdown()).await.expect("no waiting for the backoff");
    assert!(subscription.recv().await.is_none());
}

#[tokio::test]
async fn a_listener_whose_runtime_ended_is_closed() {
    // Without a proxy, whose runtime this test blocks.
    let builder = Listener::builder(SANDBOX.url().parse().unwrap());
    let listener = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = builder.start().unwrap();
            listener.wait_connected().await.unwrap();
            listener
        })
    });
    let listener = listener.join().unwrap();
    assert_eq!(listener.status().phase(), Phase::Closed);
    assert_eq!(listener.wait_connected().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_refused_listener_says_why_and_tries_again() {
    let mut config: tokio_postgres::Config = SANDBOX.url().parse().unwrap();
    config.dbname("no_such_database");
    let listener = Listener::builder(config).start().unwrap();
    let error = timeout(WAIT_MAX, listener.wait_connected()).await.expect("at once").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("no_such_database"), "{error}");
    eventually("it tries again", async || listener.status().failures() > 2).await;
    assert_eq!(listener.status().last_error_kind(), Some(ErrorKind::Refused));
}
