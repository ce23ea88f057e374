//! A small file system for PostgreSQL's data, which a fault can fill. Mounting one needs root.
//!
//! The mount is in a namespace of this process and its children, so it goes with the last of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use uuid::Uuid;

/// Room for an hour of this load, with its write-ahead log; and little enough to be filled at once.
const SIZE: &str = "size=4g,mode=0755";
/// Room for a full queue of notifications.
const SIZE_OF_QUEUE: &str = "size=10g,mode=0755";

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
