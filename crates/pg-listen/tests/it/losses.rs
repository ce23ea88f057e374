//! Connections that end, in every way: announced once, and healed.

use pg_listen::{Event, LostReason, Phase, Subscription};
use pg_sandbox::Sandbox;

use crate::fixtures::{
    Proxied, drain, eventually, expect_lost, expect_payload, expect_start, next, notify, started, unique,
};

#[tokio::test]
async fn a_cut_connection_is_announced_once_and_made_again() {
    let proxied = Proxied::new().await;
    let listener = proxied.listener().start().unwrap();
    let channel = unique("cut");
    let mut subscription = started(&listener, &channel).await;
    let client = proxied.client().await;

    for round in 1..=5 {
        proxied.proxy.cut();
        assert_eq!(expect_lost(&mut subscription).await, LostReason::Connection);
        expect_start(&mut subscription).await;
        assert_eq!(listener.status().connections(), round + 1);
        notify(&client, &channel, "after").await;
        assert_eq!(expect_payload(&mut subscription).await, "after");
    }
}

#[tokio::test]
async fn a_terminated_backend_is_announced_to_every_subscription() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let channel = unique("terminated");
    let mut subscriptions = Vec::new();
    for name in [&channel, &channel, &unique("other")] {
        subscriptions.push(started(&listener, name).await);
    }
    let client = proxied.client().await;
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
    client.execute(terminate, &[&proxied.name]).await.unwrap();
    for subscription in &mut subscriptions {
        assert_eq!(expect_lost(subscription).await, LostReason::Connection);
        expect_start(subscription).await;
    }
    let error = listener.status().last_error().unwrap().to_owned();
    assert!(error.contains("terminating connection"), "{error}");
}

#[tokio::test]
async fn notifications_during_outage_are_reported_as_lost() {
    let proxied = Proxied::new().await;
    let listener = proxied.listener().start().unwrap();
    let channel = unique("away");
    let mut subscription = started(&listener, &channel).await;
    let client = proxied.client().await;

    proxied.proxy.refuse();
    proxied.proxy.cut();
    assert_eq!(expect_lost(&mut subscription).await, LostReason::Connection);
    notify(&client, &channel, "missed").await;
    proxied.proxy.accept();
    expect_start(&mut subscription).await;
    notify(&client, &channel, "received").await;
    assert_eq!(expect_payload(&mut subscription).await, "received");
}

#[tokio::test]
async fn a_long_outage_of_many_attempts_is_one_loss() {
    let proxied = Proxied::new().await;
    let listener = proxied.listener().start().unwrap();
    let mut subscription = started(&listener, &unique("outage")).await;

    proxied.proxy.refuse();
    proxied.proxy.cut();
    eventually("six failed attempts", async || listener.status().failures() >= 6).await;
    assert!(!listener.status().is_connected());
    proxied.proxy.accept();
    eventually("in sync again", async || listener.status().phase() == Phase::InSync).await;
    let (letters, _) = drain(&mut subscription);
    assert_eq!(letters.trim_start_matches('s'), "XLs");
    assert_eq!(listener.status().failures(), 0);
}

#[tokio::test]
async fn refused_at_start_is_waited_for_and_is_no_loss() {
    let proxied = Proxied::new().await;
    proxied.proxy.refuse();
    let listener = proxied.listener().start().unwrap();
    let channel = unique("refused");
    let mut subscription = listener.subscribe(&channel).await.unwrap();
    eventually("three failed attempts", async || listener.status().failures() >= 3).await;
    assert!(subscription.try_recv().is_none(), "nothing was received, so nothing was lost");

    proxied.proxy.accept();
    expect_start(&mut subscription).await;
    listener.notify(&channel, "at last").await.unwrap();
    assert_eq!(expect_payload(&mut subscription).await, "at last");
}

#[tokio::test]
async fn subscription_during_outage_starts_with_next_connection() {
    let proxied = Proxied::new().await;
    let listener = proxied.listener().start().unwrap();
    let mut early = started(&listener, &unique("early")).await;
    proxied.proxy.refuse();
    proxied.proxy.cut();
    assert_eq!(expect_lost(&mut early).await, LostReason::Connection);

    let mut late = listener.subscribe(&unique("late")).await.unwrap();
    proxied.proxy.accept();
    expect_start(&mut late).await;
    expect_start(&mut early).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_and_kill_are_two_losses_then_delivery_resumes() {
    let sandbox = Sandbox::start().unwrap();
    let proxied = Proxied::on(&sandbox).await;
    let listener = proxied.listener().start().unwrap();
    let channel = unique("server");
    let mut subscription = started(&listener, &channel).await;

    tokio::task::block_in_place(|| sandbox.restart()).unwrap();
    assert_eq!(expect_lost(&mut subscription).await, LostReason::Connection);
    expect_again(&proxied, &mut subscription, &channel).await;

    tokio::task::block_in_place(|| sandbox.kill()).unwrap();
    assert_eq!(expect_lost(&mut subscription).await, LostReason::Connection);
    tokio::task::block_in_place(|| sandbox.start_again()).unwrap();
    expect_again(&proxied, &mut subscription, &channel).await;
}

/// Back after a crash. The server may end a connection once more while it comes up, before `InSync` as well as after.
async fn expect_again(proxied: &Proxied, subscription: &mut Subscription, channel: &str) {
    loop {
        match next(subscription).await {
            Event::InSync { .. } => break,
            Event::Listening | Event::Lost(LostReason::Connection) => {}
            event => panic!("{event:?} before InSync"),
        }
    }
    notify(&proxied.client().await, channel, "again").await;
    assert_eq!(expect_payload(subscription).await, "again");
}
