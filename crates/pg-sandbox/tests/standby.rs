//! A standby streams, lags, is promoted and takes its old primary back, on real servers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a deadline in real time")]

use std::{fs, time::Duration};

use pg_sandbox::{ErrorKind, Proxy, Sandbox};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, error::SqlState};

/// Longer than anything here takes, so that a hang is a failure and not a hang.
const LIMIT: Duration = Duration::from_secs(60);

async fn connect(sandbox: &Sandbox) -> Client {
    let (client, connection) =
        timeout(LIMIT, tokio_postgres::connect(&sandbox.url(), NoTls)).await.unwrap().unwrap();
    tokio::spawn(connection);
    client
}

async fn add(sandbox: &Sandbox, number: i32) {
    connect(sandbox).await.execute("INSERT INTO kept VALUES ($1)", &[&number]).await.unwrap();
}

async fn numbers(sandbox: &Sandbox) -> Vec<i32> {
    let rows = connect(sandbox).await.query("SELECT number FROM kept ORDER BY 1", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn primary() -> Sandbox {
    let primary = Sandbox::start().unwrap();
    connect(&primary).await.batch_execute("CREATE TABLE kept (number integer)").await.unwrap();
    add(&primary, 1).await;
    primary
}

#[tokio::test]
async fn standby_streams_and_refuses_writes() {
    let primary = primary().await;
    let standby = primary.standby().setting("work_mem", "5MB").start().unwrap();
    assert_ne!(standby.addr(), primary.addr());
    assert!(standby.is_standby().unwrap() && !primary.is_standby().unwrap());
    add(&primary, 2).await;
    standby.wait_until_applied(&primary).unwrap();
    assert_eq!(numbers(&standby).await, [1, 2]);
    let client = connect(&standby).await;
    let refused = client.execute("INSERT INTO kept VALUES (3)", &[]).await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
    let setting: String = client.query_one("SHOW work_mem", &[]).await.unwrap().get(0);
    assert_eq!(setting, "5MB");
}

#[tokio::test]
async fn standby_follows_over_restarts_of_both_servers() {
    let primary = primary().await;
    let standby = primary.standby().start().unwrap();
    primary.kill().unwrap();
    primary.start_again().unwrap();
    add(&primary, 2).await;
    standby.wait_until_applied(&primary).unwrap();
    standby.kill().unwrap();
    add(&primary, 3).await;
    standby.start_again().unwrap();
    standby.wait_until_applied(&primary).unwrap();
    assert_eq!(numbers(&standby).await, [1, 2, 3]);
}

#[tokio::test]
async fn base_backup_of_a_busy_server_is_complete() {
    let primary = primary().await;
    let client = connect(&primary).await;
    let writing = tokio::spawn(async move {
        for number in 2..2_000 {
            let name = format!("t{number}");
            let sql =
                format!("INSERT INTO kept VALUES ({number}); CREATE TABLE {name} (); DROP TABLE {name}");
            client.batch_execute(&sql).await.unwrap();
        }
    });
    let (primary, standby) = tokio::task::spawn_blocking(move || {
        let standby = primary.standby().start().unwrap();
        (primary, standby)
    })
    .await
    .unwrap();
    writing.await.unwrap();
    standby.wait_until_applied(&primary).unwrap();
    assert_eq!(numbers(&standby).await, (1..2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn apply_delay_holds_commits_back_until_promotion() {
    let primary = primary().await;
    let standby = primary.standby().apply_delay(Duration::from_secs(3_600)).start().unwrap();
    add(&primary, 2).await;
    let written: String = connect(&primary)
        .await
        .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
        .await
        .unwrap()
        .get(0);
    let client = connect(&standby).await;
    let received = format!("SELECT pg_last_wal_receive_lsn() >= '{written}'");
    let wait = async {
        while !client.query_one(&received, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, wait).await.unwrap();
    assert_eq!(numbers(&standby).await, [1], "the standby has the commit and does not show it");
    primary.kill().unwrap();
    standby.promote().unwrap();
    assert_eq!(numbers(&standby).await, [1, 2]);
}

/// The WAL that a promotion applies removes rows that a statement on the standby still sees, and cancels it.
#[tokio::test]
async fn promotion_survives_conflicts_with_its_own_wal() {
    let primary = primary().await;
    let standby = primary
        .standby()
        .apply_delay(Duration::from_secs(3_600))
        .setting("max_standby_streaming_delay", "0")
        .start()
        .unwrap();
    let client = connect(&primary).await;
    for _ in 0..20 {
        client.batch_execute("UPDATE kept SET number = number").await.unwrap();
        client.batch_execute("VACUUM kept").await.unwrap();
    }
    primary.stop().unwrap();
    standby.promote().unwrap();
    assert_eq!(numbers(&standby).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_can_lose_commits_and_old_primary_rejoins() {
    let old = primary().await;
    let wire = Proxy::start(old.addr()).await.unwrap();
    let new = old.standby().upstream(wire.addr()).start().unwrap();
    wire.refuse();
    wire.cut();
    add(&old, 2).await;
    old.kill().unwrap();
    new.promote().unwrap();
    assert!(!new.is_standby().unwrap());
    add(&new, 3).await;
    assert_eq!(numbers(&new).await, [1, 3], "2 was committed on the old primary only");

    let url = old.url();
    new.standby().rejoin(&old).unwrap();
    assert!(old.is_standby().unwrap());
    add(&new, 4).await;
    old.wait_until_applied(&new).unwrap();
    assert_eq!(numbers(&old).await, [1, 3, 4]);
    assert_eq!(old.url(), url);

    // And back again: the same servers change roles as often as a test likes.
    new.stop().unwrap();
    old.promote().unwrap();
    add(&old, 5).await;
    old.standby().rejoin(&new).unwrap();
    new.wait_until_applied(&old).unwrap();
    assert_eq!(numbers(&new).await, [1, 3, 4, 5]);
}

#[tokio::test]
async fn running_or_paused_server_rejoins_as_well() {
    let old = primary().await;
    let new = old.standby().start().unwrap();
    new.promote().unwrap();
    new.standby().rejoin(&old).unwrap();
    old.promote().unwrap();
    new.pause().unwrap();
    old.standby().rejoin(&new).unwrap();
    add(&old, 2).await;
    new.wait_until_applied(&old).unwrap();
    assert_eq!(numbers(&new).await, [1, 2]);
}

#[tokio::test]
async fn misuse_is_an_error_that_names_it() {
    let primary = primary().await;
    let refused = primary.promote().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Query);
    assert!(refused.to_string().contains("recovery is not in progress"), "{refused}");
    assert_eq!(primary.standby().rejoin(&primary).unwrap_err().kind(), ErrorKind::Setting);
    let wrong = primary.standby().setting("port", "1").start().unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Setting);
    primary.stop().unwrap();
    assert_eq!(primary.standby().start().unwrap_err().kind(), ErrorKind::NotRunning);
    assert_eq!(primary.promote().unwrap_err().kind(), ErrorKind::NotRunning);
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn rejoin_leaves_no_shared_memory_of_killed_server() {
    let old = primary().await;
    let new = old.standby().start().unwrap();
    let lock_file = fs::read_to_string(old.log_path().with_file_name("data").join("postmaster.pid")).unwrap();
    // Line 7 is "key id".
    let segment = lock_file.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let segments = || fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let is_there = || segments().lines().any(|line| line.split_whitespace().nth(1) == Some(&segment));
    old.kill().unwrap();
    assert!(is_there(), "no segment {segment} in {}", segments());
    new.promote().unwrap();
    new.standby().rejoin(&old).unwrap();
    assert!(!is_there());
}
