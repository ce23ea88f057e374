//! `pg-session-bench-memory URL`: how much memory a node's sessions take, as JSON. The bench starts it.
//!
//! Counted by the allocator: bytes asked for and still held. And seen from outside: resident memory, with what the
//! allocator itself needs. The attributes' text is what the application asked to be kept; both figures are given with
//! it.

use std::alloc::System;
use std::time::Duration;

use anyhow::{Context, ensure};
use pg_session::{Config, SessionId, SessionManager};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::task::JoinSet;
use tokio_postgres::NoTls;
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Reads at once while the memory is filled.
const READERS: usize = 64;
/// How long the node may take to end.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).context("usage: pg-session-bench-memory URL")?;
    let (ids, text) = look(&url).await?;

    let region = Region::new(ALLOCATOR);
    let resident = resident_bytes()?;
    let mut config = Config::default();
    config.cache_sessions_max = ids.len() + ids.len() / 8;
    let manager = SessionManager::connect(&url, config).await?;
    read_all(&manager, &ids).await?;
    let change = region.change();
    let held = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    let resident = resident_bytes()?.saturating_sub(resident);
    let cached = manager.status().cache.sessions;
    ensure!(cached == ids.len(), "{cached} of {} sessions are in memory", ids.len());

    println!(
        "{}",
        serde_json::json!({ "sessions": cached, "text": text, "held": held, "resident": resident })
    );
    let report = manager.shutdown(WAIT_MAX).await;
    ensure!(report.is_complete(), "the node left something behind: {report:?}");
    Ok(())
}

/// The sessions of the table, and the bytes of their attributes' keys and values.
async fn look(url: &str) -> anyhow::Result<(Vec<SessionId>, u64)> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let rows = client.query("SELECT id FROM sessions", &[]).await?;
    let ids = rows.iter().map(|row| SessionId::from_uuid(row.get::<_, Uuid>(0))).collect();
    let sum = "SELECT sum(octet_length(a.key) + octet_length(a.value)) FROM (
                   SELECT p.key, (p.value -> 0)::text AS value FROM sessions s CROSS JOIN json_each(s.attributes::json) p
                   UNION ALL
                   SELECT key, value FROM session_attributes
               ) a";
    let text = u64::try_from(client.query_one(sum, &[]).await?.get::<_, i64>(0))?;
    drop(client);
    connection.await??;
    Ok((ids, text))
}

async fn read_all(manager: &SessionManager, ids: &[SessionId]) -> anyhow::Result<()> {
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let own: Vec<SessionId> = ids.iter().skip(reader).step_by(READERS).copied().collect();
        let manager = manager.clone();
        readers.spawn(async move {
            for id in own {
                manager.get(id).no_touch().await?.context("a session is gone")?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(joined) = readers.join_next().await {
        joined??;
    }
    Ok(())
}

fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1_024)
}
