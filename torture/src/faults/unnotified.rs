//! Updates end between their commit and their notification.
//!
//! ```text
//! another client   NOTIFY ── COMMIT ── waits for a standby, with the lock of all commits that notify ── cancelled
//! a node           UPDATE ── COMMIT ── waits to notify ──✕ terminated or cancelled
//! ```
//!
//! At times the node is killed first, so that no node notifies again: the others learn of it when they remove its row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::clock::now;
use crate::cluster::{Cluster, Way};
use crate::history::Entry;
use crate::rng::Rng;

/// Only a client that asks for it waits for a standby, which does not exist.
const LOCAL: &str = "synchronous_commit";
const STANDBY: &str = "synchronous_standby_names";
/// A commit that notifies and waits for a standby, if there has to be one.
const HOLD: &str =
    "SET synchronous_commit = on; BEGIN; SELECT pg_logical_emit_message(true, '', ''); NOTIFY other; COMMIT";
/// How long the server may take to follow a change of its settings: a checkpoint delays it.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Longer than processes take to read a changed setting.
const RELOAD: Duration = Duration::from_millis(300);
/// How long the lock is held at most, until an update waits for it.
const HELD_MAX: Duration = Duration::from_secs(3);
/// How often the node is killed as well, in percent.
const KILLED: u64 = 33;
/// How often the processes are looked at.
const PAUSE: Duration = Duration::from_millis(10);
/// What the processes are that have committed and not notified.
const IN_GAP: &str = "wait_event_type = 'Lock' AND wait_event = 'object' AND query LIKE 'CALL %'";

pub(super) async fn end_updates(cluster: &mut Cluster, rng: &mut Rng) -> Result<()> {
    let watcher = cluster.client().await?;
    change(&watcher, &format!("ALTER SYSTEM SET {LOCAL} = local")).await?;
    change(&watcher, &format!("ALTER SYSTEM SET {STANDBY} = nobody")).await?;
    let ended = end_while_held(cluster, &watcher, rng).await;
    change(&watcher, &format!("ALTER SYSTEM RESET {STANDBY}")).await?;
    // First: no client that does not know the first setting must wait for a standby.
    let released = cluster.client().await?;
    timeout(WAIT_MAX, released.batch_execute(HOLD)).await.context("commits go on to wait")??;
    change(&watcher, &format!("ALTER SYSTEM RESET {LOCAL}")).await?;
    ensure!(ended? > 0, "no update was between its commit and its notification");
    Ok(())
}

/// Changes a setting, and gives all processes the time to read it.
async fn change(watcher: &Client, statement: &str) -> Result<()> {
    watcher.batch_execute(statement).await?;
    watcher.execute("SELECT pg_reload_conf()", &[]).await?;
    tokio::time::sleep(RELOAD).await;
    Ok(())
}

/// Holds the lock, mostly for less than a trust window. Returns how many updates have ended meanwhile.
async fn end_while_held(cluster: &mut Cluster, watcher: &Client, rng: &mut Rng) -> Result<i64> {
    let holder = cluster.client().await?;
    let holder_pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let is_held = Arc::new(AtomicBool::new(false));
    let held = tokio::spawn({
        let is_held = Arc::clone(&is_held);
        async move {
            // Before the setting is in force, it does not wait.
            while !is_held.load(Ordering::SeqCst) {
                holder.batch_execute(HOLD).await?;
                tokio::time::sleep(PAUSE).await;
            }
            Ok::<_, tokio_postgres::Error>(())
        }
    });
    let waits = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
    let began = Instant::now();
    while watcher.query(waits, &[&holder_pid]).await?.is_empty() {
        ensure!(began.elapsed() < WAIT_MAX, "another client did not get the lock");
        tokio::time::sleep(PAUSE).await;
    }
    is_held.store(true, Ordering::SeqCst);
    let end = if rng.chance(50) { "pg_terminate_backend" } else { "pg_cancel_backend" };
    let end = format!(
        "SELECT count(*) FILTER (WHERE ended)
         FROM (SELECT {end}(pid) AS ended FROM pg_stat_activity WHERE {IN_GAP}) a"
    );
    let (length, began) = (rng.millis(200, 600), Instant::now());
    let mut ended = 0;
    let killed = if rng.chance(KILLED) { Some(kill_in_gap(cluster, watcher).await?) } else { None };
    while began.elapsed() < length || ended == 0 && began.elapsed() < HELD_MAX {
        ended += watcher.query_one(&end, &[]).await?.get::<_, i64>(0);
        tokio::time::sleep(PAUSE).await;
    }
    watcher.execute("SELECT pg_cancel_backend($1)", &[&holder_pid]).await?;
    held.await??;
    if let Some(node) = killed {
        cluster.nodes[node].start(&Way::default()).await?;
        cluster.note_pids();
    }
    Ok(ended)
}

/// Kills the node whose updates commit first, while one of them has not notified. Returns which.
async fn kill_in_gap(cluster: &mut Cluster, watcher: &Client) -> Result<usize> {
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE {IN_GAP}");
    let began = Instant::now();
    while watcher.query_one(&count, &[]).await?.get::<_, i64>(0) == 0 {
        ensure!(began.elapsed() < HELD_MAX, "no update has committed and not notified");
        tokio::time::sleep(PAUSE).await;
    }
    let last = cluster.nodes.len() - 1;
    cluster.nodes[last].kill().await?;
    cluster.journal.write(&Entry::KilledInGap { node: last, at: now() });
    Ok(last)
}
