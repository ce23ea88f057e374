//! The life of one server: it starts, answers, stops, crashes, freezes, and keeps what was committed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a deadline in real time")]

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pg_sandbox::{ErrorKind, Sandbox};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

/// Longer than anything here takes, so that a hang is a failure and not a hang.
const LIMIT: Duration = Duration::from_secs(60);
/// Long enough for a server that is able to answer.
const SILENCE: Duration = Duration::from_millis(300);

async fn connect(sandbox: &Sandbox) -> Client {
    let (client, connection) =
        timeout(LIMIT, tokio_postgres::connect(&sandbox.url(), NoTls)).await.unwrap().unwrap();
    tokio::spawn(connection);
    client
}

async fn show(client: &Client, setting: &str) -> String {
    client.query_one("SELECT current_setting($1)", &[&setting]).await.unwrap().get(0)
}

async fn committed(sandbox: &Sandbox) -> i64 {
    connect(sandbox).await.query_one("SELECT count(*) FROM kept", &[]).await.unwrap().get(0)
}

async fn commit(client: &Client, number: i32) {
    client.execute("INSERT INTO kept VALUES ($1)", &[&number]).await.unwrap();
}

#[tokio::test]
async fn starts_and_answers_over_tcp_and_over_its_socket() {
    let sandbox = Sandbox::start().unwrap();
    let client = connect(&sandbox).await;
    let number: String = show(&client, "server_version_num").await;
    assert_eq!(number.parse::<u32>().unwrap() / 10_000, sandbox.version().major());
    assert_eq!(show(&client, "synchronous_commit").await, "on");
    assert_eq!(show(&client, "fsync").await, "off");
    assert_eq!(show(&client, "server_encoding").await, "UTF8");

    let mut config = tokio_postgres::Config::new();
    config.host_path(sandbox.socket_dir()).port(sandbox.addr().port()).user("postgres");
    let (_client, connection) = config.connect(NoTls).await.unwrap();
    drop(connection);
    assert!(sandbox.is_running().unwrap());
    assert!(sandbox.log().contains("database system is ready"), "{}", sandbox.log());
}

#[tokio::test]
async fn settings_and_files_reach_the_server() {
    let sandbox = Sandbox::builder()
        .setting("max_connections", "37")
        .setting("application_name", r"it's \ quoted")
        .durable(true)
        .file("note.txt", "hello")
        .start()
        .unwrap();
    let client = connect(&sandbox).await;
    assert_eq!(show(&client, "max_connections").await, "37");
    assert_eq!(show(&client, "fsync").await, "on");
    assert_eq!(show(&client, "full_page_writes").await, "on");
    assert!(sandbox.log().contains("ready"));
    let note: String = client.query_one("SELECT pg_read_file('note.txt')", &[]).await.unwrap().get(0);
    assert_eq!(note, "hello");
}

#[tokio::test]
async fn rejected_settings_are_reported_and_outside_file_refused() {
    let error = Sandbox::builder().setting("max_connections", "many").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Start);
    assert!(error.to_string().contains("invalid value for parameter \"max_connections\""), "{error}");

    let error = Sandbox::builder().file("../outside", "").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Setting);
}

#[tokio::test]
async fn two_at_once_do_not_see_each_other() {
    let (first, second) = tokio::join!(
        tokio::task::spawn_blocking(Sandbox::start),
        tokio::task::spawn_blocking(Sandbox::start)
    );
    let (first, second) = (first.unwrap().unwrap(), second.unwrap().unwrap());
    assert_ne!(first.addr(), second.addr());
    connect(&first).await.batch_execute("CREATE TABLE only_here ()").await.unwrap();
    connect(&second).await.batch_execute("SELECT * FROM only_here").await.unwrap_err();
    drop(first);
    connect(&second).await.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn restart_stop_and_kill_keep_commits_and_address() {
    let sandbox = Sandbox::start().unwrap();
    let url = sandbox.url();
    connect(&sandbox).await.batch_execute("CREATE TABLE kept (number integer)").await.unwrap();

    commit(&connect(&sandbox).await, 1).await;
    sandbox.restart().unwrap();
    assert_eq!(committed(&sandbox).await, 1);

    commit(&connect(&sandbox).await, 2).await;
    sandbox.stop().unwrap();
    sandbox.stop().unwrap();
    assert!(!sandbox.is_running().unwrap());
    assert!(TcpStream::connect(sandbox.addr()).is_err());
    assert_eq!(sandbox.pause().unwrap_err().kind(), ErrorKind::NotRunning);
    sandbox.start_again().unwrap();
    sandbox.start_again().unwrap();
    assert_eq!(committed(&sandbox).await, 2);

    let client = connect(&sandbox).await;
    commit(&client, 3).await;
    sandbox.kill().unwrap();
    assert!(client.batch_execute("SELECT 1").await.is_err());
    assert!(TcpStream::connect(sandbox.addr()).is_err());
    sandbox.start_again().unwrap();
    assert_eq!(committed(&sandbox).await, 3);
    assert!(sandbox.log().contains("not properly shut down"), "{}", sandbox.log());
    assert_eq!(sandbox.url(), url);
}

#[tokio::test]
async fn paused_server_is_silent_and_goes_on_where_it_was() {
    let sandbox = Sandbox::start().unwrap();
    let client = connect(&sandbox).await;
    sandbox.pause().unwrap();
    let query = client.query_one("SELECT 7", &[]);
    tokio::pin!(query);
    assert!(timeout(SILENCE, &mut query).await.is_err(), "a paused server answered");
    assert!(timeout(SILENCE, tokio_postgres::connect(&sandbox.url(), NoTls)).await.is_err());
    sandbox.resume().unwrap();
    let answer: i32 = timeout(LIMIT, query).await.unwrap().unwrap().get(0);
    assert_eq!(answer, 7);

    sandbox.pause().unwrap();
    sandbox.restart().unwrap();
    connect(&sandbox).await.batch_execute("SELECT 1").await.unwrap();
    sandbox.pause().unwrap();
    sandbox.kill().unwrap();
    sandbox.start_again().unwrap();
    connect(&sandbox).await.batch_execute("SELECT 1").await.unwrap();
}

#[test]
fn ended_server_is_noticed_and_no_other_process_signalled() {
    for end in [Sandbox::stop, Sandbox::kill] {
        let sandbox = Sandbox::start().unwrap();
        let lock_file = sandbox.socket_dir().with_file_name("data").join("postmaster.pid");
        let lines = std::fs::read_to_string(lock_file).unwrap();
        let postmaster = Pid::from_raw(lines.lines().next().unwrap().parse().unwrap());
        kill(postmaster, Signal::SIGINT).unwrap();
        let deadline = Instant::now() + LIMIT;
        while sandbox.is_running().unwrap() {
            assert!(Instant::now() < deadline, "{}", sandbox.log());
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(sandbox.resume().unwrap_err().kind(), ErrorKind::NotRunning);
        end(&sandbox).unwrap();
        sandbox.start_again().unwrap();
        assert!(sandbox.is_running().unwrap());
    }
}

#[test]
fn a_sandbox_is_made_in_the_given_directory_or_not_at_all() {
    let place = std::env::temp_dir().join(format!("within-{}", std::process::id()));
    std::fs::create_dir(&place).unwrap();
    let sandbox = Sandbox::builder().within(&place).start().unwrap();
    assert!(sandbox.log_path().starts_with(&place));
    sandbox.close().unwrap();
    std::fs::remove_dir(&place).unwrap();

    let error = Sandbox::builder().within("not/absolute").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Directory);
}
