//! The directory of one sandbox: data, sockets, log. It is made here, private to the account of the server, and
//! removed by the [`reaper`](crate::reaper).

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
    /// Makes a new, empty, private directory, and hands it to `account`.
    ///
    /// # Errors
    /// [`ErrorKind::Directory`] if it cannot be made where temporary files go.
    pub(crate) fn create(account: Option<Account>) -> Result<Self, Error> {
        let name =
            format!("pg-sandbox-{}-{:016x}", process::id(), RandomState::new().build_hasher().finish());
        let parent = parent(&name, account.is_some());
        let directory = Self { path: parent.join(name) };
        directory.make(account).map_err(|error| {
            let message = format!(
                "could not make {}: set TMPDIR to a directory where files can be made",
                directory.path.display()
            );
            Error::caused(ErrorKind::Directory, message, error)
        })?;
        Ok(directory)
    }

    fn make(&self, account: Option<Account>) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        // Fails if it exists: nobody can have put one in our way and own what is in it.
        builder.create(&self.path)?;
        builder.create(self.sockets())?;
        if let Some(account) = account {
            account.own(&self.sockets())?;
            account.own(&self.path)?;
        }
        Ok(())
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
    let socket = parent.join(name).join("s").join(LONGEST_SOCKET_NAME);
    let too_long = socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX;
    let too_private = for_another_account && !parent.ancestors().all(open_to_all);
    if too_long || too_private || !parent.is_absolute() { PathBuf::from(SHORT_PARENT) } else { parent }
}

fn open_to_all(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_paths_that_fit() {
        let directory = Directory::create(None).unwrap();
        let socket = directory.sockets().join(LONGEST_SOCKET_NAME);
        let mode = fs::metadata(directory.path()).unwrap().permissions().mode();
        fs::remove_dir_all(directory.path()).unwrap();
        assert!(socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX, "{}", socket.display());
        assert_eq!(mode & 0o777, 0o700);
    }
}
