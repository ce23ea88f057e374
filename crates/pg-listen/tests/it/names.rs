//! Names of channels and sizes of payloads, at their limits.

use pg_listen::{CHANNEL_BYTES_MAX, ErrorKind, PAYLOAD_BYTES_MAX};

use crate::fixtures::{Proxied, drain, expect_payload, expect_start, notify, started};

#[tokio::test]
async fn every_valid_name_is_the_name_itself_to_the_server() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let client = proxied.client().await;
    let longest = "x".repeat(CHANNEL_BYTES_MAX);
    let longest_quotes = "\"".repeat(CHANNEL_BYTES_MAX);
    let names = [
        "UPPER and lower",
        "quo\"te",
        "it's",
        "a\"; DROP TABLE sessions; --",
        "back\\slash",
        "häßlich ☃",
        "select",
        " ",
        "$1",
        &longest,
        &longest_quotes,
    ];
    for name in names {
        let mut subscription = listener.subscribe(name).await.unwrap();
        assert_eq!(subscription.channel(), name);
        expect_start(&mut subscription).await;
        notify(&client, name, "from elsewhere").await;
        assert_eq!(expect_payload(&mut subscription).await, "from elsewhere");
        listener.notify(name, "from here").await.unwrap();
        assert_eq!(expect_payload(&mut subscription).await, "from here");
    }
}

#[tokio::test]
async fn names_that_differ_in_case_are_two_channels() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let mut lower = listener.subscribe("case_of_a_name").await.unwrap();
    let mut upper = listener.subscribe("CASE_OF_A_NAME").await.unwrap();
    expect_start(&mut lower).await;
    expect_start(&mut upper).await;
    notify(&proxied.client().await, "CASE_OF_A_NAME", "upper").await;
    listener.barrier().await.unwrap();
    assert_eq!(drain(&mut upper).1, ["upper"]);
    assert!(drain(&mut lower).1.is_empty());
}

#[tokio::test]
async fn an_invalid_name_is_a_typed_error_that_says_what_is_wrong() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    for (name, word) in [("", "empty"), (&*"x".repeat(64), "64 bytes"), ("a\0b", "NUL")] {
        let error = listener.subscribe(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Channel);
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(listener.notify(name, "").await.unwrap_err().kind(), ErrorKind::Channel);
    }
}

#[tokio::test]
async fn longest_payload_arrives_and_one_byte_more_is_an_error() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let mut subscription = started(&listener, "payloads_at_the_limit").await;

    let longest = "é".repeat(PAYLOAD_BYTES_MAX / 2) + "!";
    assert_eq!(longest.len(), PAYLOAD_BYTES_MAX);
    for payload in [&*longest, "", "it's \"quoted\" \\ $1"] {
        listener.notify("payloads_at_the_limit", payload).await.unwrap();
        assert_eq!(expect_payload(&mut subscription).await, payload);
    }
    for payload in ["x".repeat(PAYLOAD_BYTES_MAX + 1), "a\0b".to_owned()] {
        let error = listener.notify("payloads_at_the_limit", payload).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Payload);
    }
    assert_eq!(listener.status().connections(), 1, "nothing of this reached the server");
}

#[tokio::test]
async fn channels_are_bounded_and_the_bound_can_be_reached() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().start().unwrap();
    let mut subscriptions = Vec::new();
    for n in 0..1_024 {
        subscriptions.push(listener.subscribe(&format!("bounded_{n}")).await.unwrap());
    }
    let error = listener.subscribe("one too many").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    let mut again = listener.subscribe("bounded_7").await.unwrap(); // a channel that is there already
    expect_start(&mut again).await;
    let last = subscriptions.last_mut().unwrap();
    expect_start(last).await;
    notify(&proxied.client().await, "bounded_1023", "received").await;
    assert_eq!(expect_payload(last).await, "received");
}
