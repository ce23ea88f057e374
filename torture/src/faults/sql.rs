//! Faults that other users of the database make, with nothing but SQL.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio_postgres::{Client, NoTls};

use crate::cluster::Cluster;
use crate::plan::{QUERY_TIMEOUT, SCHEMA, SLOTS};
use crate::rng::Rng;
use crate::slots::Slots;

/// Connections that PostgreSQL is asked for until it has none left: more than it allows.
const CONNECTIONS_TRIED: usize = 200;

/// Sessions that another client locks.
const ROWS_LOCKED: usize = 8;
/// How much later than its caller a statement may end on the server.
const GRACE: Duration = Duration::from_secs(1);

/// Uses up every connection, after ending the listeners', which now cannot come back.
pub(super) async fn use_up_connections(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let mut hogs = Vec::new();
    let mut is_full = false;
    let client = cluster.client().await?;
    for _ in 0..CONNECTIONS_TRIED {
        match cluster.client().await {
            Ok(hog) => hogs.push(hog),
            Err(_) if is_full => break,
            Err(_) => {
                is_full = true;
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                           WHERE application_name IN ('pg-listen', 'pg-session')";
                client.execute(end, &[]).await?;
                // A hog that is faster than the listeners takes their places.
            }
        }
    }
    ensure!(is_full, "{CONNECTIONS_TRIED} connections were not enough");
    tokio::time::sleep(rng.millis(1_500, 3_500)).await;
    drop(hogs);
    Ok(())
}

/// A client that locks sessions again and again, at times their attributes first, opposite to the library's order.
pub(super) async fn deadlock(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let slots = Slots::open(cluster.keep.path())?;
    let end = Instant::now() + rng.millis(2_000, 4_000);
    let one = cluster.client().await?;
    let lock = format!("SELECT 1 FROM {SCHEMA}.sessions WHERE id = $1 FOR UPDATE");
    let lock_attributes =
        format!("SELECT 1 FROM {SCHEMA}.session_attributes WHERE session_id = $1 FOR UPDATE");
    while Instant::now() < end {
        let mut ids: Vec<_> =
            (0..8).map(|_| slots.read(rng.index(SLOTS)).map(|slot| slot.now)).collect::<Result<_, _>>()?;
        ids.sort_unstable();
        ids.reverse();
        one.batch_execute("BEGIN").await?;
        for id in ids {
            // Being the victim is what it is here for; the rest of its transaction is then refused.
            if rng.chance(50) {
                let _ = one.query(&lock_attributes, &[&id]).await;
                tokio::time::sleep(rng.millis(5, 40)).await;
            }
            let _ = one.query(&lock, &[&id]).await;
            tokio::time::sleep(rng.millis(5, 40)).await;
        }
        one.batch_execute("ROLLBACK").await?;
    }
    Ok(())
}

/// A client that locks a few sessions for longer than a statement may take.
pub(super) async fn lock_sessions(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let slots = Slots::open(cluster.keep.path())?;
    let ids: Vec<_> = (0..ROWS_LOCKED)
        .map(|_| slots.read(rng.index(SLOTS)).map(|slot| slot.now))
        .collect::<Result<_, _>>()?;
    let locker = cluster.client().await?;
    locker.batch_execute("BEGIN").await?;
    locker.execute(&format!("SELECT FROM {SCHEMA}.sessions WHERE id = ANY ($1) FOR UPDATE"), &[&ids]).await?;
    keep_locked(cluster, rng, &locker).await
}

/// A client that locks the rows of locks, some or all.
pub(super) async fn lock_locks(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let share = if rng.chance(50) { 100 } else { 30 };
    let locker = cluster.client().await?;
    locker.batch_execute("BEGIN").await?;
    let lock = format!("SELECT FROM {SCHEMA}.session_locks WHERE random() * 100 < {share} FOR UPDATE");
    locker.batch_execute(&lock).await?;
    keep_locked(cluster, rng, &locker).await
}

