//! A real streaming standby that lags: a pool that reaches it, and a failover to it and back.
//!
//! No commit is lost: the primary ends in order, so it has sent all that it committed, and a promotion applies all that
//! arrived. So every checker stays in force.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pg_sandbox::{Error, Sandbox};

use super::server::terminate;
use crate::cluster::{Cluster, connect};
use crate::plan::SCHEMA;
use crate::rng::Rng;

/// Longer than any run: the standby applies nothing until it is promoted.
const LAG: Duration = Duration::from_secs(3_600);

/// The pool of a node reaches the standby for a while, and its listener the primary: a name that leads elsewhere.
pub(super) async fn pool_on_standby(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let standby = Arc::new(start(cluster).await?);
    let node = &cluster.nodes[rng.index(cluster.nodes.len())];
    node.pool.redirect(standby.addr());
    node.pool.cut();
    tokio::time::sleep(rng.millis(2_000, 4_000)).await;
    let behind = written(&cluster.sandbox).await? - written(&standby).await?;
    let is_standby = on(&standby, Sandbox::is_standby).await?;
    node.pool.redirect(cluster.sandbox.addr());
    node.pool.cut();
    // Without a difference, a stale read would look like a good one.
    cluster.report(is_standby && behind > 0, format!("the standby was {behind} writes behind its primary"));
    remove(cluster, standby).await
}

/// The primary ends, the nodes reach the standby, it is promoted, and serves. The old primary returns as its standby, and
/// is promoted in its turn: in the end all is as before.
pub(super) async fn fail_over(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let (old, new) = (Arc::clone(&cluster.sandbox), Arc::new(start(cluster).await?));
    let before = written(&new).await?;
    hand_over(cluster, rng, &old, &new).await?;
    let applied = written(&new).await?;
    cluster.report(applied > before, format!("the promotion applied {} writes", applied - before));
    tokio::time::sleep(rng.millis(2_000, 4_000)).await;
    let returning = Arc::clone(&old);
    on(&new, move |new| {
        new.standby().rejoin(&returning)?;
        returning.wait_until_applied(new)
    })
    .await?;
    hand_over(cluster, rng, &new, &old).await?;
    remove(cluster, new).await
}

/// Ends `from` in order and promotes `to`. The nodes reach it before it is promoted.
async fn hand_over(cluster: &Cluster, rng: &mut Rng, from: &Arc<Sandbox>, to: &Arc<Sandbox>) -> Result<()> {
    on(from, Sandbox::stop).await.context("the primary did not end in order")?;
    for member in cluster.members() {
        member.redirect(to.addr());
    }
    tokio::time::sleep(rng.millis(300, 1_500)).await;
    ensure!(on(to, Sandbox::is_standby).await?, "the standby was promoted already");
    on(to, Sandbox::promote).await
}

async fn start(cluster: &Cluster) -> Result<Sandbox> {
    let primary = Arc::clone(&cluster.sandbox);
    let starting = move || primary.standby().apply_delay(LAG).start();
    tokio::task::spawn_blocking(starting).await?.context("a standby cannot be started")
}

/// Ends the standby, and the WAL that its primary kept for it.
async fn remove(cluster: &Cluster, standby: Arc<Sandbox>) -> Result<()> {
    tokio::task::spawn_blocking(move || drop(standby)).await?;
    // A backend that still serves it would hold the slot.
    terminate(cluster, "backend_type = 'walsender'", 10).await?;
    let drop_slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active";
    let client = cluster.client().await?;
    while client.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await?.get::<_, i64>(0) > 0 {
        client.execute(drop_slots, &[]).await?;
    }
    Ok(())
}

/// Writes that a server knows.
async fn written(sandbox: &Sandbox) -> Result<i64> {
    let client = connect(&sandbox.url()).await?;
    Ok(client.query_one(&format!("SELECT count(*) FROM {SCHEMA}.written"), &[]).await?.get(0))
}

async fn on<T: Send + 'static>(
    sandbox: &Arc<Sandbox>,
    what: impl FnOnce(&Sandbox) -> Result<T, Error> + Send + 'static,
) -> Result<T> {
    let sandbox = Arc::clone(sandbox);
    Ok(tokio::task::spawn_blocking(move || what(&sandbox)).await??)
}
