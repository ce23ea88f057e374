//! Updates end between their commit and their notification.
//!
//! ```text
//! another client   NOTIFY ── COMMIT ── waits for a standby, with the lock of all commits that notify ── cancelled
//! a node           UPDATE ── COMMIT ── waits to notify ──✕ terminated or cancelled
//! ```

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio_postgres::Client;

use crate::dice::Dice;
use crate::stage::Stage;

/// Only a client that asks for it waits for a standby, which does not exist.
const WAIT_ON_REQUEST: [&str; 2] = ["synchronous_commit = local", "synchronous_standby_names = nobody"];
/// How long the other client may take to get the lock.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longer than processes take to read a changed setting.
const RELOAD: Duration = Duration::from_millis(300);
/// How often the processes are looked at.
const PAUSE: Duration = Duration::from_millis(10);
/// What the processes are that have committed and not notified.
const IN_GAP: &str = "wait_event_type = 'Lock' AND wait_event = 'object' AND query LIKE 'CALL %'";

pub(super) async fn end_updates(stage: &Stage, dice: &mut Dice) -> Result<()> {
    let watcher = stage.client().await?;
    for setting in WAIT_ON_REQUEST {
        change(&watcher, &format!("ALTER SYSTEM SET {setting}")).await?;
    }
    let ended = end_while_held(stage, &watcher, dice).await;
    // Each in its turn: a client that does not know the first setting must not wait for a standby.
    for setting in WAIT_ON_REQUEST.iter().rev() {
        let name = setting.split(' ').next().unwrap_or(setting);
        change(&watcher, &format!("ALTER SYSTEM RESET {name}")).await?;
    }
    let ended = ended?;
    ensure!(ended > 0, "no update was between its commit and its notification");
    Ok(())
}

/// Changes a setting, and gives all processes the time to read it.
async fn change(watcher: &Client, statement: &str) -> Result<()> {
    watcher.batch_execute(statement).await?;
    watcher.execute("SELECT pg_reload_conf()", &[]).await?;
    tokio::time::sleep(RELOAD).await;
    Ok(())
}

/// Holds the lock for less than a trust window. Returns how many updates have ended meanwhile.
async fn end_while_held(stage: &Stage, watcher: &Client, dice: &mut Dice) -> Result<i64> {
    let holder = stage.client().await?;
    let holder_pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let held = tokio::spawn(async move {
        let script = "SET synchronous_commit = on; BEGIN; SELECT pg_logical_emit_message(true, '', ''); NOTIFY other; COMMIT";
        holder.batch_execute(script).await
    });
    let waits = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
    let began = Instant::now();
    while watcher.query(waits, &[&holder_pid]).await?.is_empty() {
        ensure!(began.elapsed() < PATIENCE, "another client did not get the lock");
        tokio::time::sleep(PAUSE).await;
    }
    let end = if dice.chance(50) { "pg_terminate_backend" } else { "pg_cancel_backend" };
    let end = format!(
        "SELECT count(*) FILTER (WHERE ended)
         FROM (SELECT {end}(pid) AS ended FROM pg_stat_activity WHERE {IN_GAP}) a"
    );
    let until = Instant::now() + dice.millis(200, 600);
    let mut ended = 0;
    while Instant::now() < until {
        ended += watcher.query_one(&end, &[]).await?.get::<_, i64>(0);
        tokio::time::sleep(PAUSE).await;
    }
    watcher.execute("SELECT pg_cancel_backend($1)", &[&holder_pid]).await?;
    held.await??;
    Ok(ended)
}
