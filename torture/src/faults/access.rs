//! Faults of the way to a server that is well: it refuses the nodes' password, or its host accepts and never answers.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::server::terminate;
use crate::cluster::{Cluster, PASSWORD, ROLE};
use crate::rng::Rng;

/// The nodes' role gets another password, and their connections end: none can come back until the old one is restored.
pub(super) async fn change_password(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let client = cluster.client().await?;
    set_password(&client, "second").await?;
    // A connection that began before the change may still pass with the old password, after the others have ended.
    let since: String = client.query_one("SELECT clock_timestamp()::text", &[]).await?.get(0);
    let old = format!("usename = '{ROLE}' AND backend_start <= '{since}'");
    let until = Instant::now() + rng.millis(1_000, 4_000);
    while Instant::now() < until {
        terminate(cluster, &old, 1_000).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let new = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE usename = '{ROLE}' AND application_name <> '' AND backend_start > '{since}'"
    );
    let connected: i64 = client.query_one(&new, &[]).await?.get(0);
    set_password(&client, PASSWORD).await?;
    cluster.report(
        connected == 0,
        format!("{connected} connections came back with a password that had changed"),
    );
    Ok(())
}

async fn set_password(client: &tokio_postgres::Client, password: &str) -> Result<()> {
    Ok(client.batch_execute(&format!("ALTER ROLE {ROLE} PASSWORD '{password}'")).await?)
}

/// For all nodes, and at times only for what connects anew.
pub(super) async fn stop_answering(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let cuts = rng.chance(50);
    for wire in cluster.members().flat_map(|member| [&member.pool, &member.listener]) {
        if cuts {
            wire.cut();
        }
        wire.stall();
    }
    tokio::time::sleep(rng.millis(1_500, 6_000)).await;
    super::wire::end(cluster);
    Ok(())
}
