//! A full disk: a file takes all that is left of the small file system that holds PostgreSQL's data.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::server;
use crate::cluster::Cluster;
use crate::rng::Rng;

const BALLOON: &str = "balloon";

/// Fills the disk to the last byte, for a while; then frees it, and starts the server if it has given up.
pub(super) async fn fill(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let Some(disk) = &cluster.disk else { bail!("there is no disk to fill") };
    let balloon = disk.path().join(BALLOON);
    let file = balloon.clone();
    let blown = tokio::task::spawn_blocking(move || blow_up(&file)).await?;
    let lasted = match blown {
        Ok(()) => {
            tokio::time::sleep(rng.millis(1_500, 4_000)).await;
            Ok(())
        }
        Err(error) => Err(error).context("the disk cannot be filled"),
    };
    fs::remove_file(&balloon).context("the disk cannot be freed")?;
    lasted?;
    server::bring_back(cluster).await
}

fn blow_up(path: &Path) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let mut size = 1 << 20;
    let bytes = vec![0; size];
    while size > 0 {
        match file.write(&bytes[..size]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Why it cannot be filled, if it cannot.
pub(super) fn cannot_fill(cluster: &Cluster) -> Option<String> {
    cluster.disk.is_none().then(|| "mounting a small file system needs root".to_owned())
}
