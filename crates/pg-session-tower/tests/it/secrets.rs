//! A story over HTTP, and what others could see of it: tables, notifications, the server's log with every statement and
//! parameter, and our own log at its finest. Nothing in there logs a person in.

use std::future::poll_fn;
use std::io::Write;
use std::str::FromStr;

use pg_sandbox::Sandbox;
use tokio_postgres::AsyncMessage;

use crate::captured_logs::{self, CapturedLogs};
use crate::edge;
use crate::http::browser::{Browser, Reply};
use crate::http::world::{Site, eventually};

/// On one thread, so that this test's subscriber receives every event.
#[tokio::test]
async fn login_secrets_appear_in_no_table_notification_or_log() {
    captured_logs::init();
    let sandbox = Sandbox::builder().setting("log_statement", "all").start().expect("PostgreSQL starts");
    // After seconds: no other test is still about to meet a callsite for the first time, from before there was a subscriber.
    let logged = CapturedLogs::default();
    let _listening = logged.listen();
    let site = Site::on(&sandbox, edge::serve).await;
    let (_client, notified) = listen(&site, &channel(&sandbox.log())).await;

    let mut tokens = story(&site).await;
    let tables = tables(&site).await;
    tokens.sort();
    tokens.dedup();
    assert!(tokens.len() >= 6, "each step issued one: {}", tokens.len());

    let id = site.signer.verify(&tokens[0]).expect("authentic").id.expose();
    let log = sandbox.log();
    assert!(log.contains(&id.to_string()), "the server's log has the ids, or this test reads the wrong one");
    eventually("notifications were received", async || !notified.text().is_empty()).await;
    let own = logged.text();
    assert!(own.contains("rejected") && own.contains("not saved"), "our own log is listened to: {own}");
    assert!(tables.contains("cart"), "the tables were read");
    for (place, text) in
        [("log", own), ("server's log", log), ("tables", tables), ("channel", notified.text())]
    {
        for token in &tokens {
            assert!(!text.contains(token.as_str()), "a token in the {place}");
            // The signature, without which the rest is worth nothing.
            assert!(!text.contains(&token[token.len() - 42..]), "a signature in the {place}");
        }
    }
}

/// A little of everything; the tokens that were issued on the way.
async fn story(site: &Site) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut note = |reply: &Reply| {
        for cookie in reply.cookies() {
            let value = cookie.split_once('=').expect("a cookie").1.split(';').next().expect("a value");
            if !value.is_empty() {
                tokens.push(value.to_owned());
            }
        }
    };
    let mut browser = site.browser();
    // Too large to be inline.
    let notes = format!("/set/notes/{}", "x".repeat(600));
    for path in [
        "/set/cart/apples",
        "/login/42",
        &*notes,
        "/set/cart/pears",
        "/elevate",
        "/flash/hello",
        "/flash",
        "/count",
    ] {
        note(&browser.get(path).await);
    }
    let mut phone: Browser = site.browser();
    note(&phone.get("/login/42").await);
    let slow = tokio::spawn({
        let mut tab = phone.tab();
        async move { tab.get("/slow/cart/late").await }
    });
    site.gate.reached().await;
    note(&browser.get("/logout-others").await);
    site.gate.open();
    assert_eq!(slow.await.expect("a reply").status, 409);
    let mut forger = browser.tab();
    // Another last character: one of 64 tokens ends with an x by itself.
    let (signed, last) = tokens[0].split_at(tokens[0].len() - 1);
    let forged = format!("{signed}{}", if last == "x" { "y" } else { "x" });
    forger.plant(&forged);
    forger.get("/user").await;
    tokens
}

async fn tables(site: &Site) -> String {
    let client = site.client().await;
    let mut text = String::new();
    for table in ["sessions", "session_attributes", "session_locks"] {
        let rows = client.query(&format!("SELECT t::text FROM {table} t"), &[]).await.expect("its rows");
        // Small attributes are inline, and the notes overflow.
        assert!(!rows.is_empty() || table == "session_locks", "{table} was read");
        for row in rows {
            text += row.get::<_, &str>(0);
        }
    }
    text
}

/// The channel that the nodes use, from what they said to the server.
fn channel(log: &str) -> String {
    let (_, rest) = log.split_once("pg_session_").expect("a log line of LISTEN");
    format!("pg_session_{}", rest.split(|char: char| !char.is_ascii_hexdigit()).next().expect("a digest"))
}

/// Any role may do this.
async fn listen(site: &Site, channel: &str) -> (tokio_postgres::Client, CapturedLogs) {
    let config = tokio_postgres::Config::from_str(&site.url).expect("the sandbox's URL parses");
    let (client, mut connection) = config.connect(tokio_postgres::NoTls).await.expect("the server answers");
    let received = CapturedLogs::default();
    let mut into = received.clone();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notification) = message {
                writeln!(into, "{}", notification.payload()).expect("memory takes it");
            }
        }
    });
    client.batch_execute(&format!("LISTEN \"{channel}\"")).await.expect("it listens");
    (client, received)
}
