//! Faults of a node's process: stopped where it is, ended in order, killed, with a wall clock that is an hour off.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::cluster::{Cluster, Way};
use crate::plan::TRUST_WINDOW;
use crate::rng::Rng;

/// The library that shows a process another wall clock, as Debian and others install it.
const FAKETIME: &str = "faketime/libfaketime.so.1";

/// Stops a node for so many windows.
pub(super) async fn stop(cluster: &Cluster, rng: &mut Rng, windows: u32) -> Result<()> {
    let node = &cluster.nodes[rng.index(cluster.nodes.len())];
    node.freeze(true)?;
    tokio::time::sleep(TRUST_WINDOW * windows).await;
    node.freeze(false)
}

/// Ends a node in the middle of its work, in order, and starts it again.
pub(super) async fn shut_down(cluster: &mut Cluster, rng: &mut Rng) -> Result<()> {
    let which = rng.index(cluster.nodes.len());
    let node = &mut cluster.nodes[which];
    node.stop().await?;
    node.start(&Way::default()).await?;
    cluster.note_pids();
    Ok(())
}

/// `kill -9` in the middle of its work.
pub(super) async fn kill(cluster: &mut Cluster, rng: &mut Rng) -> Result<()> {
    let which = rng.index(cluster.nodes.len());
    let node = &mut cluster.nodes[which];
    node.kill().await?;
    node.start(&Way::default()).await?;
    cluster.note_pids();
    Ok(())
}

/// A node whose wall clock is an hour ahead or behind, for a few seconds among the others.
pub(super) async fn skew(cluster: &mut Cluster, rng: &mut Rng) -> Result<()> {
    let Some(library) = faketime() else { return Ok(()) };
    let which = rng.index(cluster.nodes.len());
    let hour = if rng.chance(50) { "+1h" } else { "-1h" };
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let environment = vec![
        set("LD_PRELOAD", &library.to_string_lossy()),
        set("FAKETIME", hour),
        // Only the wall clock: the monotonic one is the same for all processes of a machine, whatever its wall clock.
        set("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        set("DONT_FAKE_MONOTONIC", "1"),
    ];
    live_otherwise(cluster, which, &Way { environment, ..Way::default() }, rng.millis(3_000, 6_000)).await
}

/// Why a node's clock cannot be moved, if it cannot.
pub(super) fn cannot_skew() -> Option<String> {
    let missing = "libfaketime is not installed (Debian: apt-get install faketime)";
    faketime().is_none().then(|| missing.to_owned())
}

fn faketime() -> Option<PathBuf> {
    let roots = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    roots.iter().map(|root| Path::new(root).join(FAKETIME)).find(|path| path.exists())
}

/// Restarts a node in another way, lets it live so for a while, and restarts it as it was.
pub(super) async fn live_otherwise(
    cluster: &mut Cluster,
    which: usize,
    way: &Way,
    time: Duration,
) -> Result<()> {
    let node = &mut cluster.nodes[which];
    node.stop().await?;
    node.start(way).await?;
    cluster.note_pids();
    tokio::time::sleep(time).await;
    let node = &mut cluster.nodes[which];
    node.stop().await?;
    node.start(&Way::default()).await?;
    cluster.note_pids();
    Ok(())
}
