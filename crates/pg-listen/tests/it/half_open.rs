//! Connections that look alive and are not: found by the barrier's deadline.

use std::time::{Duration, Instant};

use pg_listen::{Listener, LostReason, Subscription};
use pg_sandbox::{Direction, Sandbox};

use crate::fixtures::{
    Proxied, TIMEOUT, drain, eventually, expect_lost, expect_payload, expect_start, notify, started, unique,
};

/// The proxied's interval, its timeout, the last look, and what a busy machine needs to notice. (TCP itself would take a quarter
/// of an hour.)
const FOUND_WITHIN: Duration = Duration::from_millis(250 + 1_000 + 100 + 2_000);

#[tokio::test]
async fn a_stalled_connection_is_found_by_the_barrier() {
    let proxied = Proxied::new().await;
    let (_listener, mut subscription, channel) = start(&proxied).await;
    proxied.proxy.stall();
    expect_found(&mut subscription).await;

    let client = proxied.client().await;
    notify(&client, &channel, "missed").await;
    proxied.proxy.heal();
    expect_start(&mut subscription).await;
    notify(&client, &channel, "received").await;
    assert_eq!(
        expect_payload(&mut subscription).await,
        "received",
        "nothing of the dead connection after its Lost"
    );
}

#[tokio::test]
async fn a_connection_that_loses_what_it_sends_is_found() {
    let proxied = Proxied::new().await;
    let (_listener, mut subscription, channel) = start(&proxied).await;
    proxied.proxy.drop_direction(Direction::ToServer);
    let client = proxied.client().await;
    notify(&client, &channel, "still delivered").await;
    assert_eq!(expect_payload(&mut subscription).await, "still delivered");
    expect_found(&mut subscription).await;
    proxied.proxy.heal();
    expect_start(&mut subscription).await;
}

#[tokio::test]
async fn a_connection_that_loses_what_it_receives_is_found() {
    let proxied = Proxied::new().await;
    let (_listener, mut subscription, channel) = start(&proxied).await;
    proxied.proxy.drop_direction(Direction::ToClient);
    notify(&proxied.client().await, &channel, "swallowed").await;
    expect_found(&mut subscription).await;
    proxied.proxy.heal();
    expect_start(&mut subscription).await;
}

#[tokio::test]
async fn a_stall_is_found_by_an_unanswered_listen_too() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().barrier_timeout(TIMEOUT).start().unwrap();
    let mut subscription = started(&listener, &unique("first")).await;
    listener.barrier().await.unwrap();

    proxied.proxy.stall();
    let mut second = listener.subscribe(&unique("second")).await.unwrap();
    expect_found(&mut subscription).await;
    assert!(second.try_recv().is_none(), "it was not listening yet, so it lost nothing");
    proxied.proxy.heal();
    expect_start(&mut subscription).await;
    expect_start(&mut second).await;
}

#[tokio::test]
async fn a_connection_that_hangs_while_it_is_made_is_given_up() {
    let proxied = Proxied::new().await;
    proxied.proxy.stall();
    let listener = proxied.listener().start().unwrap();
    let mut subscription = listener.subscribe(&unique("hangs")).await.unwrap();
    eventually("an attempt given up", async || listener.status().failures() > 0).await;
    let error = listener.status().last_error().unwrap().to_owned();
    assert!(error.contains("no connection to postgres within 1s"), "{error}");
    proxied.proxy.heal();
    expect_start(&mut subscription).await;
}

#[tokio::test]
async fn a_slow_connection_is_not_a_dead_one() {
    let proxied = Proxied::new().await;
    let listener = proxied.listener().barrier_timeout(Duration::from_secs(10)).start().unwrap();
    let channel = unique("slow");
    let mut subscription = started(&listener, &channel).await;
    proxied.proxy.delay(Duration::from_millis(200));
    for _ in 0..3 {
        listener.barrier().await.unwrap();
    }
    let (letters, _) = drain(&mut subscription);
    assert!(letters.chars().all(|letter| letter == 's'), "{letters}");
    assert_eq!(listener.status().connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_is_a_loss_and_its_return_reconnects() {
    let sandbox = Sandbox::start().unwrap();
    let proxied = Proxied::on(&sandbox).await;
    let (_listener, mut subscription, channel) = start(&proxied).await;
    tokio::task::block_in_place(|| sandbox.pause()).unwrap();
    expect_found(&mut subscription).await;
    tokio::task::block_in_place(|| sandbox.resume()).unwrap();
    expect_start(&mut subscription).await;
    notify(&proxied.client().await, &channel, "back").await;
    assert_eq!(expect_payload(&mut subscription).await, "back");
}

/// Between two pings nothing wakes another listener, and the dead connection is found all the same.
#[tokio::test]
async fn a_stalled_connection_is_found_by_a_ping() {
    let proxied = Proxied::new().await;
    let listener = proxied.listener().pings().start().unwrap();
    let channel = unique("pings");
    let mut subscription = started(&listener, &channel).await;
    let client = proxied.client().await;
    let pinged =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND query = 'SELECT WHERE false'";
    eventually("a ping is sent", async || {
        client.query_one(pinged, &[&proxied.name]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let (letters, _) = drain(&mut subscription);
    assert_eq!(letters, "", "no barrier is sent unasked");
    listener.barrier().await.unwrap();
    proxied.proxy.stall();
    let (letters, _) = drain(&mut subscription);
    assert_eq!(letters, "s", "one is sent if a caller asks");
    expect_found(&mut subscription).await;
    proxied.proxy.heal();
    expect_start(&mut subscription).await;
}

async fn start(proxied: &Proxied) -> (Listener, Subscription, String) {
    let listener = proxied.listener().start().unwrap();
    let channel = unique("half_open");
    let subscription = started(&listener, &channel).await;
    (listener, subscription, channel)
}

async fn expect_found(subscription: &mut Subscription) {
    let start = Instant::now();
    assert_eq!(expect_lost(subscription).await, LostReason::BarrierTimeout);
    assert!(start.elapsed() < FOUND_WITHIN, "found after {:?}", start.elapsed());
}
