//! pgbouncer in transaction mode, between a node and the server.
//!
//! Before the pool it is at home. Before the listener it would be fatal and look well: LISTEN and barriers come
//! through while the same server connection happens to serve them. What other nodes send does not. A node has to tell
//! it apart.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use pg_sandbox::{PoolMode, Pooler};

use super::node::live_otherwise;
use crate::cluster::{Cluster, Way};
use crate::history::Entry;
use crate::plan::POOL_NAME;
use crate::rng::Rng;

/// A node lives behind pgbouncer for a while, its listener past it.
pub(super) async fn before_the_pool(cluster: &mut Cluster, rng: &mut Rng) -> Result<()> {
    let (_pooler, url) = start(cluster).await?;
    let which = rng.index(cluster.nodes.len());
    let way = Way { pool_url: Some(url), ..Way::default() };
    live_otherwise(cluster, which, &way, rng.millis(3_000, 6_000)).await
}

/// A node whose listener is behind pgbouncer must not start, or must never be trusted.
pub(super) async fn before_the_listener(cluster: &mut Cluster, rng: &mut Rng) -> Result<()> {
    let (_pooler, url) = start(cluster).await?;
    let which = rng.index(cluster.nodes.len());
    let way = Way { listener_url: Some(url), ..Way::default() };
    let node = &mut cluster.nodes[which];
    node.stop().await?;
    let refusal = node.try_start(&way).await?;
    if refusal.is_none() {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let is_trusted = node.is_trusted();
    node.stop().await?;
    node.start(&Way::default()).await?;
    cluster.note_pids();
    let what = match &refusal {
        Some(why) => format!("a node whose listener is behind pgbouncer was refused: {why}"),
        None => "a node whose listener is behind pgbouncer was started".to_owned(),
    };
    let names_the_pooler = refusal.as_ref().is_none_or(|why| why.contains("pooler"));
    cluster.journal.write(&Entry::Reported { held: !is_trusted && names_the_pooler, what });
    Ok(())
}

/// Why there can be no pooler, if there can be none.
pub(super) fn is_missing() -> Option<String> {
    Pooler::installed().err().map(|error| error.to_string())
}

/// pgbouncer and its address for a node's pool.
async fn start(cluster: &Cluster) -> Result<(Pooler, String)> {
    let sandbox = Arc::clone(&cluster.sandbox);
    let starting = move || {
        Pooler::builder(sandbox.addr(), PoolMode::Transaction).setting("default_pool_size", "4").start()
    };
    let pooler = tokio::task::spawn_blocking(starting).await?.context("pgbouncer cannot be started")?;
    let url = pooler.url() + POOL_NAME;
    Ok((pooler, url))
}
