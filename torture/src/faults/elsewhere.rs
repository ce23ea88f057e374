//! The address of a pool or a listener leads to another server for a while, which does not know the sessions: a pooler or
//! a name that was redirected.

use anyhow::{Context, Result};
use pg_sandbox::{Proxy, Sandbox};

use crate::clock::{nanos, now};
use crate::cluster::{Cluster, Member, make_role};
use crate::plan::TRUST_WINDOW;
use crate::rng::Rng;

/// One node's pool. What it asks for is not there.
pub(super) async fn redirect_pool(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    redirect(cluster, rng, "pool", |node| &node.pool).await
}

/// One node's listener. It is connected, and receives nothing.
pub(super) async fn redirect_listener(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    redirect(cluster, rng, "listener", |node| &node.listener).await
}

/// At least two windows long. After the first, the node must not serve from memory.
async fn redirect(
    cluster: &Cluster,
    rng: &mut Rng,
    what: &str,
    wire: impl Fn(&Member) -> &Proxy,
) -> Result<()> {
    let other =
        tokio::task::spawn_blocking(Sandbox::start).await?.context("a second server does not start")?;
    make_role(&other.url()).await?;
    let node = &cluster.nodes[rng.index(cluster.nodes.len())];
    let wire = wire(node);
    wire.redirect(other.addr());
    wire.cut();
    let end = now() + nanos(rng.millis(2_500, 5_000));
    // The pulse of a node notices the end of its trust a little later.
    tokio::time::sleep(TRUST_WINDOW + TRUST_WINDOW / 2).await;
    let mut was_trusted = false;
    while now() < end {
        was_trusted |= node.is_trusted();
        tokio::time::sleep(TRUST_WINDOW / 20).await;
    }
    wire.redirect(cluster.sandbox.addr());
    wire.cut();
    cluster.report(
        !was_trusted,
        format!("node {} served from memory, its {what} on another server", node.index),
    );
    tokio::task::spawn_blocking(move || drop(other)).await?;
    Ok(())
}
