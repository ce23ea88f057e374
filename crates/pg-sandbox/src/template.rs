//! The cluster that the sandboxes of a process are copies of.
//!
//! `initdb` takes most of the time of a start, and makes the same files each time. A process with one sandbox has no
//! template: the first sandbox runs `initdb` itself. The second one makes the template, which ends with the process.

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{backup, directory::Directory, error::Error, launch::Launch, reaper::Reaper};

/// A cluster without a server.
struct Template {
    initdb: PathBuf,
    launch: Launch,
    /// Removes the directory when the process ends, because a static is never dropped.
    _reaper: Reaper,
}

impl Template {
    /// Makes a template with the programs and the account of `launch`.
    fn make(launch: &Launch) -> Result<Self, Error> {
        let directory = Directory::choose(launch.account);
        let mut reaper = Reaper::watch(directory.clone())?;
        directory.furnish(launch.account)?;
        let launch = Launch { binaries: launch.binaries.clone(), account: launch.account, directory };
        launch.run_initdb(&mut reaper)?;
        Ok(Self { initdb: launch.binaries.initdb(), launch, _reaper: reaper })
    }
}

/// Makes the cluster of `launch`.
///
/// # Errors
/// Those of [`Launch::run_initdb`] and [`backup::copy_cluster`].
pub(crate) fn fill(launch: &Launch, reaper: &mut Reaper) -> Result<(), Error> {
    static IS_FIRST: AtomicBool = AtomicBool::new(true);
    static TEMPLATE: Mutex<Option<Template>> = Mutex::new(None);
    if IS_FIRST.swap(false, Ordering::Relaxed) {
        return launch.run_initdb(reaper);
    }
    let mut template = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    let known = template.take().filter(|known| known.initdb == launch.binaries.initdb());
    let known = match known {
        Some(known) => known,
        None => Template::make(launch)?,
    };
    let known = template.insert(known);
    backup::copy_cluster(&known.launch.directory.data(), &launch.directory.data(), launch.account)
}
