//! What a dropped subscription leaves behind: nothing.

use crate::stage::{
    SANDBOX, Stage, eventually, expect_listening, expect_payload, expect_start, notify, unique,
};

#[tokio::test]
async fn the_last_subscription_of_a_channel_takes_the_listen_with_it() {
    let stage = Stage::new().await;
    let listener = stage.quiet_listener().start().unwrap();
    let channel = unique("unlisten");
    let mut first = listener.subscribe(&channel).await.unwrap();
    let mut second = listener.subscribe(&channel).await.unwrap();
    expect_start(&mut first).await;
    expect_start(&mut second).await;

    drop(first);
    listener.barrier().await.unwrap();
    let client = stage.client().await;
    notify(&client, &channel, "the other still hears").await;
    assert_eq!(expect_payload(&mut second).await, "the other still hears");
    let unlisten = format!("UNLISTEN \"{channel}\"");
    assert!(!SANDBOX.log().contains(&unlisten));

    drop(second);
    eventually("UNLISTEN in the server's log", async || SANDBOX.log().contains(&unlisten)).await;
}

#[tokio::test]
async fn a_subscription_made_right_after_the_last_was_dropped_hears_everything() {
    let stage = Stage::new().await;
    let listener = stage.quiet_listener().start().unwrap();
    let client = stage.client().await;
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

#[tokio::test]
async fn a_subscribe_that_is_cancelled_leaves_no_subscription() {
    let stage = Stage::new().await;
    let listener = stage.quiet_listener().start().unwrap();
    listener.wait_connected().await.unwrap();
    let channel = unique("cancelled");
    {
        let mut subscribe = std::pin::pin!(listener.subscribe(&channel));
        let pending =
            std::future::poll_fn(|cx| std::task::Poll::Ready(subscribe.as_mut().poll(cx).is_pending()));
        assert!(pending.await, "the task has not answered yet");
    }
    // If LISTEN was sent at all, UNLISTEN follows it.
    listener.barrier().await.unwrap();
    let (listen, unlisten) = (format!(" LISTEN \"{channel}\""), format!("UNLISTEN \"{channel}\""));
    eventually("UNLISTEN after a LISTEN", async || {
        let log = SANDBOX.log();
        !log.contains(&listen) || log.contains(&unlisten)
    })
    .await;
}
