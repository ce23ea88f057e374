//! Whom the server runs as. PostgreSQL refuses to run as root. As root, the sandbox changes to an
//! account that may do little, and gives it the directory. For any other account, the server runs
//! as the caller.

use std::{
    io,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::Command,
};

use nix::unistd::{User, geteuid};

use crate::error::{Error, ErrorKind};

/// Accounts to drop to, best first. `postgres` comes with the server's package; `nobody` is everywhere.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// The account of a server that was started by root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// The account to drop to, or `None` when there is nothing to drop.
    ///
    /// # Errors
    /// [`ErrorKind::NoAccount`] if this is root and none of the unprivileged accounts exists.
    pub(crate) fn to_drop_to() -> Result<Option<Self>, Error> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        for name in UNPRIVILEGED {
            let user = User::from_name(name).map_err(|errno| {
                Error::caused(ErrorKind::NoAccount, format!("could not look up the account {name}"), errno)
            })?;
            if let Some(user) = user.filter(|user| !user.uid.is_root()) {
                return Ok(Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
            }
        }
        let message = format!(
            "PostgreSQL refuses to run as root, and none of the accounts {} exists: \
             create one of them, or run as another user",
            UNPRIVILEGED.join(", ")
        );
        Err(Error::new(ErrorKind::NoAccount, message))
    }

    /// Makes `command` run as this account. The standard library drops root's supplementary groups as well.
    pub(crate) fn run(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Makes this account the owner of `path`.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }
}
