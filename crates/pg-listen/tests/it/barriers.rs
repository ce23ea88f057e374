//! What a barrier proves, and what does not count as one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pg_listen::{ErrorKind, Event, LostReason, Phase};
use pg_sandbox::Direction;
use tokio::time::timeout;

use crate::fixtures::{
    Proxied, SANDBOX, WAIT_MAX, drain, eventually, expect_in_sync, expect_start, next_but_in_sync, notify,
    started, unique,
};

#[tokio::test]
async fn barrier_returns_after_earlier_commits_are_queued() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let channel = unique("before");
    let mut subscription = started(&listener, &channel).await;

    // On the server each commit comes before the barrier; nothing here waits for a notification to arrive.
    let client = proxied.client().await;
    for round in 0..50_usize {
        for n in 0..round {
            notify(&client, &channel, &n.to_string()).await;
        }
        let committed = Instant::now();
        let as_of = listener.barrier().await.unwrap();
        assert!((committed..=Instant::now()).contains(&as_of));
        let (letters, payloads) = drain(&mut subscription);
        assert_eq!(letters, format!("{}s", "n".repeat(round)));
        assert_eq!(payloads, (0..round).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(listener.status().as_of(), Some(as_of));
    }
}

#[tokio::test]
async fn a_barrier_reaches_every_subscription_before_its_caller() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let mut subscriptions = Vec::new();
    for n in 0..10 {
        subscriptions.push(started(&listener, &unique(&format!("all{n}"))).await);
    }
    let asked = Instant::now();
    let as_of = listener.barrier().await.unwrap();
    for subscription in &mut subscriptions {
        let mut last = None;
        while let Some(Event::InSync { as_of }) = subscription.try_recv() {
            last = Some(as_of);
        }
        assert_eq!(last, Some(as_of));
    }
    assert!(asked <= as_of);
}

#[tokio::test]
async fn callers_who_ask_together_share_barriers() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    listener.wait_connected().await.unwrap();
    listener.barrier().await.unwrap();

    proxied.proxy.delay(Duration::from_millis(100)); // a barrier now takes 200 ms, far longer than it takes to ask
    let crowd: Vec<_> = (0..200)
        .map(|_| {
            let listener = listener.clone();
            tokio::spawn(async move { (Instant::now(), listener.barrier().await.unwrap()) })
        })
        .collect();
    let mut barriers = BTreeSet::new();
    for caller in crowd {
        let (asked, as_of) = caller.await.unwrap();
        assert!(asked <= as_of, "a barrier sent before it was asked for proves too little");
        barriers.insert(as_of);
    }
    assert!(barriers.len() <= 5, "{} barriers for 200 callers", barriers.len());
}

#[tokio::test]
async fn barriers_are_sent_without_being_asked_for() {
    let proxied = Proxied::new().await;
    let listener = proxied.listener().start().unwrap();
    let mut subscription = listener.subscribe(&unique("idle")).await.unwrap();
    let mut last = expect_start(&mut subscription).await;
    for _ in 0..4 {
        let as_of = expect_in_sync(&mut subscription).await;
        assert!(as_of - last >= Duration::from_millis(240), "not more often than the interval says");
        last = as_of;
    }
    assert_eq!(listener.status().phase(), Phase::InSync);
    assert_eq!(listener.status().connections(), 1);
}

#[tokio::test]
async fn a_forged_barrier_does_not_count() {
    let proxied = Proxied::new().await;
    let listener = proxied.listener().start().unwrap();
    let channel = unique("forged");
    let mut subscription = started(&listener, &channel).await;

    // A superuser sees the private channel and the last nonce in the log: more than a forger may hope for.
    let forger = proxied.client().await;
    proxied.proxy.drop_direction(Direction::ToServer);
    let log = SANDBOX.log();
    let mut barriers =
        log.lines().filter(|line| line.contains(&proxied.name) && line.contains("$1 = 'pg_listen_"));
    let last = barriers.next_back().expect("the log has the parameters of a barrier");
    let mut values = last.split('\'').skip(1).step_by(2);
    let private = values.next().expect("a barrier's channel").to_owned();
    let nonce = values.next().expect("a nonce").to_owned();
    let (count, random) = nonce.split_once('-').expect("a count and random bits");
    let guess = format!("{:x}-{random}", u64::from_str_radix(count, 16).unwrap() + 1);

    // Forgeries keep coming while the next barrier is awaited, until its deadline.
    let before = Instant::now();
    while subscription.try_recv().is_some() {}
    loop {
        for payload in ["", "x", &nonce, &guess] {
            notify(&forger, &private, payload).await;
        }
        notify(&forger, &channel, "the forgeries have arrived").await;
        match next_but_in_sync(&mut subscription).await {
            Event::Notification(_) => {}
            Event::Lost(reason) => break assert_eq!(reason, LostReason::BarrierTimeout),
            event => panic!("{event:?}"),
        }
    }
    assert!(listener.status().as_of().unwrap() < before, "no barrier counted after its way was closed");
}

#[tokio::test]
async fn a_churn_of_subscriptions_does_not_hold_up_barriers() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    listener.wait_connected().await.unwrap();
    let churn = tokio::spawn({
        let listener = listener.clone();
        async move {
            loop {
                drop(listener.subscribe(&unique("churn")).await.unwrap());
            }
        }
    });
    for _ in 0..100 {
        let took = timeout(WAIT_MAX, listener.barrier()).await.expect("a turn for the barrier");
        took.unwrap();
    }
    churn.abort();
}

#[tokio::test]
async fn without_a_connection_there_is_a_typed_error_and_no_waiting() {
    let proxied = Proxied::new().await;
    proxied.proxy.refuse();
    let listener = proxied.quiet_listener().start().unwrap();
    eventually("a refused attempt", async || listener.status().failures() > 0).await;
    assert_eq!(listener.barrier().await.unwrap_err().kind(), ErrorKind::Connection);
    assert_eq!(listener.notify("c", "p").await.unwrap_err().kind(), ErrorKind::Connection);
    assert!(listener.status().last_error().is_some());
}

#[tokio::test]
async fn a_barrier_under_way_fails_with_its_connection() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    listener.wait_connected().await.unwrap();
    listener.barrier().await.unwrap();
    proxied.proxy.cut_after(0, Direction::ToServer);
    assert_eq!(listener.barrier().await.unwrap_err().kind(), ErrorKind::Connection);
}
