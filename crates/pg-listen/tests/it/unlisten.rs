//! What a dropped subscription leaves behind: nothing.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use crate::fixtures::{
    Proxied, SANDBOX, eventually, expect_listening, expect_payload, expect_start, notify, unique,
};

#[tokio::test]
async fn the_last_subscription_of_a_channel_takes_the_listen_with_it() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let channel = unique("unlisten");
    let mut first = listener.subscribe(&channel).await.unwrap();
    let mut second = listener.subscribe(&channel).await.unwrap();
    expect_start(&mut first).await;
    expect_start(&mut second).await;

    drop(first);
    listener.barrier().await.unwrap();
    let client = proxied.client().await;
    notify(&client, &channel, "the other still receives").await;
    assert_eq!(expect_payload(&mut second).await, "the other still receives");
    let unlisten = format!("UNLISTEN \"{channel}\"");
    assert!(!SANDBOX.log().contains(&unlisten));

    drop(second);
    eventually("UNLISTEN in the server's log", async || SANDBOX.log().contains(&unlisten)).await;
}

#[tokio::test]
async fn subscription_right_after_last_drop_misses_nothing() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let client = proxied.client().await;
    let channel = unique("again");
    let mut subscription = listener.subscribe(&channel).await.unwrap();
    for n in 0..100 {
        expect_listening(&mut subscription).await;
        notify(&client, &channel, &n.to_string()).await;
        assert_eq!(expect_payload(&mut subscription).await, n.to_string());
        drop(subscription);
        if n % 2 == 0 {
            tokio::task::yield_now().await; // sometimes the UNLISTEN is on its way already
        }
        subscription = listener.subscribe(&channel).await.unwrap();
    }
}

/// The race: the command waits for the task, its sender goes away, the task sweeps before it reads the command.
#[tokio::test]
async fn a_subscribe_that_is_cancelled_leaves_no_subscription() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    listener.wait_connected().await.unwrap();
    let prefix = unique("cancelled");
    for n in 0..50 {
        let channel = format!("{prefix}_{n}");
        let mut subscribe = pin!(listener.subscribe(&channel));
        let pending = poll_fn(|cx| Poll::Ready(subscribe.as_mut().poll(cx).is_pending())).await;
        assert!(pending, "the task cannot have answered yet");
    }
    listener.barrier().await.unwrap();
    // Where LISTEN was sent at all, UNLISTEN follows it.
    eventually("as many UNLISTEN as LISTEN", async || {
        let log = SANDBOX.log();
        let listens = log.matches(&format!(" LISTEN \"{prefix}_")).count();
        listens == log.matches(&format!("UNLISTEN \"{prefix}_")).count()
    })
    .await;
}
