//! A base backup of a running server, taken with the server's own functions.
//!
//! `pg_basebackup` does the same, but is not part of every installation. The copy may tear pages and miss what is
//! written meanwhile; the WAL from the backup's start on repairs both. A replication slot keeps that WAL.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use crate::{
    account::Account,
    client::Client,
    error::{Error, ErrorKind},
};

/// First version whose functions are called `pg_backup_start` and `pg_backup_stop`.
const RENAMED_IN: u32 = 15;

/// Directories that a new server starts without: another server's WAL, slots and temporary state.
const CONTENTS_LEFT_OUT: [&str; 8] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal",
];

/// Files that belong to the running server alone.
const FILES_LEFT_OUT: [&str; 4] = ["postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal"];

/// Copies the data directory `from` of the server behind `client` to `to`, owned by `account`.
///
/// # Errors
/// [`ErrorKind::Query`] if the server refuses, [`ErrorKind::Directory`] if a file cannot be copied.
pub(crate) fn take(
    client: &mut Client,
    major: u32,
    from: &Path,
    to: &Path,
    account: Option<Account>,
) -> Result<(), Error> {
    let (start, stop) = if major >= RENAMED_IN {
        ("SELECT pg_backup_start('pg-sandbox', true)", "SELECT labelfile FROM pg_backup_stop(false)")
    } else {
        (
            "SELECT pg_start_backup('pg-sandbox', true, false)",
            "SELECT labelfile FROM pg_stop_backup(false, false)",
        )
    };
    client.query(start)?;
    let failed = |error| {
        let message = format!("could not copy {} to {}", from.display(), to.display());
        Error::caused(ErrorKind::Directory, message, error)
    };
    let copy = Copy { account, running: Some(from) };
    copy.directory(from, to).map_err(failed)?;
    let label = client.value(stop)?;
    let label_path = to.join("backup_label");
    fs::write(&label_path, label).and_then(|()| copy.hand_over(&label_path, 0o600)).map_err(failed)
}

/// Copies a cluster without a server from `from` to `to`, owned by `account`.
///
/// # Errors
/// [`ErrorKind::Directory`].
pub(crate) fn copy_cluster(from: &Path, to: &Path, account: Option<Account>) -> Result<(), Error> {
    Copy { account, running: None }.directory(from, to).map_err(|error| {
        let message = format!("could not copy {} to {}", from.display(), to.display());
        Error::caused(ErrorKind::Directory, message, error)
    })
}

struct Copy<'a> {
    account: Option<Account>,
    /// The data directory, if its server runs.
    running: Option<&'a Path>,
}

impl Copy<'_> {
    fn directory(&self, from: &Path, to: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(from) {
            Ok(entries) => entries,
            // A database that was dropped meanwhile.
            Err(error) => return gone_is_fine(error),
        };
        // The data directory itself may be there; see `Directory::empty_data`.
        fs::DirBuilder::new().mode(0o700).recursive(true).create(to)?;
        self.hand_over(to, 0o700)?;
        for entry in entries {
            let entry = entry?;
            let (name, source) = (entry.file_name(), entry.path());
            let target = to.join(&name);
            // Links lead to table spaces: the copy would share their files with the original.
            match entry.file_type() {
                Ok(kind) if kind.is_symlink() => {
                    return Err(io::Error::other(format!("{} is a link", source.display())));
                }
                Ok(kind) if kind.is_dir() => {
                    if self.is_left_out(from, &name, &CONTENTS_LEFT_OUT) {
                        self.empty(&target)?;
                    } else {
                        self.directory(&source, &target)?;
                    }
                }
                Ok(_) if self.is_left_out(from, &name, &FILES_LEFT_OUT) => {}
                Ok(_) => self.file(&source, &target)?,
                Err(error) => gone_is_fine(error)?,
            }
        }
        Ok(())
    }

    fn is_left_out(&self, parent: &Path, name: &OsStr, names: &[&str]) -> bool {
        self.running == Some(parent) && names.iter().any(|left_out| name == *left_out)
    }

    fn empty(&self, target: &Path) -> io::Result<()> {
        let mut made = vec![target.to_owned()];
        // Servers before 17 expect this one to be there.
        if target.ends_with("pg_wal") {
            made.push(target.join("archive_status"));
        }
        for directory in made {
            fs::DirBuilder::new().mode(0o700).create(&directory)?;
            self.hand_over(&directory, 0o700)?;
        }
        Ok(())
    }

    fn file(&self, from: &Path, to: &Path) -> io::Result<()> {
        match fs::copy(from, to) {
            Ok(_) => self.hand_over(to, 0o600),
            // A table that was dropped meanwhile. The WAL says so as well.
            Err(error) => gone_is_fine(error),
        }
    }

    fn hand_over(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        self.account.map_or(Ok(()), |account| account.own(path))
    }
}

fn gone_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
