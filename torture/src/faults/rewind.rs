//! The database loses commits: a standby that missed them is promoted, or an older copy of the files is restored.
//!
//! ```text
//! server   copy ── commits ── ends        starts with the copy ── serves
//! nodes    work ───────── shut out ·························· ── work
//! ```

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pg_sandbox::Proxy;

use crate::clock::now;
use crate::cluster::{Cluster, Member, ROLE, connect, tables};
use crate::history::{Entry, Rewound};
use crate::rng::Rng;

/// How long the nodes' last statements may take to end.
const WAIT_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
/// How long commits are made that will be lost.
const LOSS_MS: (u64, u64) = (1_000, 3_000);

/// A standby stops receiving, its primary ends, and the standby is promoted: a new timeline. The old server returns as
/// its standby, and is promoted in its turn.
pub(super) async fn promote_late(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let wire = Proxy::start(cluster.sandbox.addr()).await.context("a proxy cannot be started")?;
    let (old, upstream) = (Arc::clone(&cluster.sandbox), wire.addr());
    let late = blocking(move || {
        let late = old.standby().upstream(upstream).start()?;
        late.wait_until_applied(&old)?;
        Ok(late)
    })
    .await?;
    wire.refuse();
    wire.cut();
    let (least, most) = LOSS_MS;
    tokio::time::sleep(rng.millis(least, most)).await;
    let old = Arc::clone(&cluster.sandbox);
    lose(cluster, move || {
        old.stop()?;
        late.promote()?;
        late.standby().rejoin(&old)?;
        old.wait_until_applied(&late)?;
        late.close()?;
        Ok(old.promote()?)
    })
    .await?;
    let slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active";
    cluster.client().await?.execute(slots, &[]).await?;
    Ok(())
}

/// The server's files are replaced by an older copy of them: no new timeline says so.
pub(super) async fn restore_copy(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let data: String = cluster.client().await?.query_one("SHOW data_directory", &[]).await?.get(0);
    let data = PathBuf::from(data);
    let copy = data.with_extension("copy");
    let sandbox = Arc::clone(&cluster.sandbox);
    let (from, to) = (data.clone(), copy.clone());
    blocking(move || {
        sandbox.stop()?;
        run(Command::new("cp").arg("-a").arg(from).arg(to))?;
        Ok(sandbox.start_again()?)
    })
    .await?;
    let (least, most) = LOSS_MS;
    tokio::time::sleep(rng.millis(least, most)).await;
    let sandbox = Arc::clone(&cluster.sandbox);
    lose(cluster, move || {
        sandbox.stop()?;
        replace(&data, &copy)?;
        Ok(sandbox.start_again()?)
    })
    .await
}

/// Shuts the nodes out, has the server go back, and notes what was lost.
async fn lose(cluster: &Cluster, go_back: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let url = cluster.sandbox.url();
    for wire in cluster.members().flat_map(|member| [&member.pool, &member.listener]) {
        wire.refuse();
        wire.cut();
    }
    wait_until_alone(&url).await?;
    let from = now();
    let before = tables::read(&url).await?;
    blocking(go_back).await?;
    let after = tables::read(&url).await?;
    let kept: HashSet<_> = after.writes.iter().copied().collect();
    let lost: Vec<_> = before.writes.into_iter().filter(|write| !kept.contains(write)).collect();
    cluster.report(!lost.is_empty(), format!("the database lost {} writes", lost.len()));
    let last = tables::last_number(&url).await?;
    let rewound = Rewound { from, to: now(), lost, before: before.sessions, after: after.sessions, last };
    cluster.journal.write(&Entry::Rewound(Box::new(rewound)));
    cluster.members().for_each(Member::heal);
    Ok(())
}

/// Waits until no statement of a node runs, also of those whose connections were cut.
async fn wait_until_alone(url: &str) -> Result<()> {
    let client = connect(url).await?;
    let began = Instant::now();
    let others = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
    while client.query_one(others, &[&ROLE]).await?.get::<_, i64>(0) > 0 {
        ensure!(began.elapsed() < WAIT_MAX, "statements of the nodes go on");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn replace(data: &Path, copy: &Path) -> Result<()> {
    std::fs::remove_dir_all(data)?;
    std::fs::rename(copy, data)?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context("a program cannot be started")?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

async fn blocking<T: Send + 'static>(what: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(what).await?
}
