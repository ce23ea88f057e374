//! Faults of the server itself.

use std::sync::Arc;

use anyhow::{Context, Result};
use pg_sandbox::{ErrorKind, Sandbox};

use crate::cluster::Cluster;
use crate::plan::TRUST_WINDOW;
use crate::rng::Rng;

/// Ends up to `most` connections that meet the condition.
pub(super) async fn terminate(cluster: &Cluster, condition: &str, most: i64) -> Result<()> {
    let client = cluster.client().await?;
    let terminate = format!(
        "SELECT pg_terminate_backend(pid) FROM (
             SELECT pid FROM pg_stat_activity WHERE {condition} ORDER BY random() LIMIT {most}) a"
    );
    client.execute(&terminate, &[]).await.context("connections cannot be ended")?;
    Ok(())
}

/// A server that does not end in order has been killed by then: a fault as well, and no reason to give up.
pub(super) async fn restart(cluster: &Cluster) -> Result<()> {
    blocking(cluster, |sandbox| match sandbox.stop() {
        Err(error) if error.kind() == ErrorKind::Timeout => {
            println!("torture: {error}");
            sandbox.start_again()
        }
        stopped => stopped.and_then(|()| sandbox.start_again()),
    })
    .await
}

pub(super) async fn kill(cluster: &Cluster) -> Result<()> {
    blocking(cluster, |sandbox| sandbox.kill().and_then(|()| sandbox.start_again())).await
}

/// For one and a half to five windows.
pub(super) async fn stop(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    blocking(cluster, Sandbox::pause).await?;
    let window = u64::try_from(TRUST_WINDOW.as_millis())?;
    tokio::time::sleep(rng.millis(window * 3 / 2, window * 5)).await;
    blocking(cluster, Sandbox::resume).await
}

/// Starts it again, if it has given up by itself.
pub(super) async fn bring_back(cluster: &Cluster) -> Result<()> {
    blocking(cluster, Sandbox::start_again).await
}

async fn blocking(
    cluster: &Cluster,
    what: impl FnOnce(&Sandbox) -> Result<(), pg_sandbox::Error> + Send + 'static,
) -> Result<()> {
    let sandbox = Arc::clone(&cluster.sandbox);
    Ok(tokio::task::spawn_blocking(move || what(&sandbox)).await??)
}