/// A statement that no caller waits for must not go on in the server.
async fn keep_locked(cluster: &Cluster, rng: &mut Rng, locker: &Client) -> Result<()> {
    let watcher = cluster.client().await?;
    let end = Instant::now() + QUERY_TIMEOUT + rng.millis(1_500, 4_000);
    let count = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE application_name = 'pg-session' AND wait_event_type = 'Lock'
           AND query_start < clock_timestamp() - interval '{} milliseconds'",
        (QUERY_TIMEOUT + GRACE).as_millis()
    );
    let mut abandoned = 0;
    while Instant::now() < end {
        abandoned = abandoned.max(watcher.query_one(&count, &[]).await?.get::<_, i64>(0));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    locker.batch_execute("ROLLBACK").await?;
    cluster.report(
        abandoned == 0,
        format!("{abandoned} statements waited for a lock longer than `query_timeout`"),
    );
    Ok(())
}

pub(super) async fn vacuum_full(cluster: &Cluster) -> Result<()> {
    let client = cluster.client().await?;
    for _ in 0..3 {
        for table in ["session_attributes", "sessions", "session_locks", "session_nodes"] {
            let statement = format!("VACUUM FULL {SCHEMA}.{table}");
            patiently(&client, &statement).await?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Columns that come and go, and storage that changes: plans are outdated, tables are locked for a moment.
pub(super) async fn alter_tables(cluster: &Cluster) -> Result<()> {
    let client = cluster.client().await?;
    for _ in 0..3 {
        for change in [
            "ALTER TABLE {schema}.sessions ADD COLUMN extra integer DEFAULT 7",
            "ALTER TABLE {schema}.session_attributes ADD COLUMN extra text",
            "ALTER TABLE {schema}.session_attributes ALTER COLUMN value SET STORAGE EXTERNAL",
            "ALTER TABLE {schema}.sessions ALTER COLUMN attributes SET STORAGE EXTERNAL",
            "ALTER TABLE {schema}.session_attributes DROP COLUMN extra",
            "ALTER TABLE {schema}.sessions DROP COLUMN extra",
            "ALTER TABLE {schema}.session_attributes ALTER COLUMN value SET STORAGE EXTENDED",
            "ALTER TABLE {schema}.sessions ALTER COLUMN attributes SET STORAGE EXTENDED",
        ] {
            patiently(&client, &change.replace("{schema}", SCHEMA)).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// It may be chosen as the victim of a deadlock with the library's own statements; then once more.
async fn patiently(client: &Client, statement: &str) -> Result<()> {
    for _ in 0..20 {
        match client.batch_execute(statement).await {
            Ok(()) => return Ok(()),
            Err(error) if error.code().is_some_and(|code| code.code() == "40P01") => {}
            Err(error) => return Err(error).with_context(|| statement.to_owned()),
        }
    }
    client.batch_execute(statement).await.with_context(|| statement.to_owned())
}

/// A role that may do nothing but connect floods the nodes' channel: garbage, other formats, forged invalidations.
pub(super) async fn hostile_notifications(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let owner = cluster.client().await?;
    owner
        .batch_execute(
            "DO $$ BEGIN
                 IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mallory') THEN CREATE ROLE mallory LOGIN; END IF;
             END $$",
        )
        .await?;
    // As the library derives it, from the schema and an empty prefix; any client can.
    let derive = format!("SELECT 'pg_session_' || left(encode(sha256('{SCHEMA}\\000'::bytea), 'hex'), 16)");
    let channel: String = owner.query_one(&derive, &[]).await?.get(0);
    let mallory = cluster.sandbox.url().replace("postgres@", "mallory@");
    let (client, connection) = tokio_postgres::connect(&mallory, NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    let slots = Slots::open(cluster.keep.path())?;
    let end = Instant::now() + rng.millis(1_500, 3_500);
    while Instant::now() < end {
        for _ in 0..50 {
            let id = slots.read(rng.index(SLOTS))?.now.simple().to_string();
            let payload = match rng.below(8) {
                0 => String::new(),
                1 => "1s".to_owned(),
                2 => format!("1s{id}.{}", i64::MAX),
                3 => format!("1d{id}"),
                4 => "1a".to_owned(),
                5 => "9 a format of tomorrow".to_owned(),
                6 => "x".repeat(7_900),
                _ => format!("1s{id}.-1,\u{1F600}"),
            };
            client.execute("SELECT pg_notify($1, $2)", &[&channel, &payload]).await?;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
