//! Settings from a provider: a changed password, and a provider that fails, hangs or panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pg_listen::{Listener, Server};
use pg_sandbox::Sandbox;
use tokio::sync::watch;
use tokio_postgres::{Config, NoTls};

use crate::fixtures::{
    SANDBOX, TIMEOUT, eventually, expect_lost, expect_payload, expect_start, notify, started, unique,
};

const HBA: &str = "local all all trust
host all postgres all trust
host all all all scram-sha-256
";

#[tokio::test]
async fn a_listener_recovers_with_the_providers_new_password() {
    let sandbox = Sandbox::builder().file("pg_hba.conf", HBA).start().unwrap();
    let direct: Config = sandbox.url().parse().unwrap();
    let (client, connection) = direct.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    // PostgreSQL 13 would store an MD5 hash, which SCRAM cannot use.
    client
        .batch_execute("SET password_encryption = 'scram-sha-256'; CREATE ROLE app LOGIN PASSWORD 'first'")
        .await
        .unwrap();

    let (password, provided) = watch::channel("first");
    let port = sandbox.addr().port();
    let provider = move || {
        let mut config: Config =
            format!("host=127.0.0.1 port={port} user=app dbname=postgres").parse().unwrap();
        config.password(*provided.borrow());
        async { Ok(Server::new(config)) }
    };
    let listener = Listener::builder_with(provider)
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
        .start()
        .unwrap();
    let channel = unique("channel");
    let mut subscription = started(&listener, &channel).await;

    // Committed before the connection ends: the listener is back at once, and must not meet the old password.
    client.batch_execute("ALTER ROLE app PASSWORD 'second'").await.unwrap();
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    client.batch_execute(terminate).await.unwrap();
    expect_lost(&mut subscription).await;
    eventually("several refused attempts", async || listener.status().failures() >= 3).await;
    let status = listener.status();
    let error = status.last_error().unwrap();
    assert!(error.contains("password authentication failed"), "{error}");

    password.send("second").unwrap();
    expect_start(&mut subscription).await;
    notify(&client, &channel, "received").await;
    assert_eq!(expect_payload(&mut subscription).await, "received");
}

#[tokio::test]
async fn a_provider_that_fails_hangs_or_panics_is_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (allowed, allow) = watch::channel(0);
    let count = Arc::clone(&asked);
    let provider = move || {
        let (mut allow, time) = (allow.clone(), count.fetch_add(1, Ordering::SeqCst));
        async move {
            // The test looks at one failure before the next one comes.
            allow.wait_for(|allowed| *allowed >= time).await?;
            match time {
                0 => Err("the vault is sealed".into()),
                1 => std::future::pending().await,
                2 => panic!("hunter2"),
                _ => Ok(Server::new(SANDBOX.url().parse()?)),
            }
        }
    };
    let listener = Listener::builder_with(provider)
        .provider_timeout(TIMEOUT)
        .backoff(Duration::from_millis(1), Duration::from_millis(10))
        .start()
        .unwrap();
    let mut subscription = listener.subscribe(&unique("channel")).await.unwrap();
    for (time, expected) in ["the vault is sealed", "no answer within 1s", "panicked"].into_iter().enumerate()
    {
        allowed.send_replace(time);
        eventually(expected, async || {
            listener.status().last_error().is_some_and(|error| error.contains(expected))
        })
        .await;
        let status = listener.status();
        assert!(!status.last_error().unwrap().contains("hunter2"), "{status:?}");
    }
    allowed.send_replace(3);
    expect_start(&mut subscription).await;
    assert_eq!(listener.status().failures(), 0);
    assert!(asked.load(Ordering::SeqCst) >= 4);
}
