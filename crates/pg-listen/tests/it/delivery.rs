//! Who receives what, and in which order.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use pg_listen::{ErrorKind, Event, NotifyQuery, Subscription};

use crate::fixtures::{
    Proxied, WAIT_MAX, drain, expect_payload, expect_start, next_but_in_sync, notify, started, unique,
};

#[tokio::test]
async fn notifications_arrive_in_the_order_of_their_commits() {
    let proxied = Proxied::new().await;
    let listener = proxied.listener().start().unwrap();
    let channel = unique("order");
    let mut subscription = started(&listener, &channel).await;

    let client = proxied.client().await;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    for n in 0..500 {
        notify(&client, &channel, &n.to_string()).await;
    }
    for n in 0..500 {
        match next_but_in_sync(&mut subscription).await {
            Event::Notification(received) => {
                assert_eq!(received.payload(), n.to_string());
                assert_eq!(received.channel(), channel);
                assert_eq!(received.process_id(), pid);
            }
            event => panic!("{event:?} instead of notification {n}"),
        }
    }
}

/// A pooler in transaction mode delivers the first, and loses the second.
///
/// ```text
/// listener   NOTIFY ── arrives with its answer ┊ idle: arrives
/// client                                       ┊ NOTIFY
/// ```
#[tokio::test]
async fn a_notification_says_whether_it_arrived_between_statements() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let channel = unique("between");
    let mut subscription = started(&listener, &channel).await;
    let arrived_between = async |subscription: &mut Subscription| match next_but_in_sync(subscription).await {
        Event::Notification(received) => received.arrived_between_statements(),
        event => panic!("{event:?} instead of a notification"),
    };
    listener.notify(&channel, "own").await.unwrap();
    assert!(!arrived_between(&mut subscription).await);
    let client = proxied.client().await;
    let began = tokio::time::Instant::now();
    loop {
        notify(&client, &channel, "foreign").await;
        if arrived_between(&mut subscription).await {
            break;
        }
        assert!(began.elapsed() < WAIT_MAX, "no statement runs");
    }
}

#[tokio::test]
async fn a_second_subscriber_does_not_replace_the_first() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let channel = unique("shared");
    let mut first = started(&listener, &channel).await;
    let client = proxied.client().await;
    notify(&client, &channel, "before the second").await;
    assert_eq!(expect_payload(&mut first).await, "before the second");

    let mut second = started(&listener, &channel).await;
    notify(&client, &channel, "for both").await;
    assert_eq!(expect_payload(&mut first).await, "for both");
    assert_eq!(expect_payload(&mut second).await, "for both");
}

#[tokio::test]
async fn channels_share_a_connection_and_do_not_mix() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let (one, two) = (unique("one"), unique("two"));
    let mut first = listener.subscribe(&one).await.unwrap();
    let mut second = listener.subscribe(&two).await.unwrap();
    expect_start(&mut first).await;
    expect_start(&mut second).await;

    let client = proxied.client().await;
    assert_eq!(proxied.backends(&client).await, 1);
    notify(&client, &one, "to one").await;
    notify(&client, &two, "to two").await;
    listener.barrier().await.unwrap();
    assert_eq!(payloads_of(&mut first), ["to one"]);
    assert_eq!(payloads_of(&mut second), ["to two"]);
}

#[tokio::test]
async fn notification_arrives_after_commit_never_after_rollback() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let channel = unique("transaction");
    let mut subscription = started(&listener, &channel).await;
    let mut client = proxied.client().await;

    let rolled_back = client.transaction().await.unwrap();
    NotifyQuery::new(&channel, "rolled back").unwrap().execute(&rolled_back).await.unwrap();
    rolled_back.rollback().await.unwrap();

    let committed = client.transaction().await.unwrap();
    NotifyQuery::new(&channel, "committed").unwrap().execute(&committed).await.unwrap();
    listener.barrier().await.unwrap();
    assert!(payloads_of(&mut subscription).is_empty(), "nothing before the commit");
    committed.commit().await.unwrap();
    listener.barrier().await.unwrap();
    assert_eq!(payloads_of(&mut subscription), ["committed"]);
}

#[tokio::test]
async fn notify_query_in_failed_transaction_is_database_error() {
    let proxied = Proxied::new().await;
    let mut client = proxied.client().await;
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("SELECT 1 / 0").await.unwrap_err();
    let error = NotifyQuery::new("c", "p").unwrap().execute(&transaction).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database);
}

#[tokio::test]
async fn concurrent_notifies_over_listening_connection_all_arrive() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let channel = unique("crowd");
    let mut subscription = started(&listener, &channel).await;

    let crowd: Vec<_> = (0..1_000)
        .map(|n| {
            let (listener, channel) = (listener.clone(), channel.clone());
            tokio::spawn(async move { listener.notify(&channel, n.to_string()).await })
        })
        .collect();
    for sender in crowd {
        sender.await.unwrap().unwrap();
    }
    listener.barrier().await.unwrap();
    let mut received: Vec<u32> =
        payloads_of(&mut subscription).iter().map(|payload| payload.parse().unwrap()).collect();
    received.sort_unstable();
    assert_eq!(received, (0..1_000).collect::<Vec<u32>>());
    assert_eq!(proxied.backends(&proxied.client().await).await, 1);
}

#[tokio::test]
async fn a_dropped_recv_loses_nothing() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let channel = unique("cancel");
    let mut subscription = started(&listener, &channel).await;

    let client = proxied.client().await;
    let mut received = Vec::new();
    for n in 0..100 {
        notify(&client, &channel, &n.to_string()).await;
        received.extend(poll_once_and_drop(&mut subscription).await);
    }
    listener.barrier().await.unwrap();
    while let Some(payload) = poll_once_and_drop(&mut subscription).await {
        received.push(payload);
    }
    assert_eq!(received, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// Polls one `recv` once and drops it; the payload, if that was enough to receive a notification.
async fn poll_once_and_drop(subscription: &mut Subscription) -> Option<String> {
    let mut recv = pin!(subscription.recv());
    match poll_fn(|cx| Poll::Ready(recv.as_mut().poll(cx))).await {
        Poll::Ready(Some(Event::Notification(notification))) => Some(notification.payload().to_owned()),
        Poll::Ready(_) | Poll::Pending => None,
    }
}

fn payloads_of(subscription: &mut Subscription) -> Vec<String> {
    drain(subscription).1
}
