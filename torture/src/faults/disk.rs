//! A full disk: PostgreSQL's data lies on a small file system of its own, and a file takes what is left of it.
//!
//! Mounting one needs root; without, the fault says that it cannot be made. The mount is in a namespace of this process
//! and its children, so it is gone with the last of them, however they end.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use uuid::Uuid;

use super::server;
use crate::conductor::Stage;
use crate::dice::Dice;

/// Room for an hour of this load, with its write-ahead log; and little enough to be filled at once.
const SIZE: &str = "size=4g,mode=0755";
/// Room for a full queue of notifications.
const SIZE_OF_QUEUE: &str = "size=10g,mode=0755";
const BALLOON: &str = "balloon";

/// Whether mounts are seen by this process and its children only.
static IS_OURS: AtomicBool = AtomicBool::new(false);

/// A file system of our own, gone when this is dropped.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Moves the calling thread, and all that it starts, into a mount namespace of their own. Where that is not allowed,
    /// mounting is not either.
    pub fn prepare() {
        let none = None::<&str>;
        let moved = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none));
        IS_OURS.store(moved.is_ok(), Ordering::Relaxed);
    }

    /// `None` where that is not allowed.
    pub fn mount(for_queue: bool) -> Option<Self> {
        if !IS_OURS.load(Ordering::Relaxed) {
            return None;
        }
        let size = if for_queue { SIZE_OF_QUEUE } else { SIZE };
        let path = PathBuf::from(format!("/tmp/torture-{:x}", Uuid::new_v4().as_fields().0));
        fs::create_dir(&path).ok()?;
        match mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(size)) {
            Ok(()) => Some(Self(path)),
            Err(_) => {
                // Not root, or a container that may not: the directory has served its turn.
                let _ = fs::remove_dir(&path);
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let gone = umount2(&self.0, MntFlags::MNT_DETACH).map_err(Into::into);
        if let Err(error) = gone.and_then(|()| fs::remove_dir(&self.0)) {
            eprintln!("torture: {} cannot be removed: {error}", self.0.display());
        }
    }
}

/// Fills the disk to the last byte, for a while; then frees it, and starts the server if it has given up.
pub(super) async fn fill(stage: &Stage, dice: &mut Dice) -> Result<()> {
    let Some(disk) = &stage.disk else { bail!("there is no disk to fill") };
    let balloon = disk.path().join(BALLOON);
    let file = balloon.clone();
    let blown = tokio::task::spawn_blocking(move || blow_up(&file)).await?;
    let lasted = match blown {
        Ok(()) => {
            tokio::time::sleep(dice.millis(1_500, 4_000)).await;
            Ok(())
        }
        Err(error) => Err(error).context("the disk cannot be filled"),
    };
    fs::remove_file(&balloon).context("the disk cannot be freed")?;
    lasted?;
    server::bring_back(stage).await
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
pub(super) fn cannot_fill(stage: &Stage) -> Option<String> {
    stage.disk.is_none().then(|| "mounting a small file system needs root".to_owned())
}
