//! Runs every SQL and Rust block of the documents, on a real PostgreSQL. `build.rs` reads them.

use std::env::VarError;
use std::net::SocketAddr;
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, SessionManager};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::NoTls;

use crate::support::WAIT_MAX;
use crate::web::http::HttpBrowser;

/// A block that no test runs does not compile: it has a function that nothing calls.
#[deny(dead_code)]
#[allow(unused_imports, unused_variables, reason = "a document shows, a program uses")]
mod blocks {
    include!(concat!(env!("OUT_DIR"), "/blocks.rs"));
}

/// Page, place and text of each SQL block.
const SQL: &[(&str, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/statements.rs"));

/// For the Rust blocks. The tables are in `public`, where the documents expect them.
static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| Sandbox::start().expect("PostgreSQL starts"));

type Addresses = (mpsc::Sender<SocketAddr>, std::sync::Mutex<mpsc::Receiver<SocketAddr>>);
/// Where the program of the README serves.
static ADDRESSES: LazyLock<Addresses> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel();
    (sender, receiver.into())
});

/// In place of a documented connection string.
pub(crate) fn url(_documented: &str) -> &'static str {
    static URL: LazyLock<String> = LazyLock::new(|| SANDBOX.url());
    &URL
}

/// In place of `std::env::var`.
pub(crate) fn variable(name: &str) -> Result<String, VarError> {
    match name {
        "DATABASE_URL" => Ok(url("").to_owned()),
        // As `openssl rand -base64 32` writes one.
        "SESSION_KEY" => Ok(format!("{}=", "A".repeat(43))),
        _ => Err(VarError::NotPresent),
    }
}

/// In place of `TcpListener::bind`, on a free port that the test learns of.
pub(crate) async fn bind(_documented: &str) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ADDRESSES.0.send(listener.local_addr()?).expect("the test waits");
    Ok(listener)
}

async fn applied() -> SessionManager {
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    SessionManager::connect(url(""), config).await.expect("a node")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_of_the_readme_counts_visits() {
    // It serves until this process ends.
    std::thread::spawn(|| blocks::readme_1::main().expect("the program runs"));
    let address = tokio::task::spawn_blocking(|| {
        let addresses = ADDRESSES.1.lock().expect("one test waits");
        addresses.recv_timeout(WAIT_MAX).expect("the program serves")
    });
    let page = format!("http://{}/", address.await.expect("an address"));
    let mut browser = HttpBrowser::new();
    for visit in 1..=3 {
        assert_eq!(browser.get(&page).await.body, format!("visit number {visit}\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_on_checked_updates_does_what_it_says() {
    let sessions = applied().await;
    let session = sessions.create(1).await.expect("a session");
    let id = session.id();
    blocks::checked_updates_1::example(&sessions, session).await.expect("three saves");
    blocks::checked_updates_2::add(&sessions, id, "eggs").await.expect("a fourth");
    blocks::checked_updates_3::example(&sessions, id).await.expect("a fifth");
    let session = sessions.get(id).await.expect("a read").expect("it is alive");
    let cart: Vec<String> = session.get("cart").expect("a list").unwrap_or_default();
    assert_eq!(cart, ["milk", "bread", "eggs", "milk"]);
    assert_eq!(session.get::<u32>("total").expect("a number"), Some(12));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_on_the_go_library_does_what_it_says() {
    let sessions = applied().await;
    let user = uuid::Uuid::from_u128(0x90);
    blocks::coming_from_go_pg_session_1::example(user).await.expect("it runs");
    let left = sessions.user(user).list().await.expect("a list");
    assert!(left.is_empty(), "the last line ends the user's sessions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_on_settings_and_operations_run() {
    assert!(applied().await.shutdown(Duration::from_secs(10)).await.is_complete());
    blocks::operations_1::example().await.expect("pool and listener reach one server");
    blocks::configuration_1::example().expect("a configuration");
    blocks::configuration_2::example().expect("a configuration");
    blocks::security_1::example().expect("two configurations");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_on_sql_ends_the_other_sessions() {
    let sessions = applied().await;
    let current = sessions.create(91).await.expect("a session").id();
    let other = sessions.create(91).await.expect("a session").id();
    let (mut client, connection) = tokio_postgres::connect(url(""), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE accounts (id int8, password text)").await.expect("a table");
    let ended = blocks::sql_1::change_password(&mut client, &Config::default(), 91, current).await;
    assert_eq!(ended.expect("it runs"), 1);
    sessions.catch_up().await.expect("the database answers");
    assert!(sessions.get(other).await.expect("a read").is_none());
    assert!(sessions.get(current).await.expect("a read").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_on_live_sessions_does_what_it_says() {
    let sessions = applied().await;
    let id = sessions.create(92).await.expect("a session").id();
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    let delivery = tokio::spawn(blocks::live_sessions_2::deliver(sessions.clone(), id, messages));
    sender.send("news".to_owned()).await.expect("it is delivered");
    // The second waits until the first is taken.
    sender.send("news".to_owned()).await.expect("it is delivered");
    assert!(sessions.delete(id).await.expect("it is ended"));
    let closed = tokio::time::timeout(WAIT_MAX, delivery).await.expect("it ends").expect("no panic");
    let ended = pg_session::Closed::Ended(pg_session::Cause::Logout);
    assert_eq!(closed.expect("the database answers"), Some(ended));
}

#[tokio::test]
async fn the_server_that_gives_up_silent_clients_answers_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("a port");
    tokio::spawn(blocks::live_sessions_1::serve(listener, axum::Router::new()));
    let mut stream = TcpStream::connect(addr).await.expect("it accepts");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("it is sent");
    let mut answer = String::new();
    let read = tokio::time::timeout(WAIT_MAX, stream.read_to_string(&mut answer)).await;
    read.expect("it answers").expect("a text");
    assert!(answer.starts_with("HTTP/1.0 404"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sql_block_of_the_documents_runs() {
    let sandbox = Sandbox::start().expect("PostgreSQL starts");
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let node = SessionManager::connect(&sandbox.url(), config).await.expect("a node");
    let (client, connection) = tokio_postgres::connect(&sandbox.url(), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client.batch_execute("CREATE ROLE app LOGIN").await.expect("a role");
    for page in ["SECURITY.md", "docs/operations.md", "docs/security.md", "docs/sql.md"] {
        assert!(SQL.iter().any(|(name, ..)| *name == page), "{page} has SQL");
    }
    for (_, place, statement) in SQL {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{place}: {error}"));
    }
    drop(node);
}
