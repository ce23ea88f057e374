//! The directory of one sandbox: data, sockets, log, private to the account of the server. Where it is gets decided
//! here; the [`reaper`](crate::reaper) makes it and removes it, so that it never exists unwatched.

use std::{
    collections::hash_map::RandomState,
    env,
    ffi::OsStr,
    fs,
    hash::{BuildHasher, Hasher},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
};

use crate::{
    account::Account,
    error::{Error, ErrorKind},
};

/// Longest path of a Unix socket in bytes, without the final NUL: 103 on the BSDs and macOS, 107 on Linux.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// The name that the server gives its socket, with the longest port there is.
const LONGEST_SOCKET_NAME: &str = ".s.PGSQL.65535";

/// Where to go if the directory for temporary files is too deep or too private.
const SHORT_PARENT: &str = "/tmp";

/// The directory of one sandbox. **Dropping it removes nothing**: that must also happen when nothing is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Chooses a place for a new directory that `account` can reach; the reaper makes it.
    pub(crate) fn choose(account: Option<Account>) -> Self {
        let name = new_name();
        Self { path: parent(&name, account.is_some()).join(name) }
    }

    /// As [`choose`](Self::choose), in `parent` and nowhere else.
    ///
    /// # Errors
    /// [`ErrorKind::Directory`] if it cannot serve.
    pub(crate) fn within(parent: &Path, account: Option<Account>) -> Result<Self, Error> {
        let name = new_name();
        if serves(parent, &name, account.is_some()) {
            return Ok(Self { path: parent.join(name) });
        }
        let message = format!(
            "{} cannot hold the sandbox: give a short, absolute path that every account can pass through",
            parent.display()
        );
        Err(Error::new(ErrorKind::Directory, message))
    }

    /// Makes what is inside, and hands everything to `account`.
    ///
    /// # Errors
    /// [`ErrorKind::Directory`].
    pub(crate) fn furnish(&self, account: Option<Account>) -> Result<(), Error> {
        let furnished =
            fs::DirBuilder::new().mode(0o700).create(self.sockets()).and_then(|()| match account {
                Some(account) => account.own(&self.sockets()).and_then(|()| account.own(&self.path)),
                None => Ok(()),
            });
        furnished.map_err(|error| {
            Error::caused(ErrorKind::Directory, format!("could not furnish {}", self.path.display()), error)
        })
    }

    /// Removes the cluster's files, for another cluster to be put there. `postmaster.pid` and the directory itself stay:
    /// they lead the next server, or the reaper, to the shared memory of a killed one.
    ///
    /// # Errors
    /// [`ErrorKind::Directory`].
    pub(crate) fn empty_data(&self) -> Result<(), Error> {
        let empty = || {
            for entry in fs::read_dir(self.data())? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else if entry.file_name() != "postmaster.pid" {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok::<_, io::Error>(())
        };
        empty().map_err(|error| {
            Error::caused(ErrorKind::Directory, format!("could not empty {}", self.data().display()), error)
        })
    }

    /// A directory that is not made, to talk about.
    #[cfg(test)]
    pub(crate) fn at(path: &str) -> Self {
        Self { path: PathBuf::from(path) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The last part of the path, unlike that of any other sandbox.
    pub(crate) fn name(&self) -> &str {
        // We made the name, of ASCII characters.
        self.path.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }

    /// The cluster, made by `initdb`.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Where the server puts its Unix sockets. One letter: the path has to be short.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.path.join("s")
    }

    /// What the server says.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("server.log")
    }

    /// What `initdb` says.
    pub(crate) fn initdb_log(&self) -> PathBuf {
        self.path.join("initdb.log")
    }
}

/// The directory for temporary files, if a socket's path fits and another account can pass through it.
fn parent(name: &str, for_another_account: bool) -> PathBuf {
    let parent = env::temp_dir();
    if serves(&parent, name, for_another_account) { parent } else { PathBuf::from(SHORT_PARENT) }
}

fn serves(parent: &Path, name: &str, for_another_account: bool) -> bool {
    let socket = parent.join(name).join("s").join(LONGEST_SOCKET_NAME);
    let too_long = socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX;
    let too_private = for_another_account && !parent.ancestors().all(open_to_all);
    !too_long && !too_private && parent.is_absolute()
}

fn new_name() -> String {
    format!("pg-sandbox-{}-{:016x}", process::id(), RandomState::new().build_hasher().finish())
}

fn open_to_all(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_paths_that_fit_and_no_name_comes_twice() {
        let (one, two) = (Directory::choose(None), Directory::choose(None));
        assert_ne!(one.path(), two.path());
        let socket = one.sockets().join(LONGEST_SOCKET_NAME);
        assert!(socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX, "{}", socket.display());
    }
}
