//! A real pgbouncer: its modes, its redirection to another server, its end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{net::TcpStream, time::Duration};

use pg_sandbox::{ErrorKind, PoolMode, Pooler, Sandbox};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

/// Longer than anything here takes, so that a hang is a failure and not a hang.
const LIMIT: Duration = Duration::from_secs(60);

async fn connect(url: &str) -> Client {
    let (client, connection) = timeout(LIMIT, tokio_postgres::connect(url, NoTls)).await.unwrap().unwrap();
    tokio::spawn(connection);
    client
}

/// A value over the simple protocol, which needs no prepared statement.
async fn value(client: &Client, sql: &str) -> String {
    let messages = timeout(LIMIT, client.simple_query(sql)).await.unwrap().unwrap();
    let row = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.unwrap().to_owned()
}

async fn backend(client: &Client) -> String {
    value(client, "SELECT pg_backend_pid()").await
}

async fn name(sandbox: &Sandbox, name: &str) {
    let sql = format!("CREATE TABLE who AS SELECT '{name}' AS name");
    connect(&sandbox.url()).await.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn transaction_mode_shares_server_connection_session_mode_not() {
    let sandbox = Sandbox::start().unwrap();
    for (mode, is_shared) in [(PoolMode::Transaction, true), (PoolMode::Session, false)] {
        let pooler = Pooler::builder(sandbox.addr(), mode).setting("default_pool_size", "2").start().unwrap();
        let (one, two) = (connect(&pooler.url()).await, connect(&pooler.url()).await);
        let (first, second) = (backend(&one).await, backend(&two).await);
        assert_eq!(first == second, is_shared, "{mode:?}: {first} and {second}");
    }
}

#[tokio::test]
async fn statement_mode_refuses_a_transaction() {
    let sandbox = Sandbox::start().unwrap();
    let pooler = Pooler::builder(sandbox.addr(), PoolMode::Statement).start().unwrap();
    let client = connect(&pooler.url()).await;
    assert_eq!(value(&client, "SELECT 7").await, "7");
    assert!(client.batch_execute("BEGIN; SELECT 1").await.is_err());
}

#[tokio::test]
async fn redirect_sends_new_and_idle_clients_to_the_other_server() {
    let (blue, green) = (Sandbox::start().unwrap(), Sandbox::start().unwrap());
    name(&blue, "blue").await;
    name(&green, "green").await;
    let pooler = Pooler::builder(blue.addr(), PoolMode::Transaction).start().unwrap();
    let url = pooler.url();
    let early = connect(&url).await;
    assert_eq!(value(&early, "SELECT name FROM who").await, "blue");
    pooler.redirect(green.addr()).unwrap();
    assert_eq!(value(&early, "SELECT name FROM who").await, "green");
    assert_eq!(value(&connect(&url).await, "SELECT name FROM who").await, "green");
    blue.stop().unwrap();
    assert_eq!(value(&early, "SELECT name FROM who").await, "green");
    assert_eq!(pooler.url(), url);
}

#[tokio::test]
async fn redirect_in_session_mode_waits_for_the_session_to_end() {
    let (blue, green) = (Sandbox::start().unwrap(), Sandbox::start().unwrap());
    name(&blue, "blue").await;
    name(&green, "green").await;
    let pooler = Pooler::builder(blue.addr(), PoolMode::Session).start().unwrap();
    let early = connect(&pooler.url()).await;
    assert_eq!(value(&early, "SELECT name FROM who").await, "blue");
    pooler.redirect(green.addr()).unwrap();
    assert_eq!(value(&early, "SELECT name FROM who").await, "blue", "the session keeps its connection");
    assert_eq!(value(&connect(&pooler.url()).await, "SELECT name FROM who").await, "green");
}

#[tokio::test]
async fn killed_pooler_breaks_connections_and_comes_back() {
    let sandbox = Sandbox::start().unwrap();
    let pooler = Pooler::builder(sandbox.addr(), PoolMode::Transaction).start().unwrap();
    let client = connect(&pooler.url()).await;
    pooler.kill().unwrap();
    pooler.kill().unwrap();
    assert!(client.batch_execute("SELECT 1").await.is_err());
    assert!(TcpStream::connect(pooler.addr()).is_err());
    assert_eq!(pooler.redirect(sandbox.addr()).unwrap_err().kind(), ErrorKind::NotRunning);
    pooler.start_again().unwrap();
    pooler.start_again().unwrap();
    assert_eq!(value(&connect(&pooler.url()).await, "SELECT 7").await, "7");
}

#[tokio::test]
async fn settings_and_users_reach_pgbouncer_and_change_at_run_time() {
    let sandbox = Sandbox::start().unwrap();
    connect(&sandbox.url()).await.batch_execute("CREATE ROLE app LOGIN").await.unwrap();
    let pooler = Pooler::builder(sandbox.addr(), PoolMode::Transaction)
        .user("app")
        .setting("query_wait_timeout", "17")
        .start()
        .unwrap();
    assert_eq!(Pooler::installed().unwrap(), pooler.version());
    let setting = |name: &str| {
        let rows = pooler.command("SHOW CONFIG").unwrap();
        let row = rows.into_iter().find(|row| row[0].as_deref() == Some(name)).unwrap();
        row[1].clone().unwrap()
    };
    assert_eq!(setting("query_wait_timeout"), "17");
    pooler.set("query_wait_timeout", "23").unwrap();
    assert_eq!(setting("query_wait_timeout"), "23");
    let app = connect(&pooler.url().replace("postgres@", "app@")).await;
    assert_eq!(value(&app, "SELECT current_user").await, "app");
    assert!(pooler.log().contains("listening on"), "{}", pooler.log());
    pooler.close().unwrap();
}

#[tokio::test]
async fn unusable_settings_are_refused_by_name() {
    let builder = || Pooler::builder(([127, 0, 0, 1], 1).into(), PoolMode::Session);
    for (name, value) in [("listen_port", "1"), ("", "1"), ("a b", "1"), ("verbose", "1\n[users]")] {
        let refused = builder().setting(name, value).start().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Setting);
        assert!(refused.to_string().contains(&format!("{name:?}")), "{refused}");
    }
    assert_eq!(builder().user("a\"b").start().unwrap_err().kind(), ErrorKind::Setting);
    let wrong = builder().setting("default_pool_size", "many").start().unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Start);
    assert!(wrong.to_string().contains("default_pool_size"), "{wrong}");
}
