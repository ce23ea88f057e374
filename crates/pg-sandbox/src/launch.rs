//! What it takes to start a server, once and again: its cluster, its configuration, its programs.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    process::Child,
    time::Duration,
};

use crate::{
    account::Account,
    binaries::Binaries,
    deadline,
    directory::Directory,
    error::{Error, ErrorKind},
    gate::{self, Waiting},
    log::tail,
    reaper::{Reaper, Running},
    server::Server,
};

/// How long `initdb` may take: about a second, much more on a loaded machine.
const INITDB_WAIT: Duration = Duration::from_secs(120);

/// What it takes to start a server, once and again.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) binaries: Binaries,
    pub(crate) account: Option<Account>,
    pub(crate) directory: Directory,
}

impl Launch {
    /// Makes the cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Initdb`] or [`ErrorKind::Timeout`] with what `initdb` said.
    pub(crate) fn run_initdb(&self, reaper: &mut Reaper) -> Result<(), Error> {
        let mut command = gate::command(&self.binaries.initdb(), &self.directory.initdb_log(), self.account)?;
        command.arg("--pgdata").arg(self.directory.data()).args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        let waiting = Waiting::spawn(command)?;
        reaper.tell(Running::Group(waiting.id()))?;
        self.finish_initdb(&mut waiting.let_through()?)?;
        reaper.tell(Running::None)
    }

    fn finish_initdb(&self, initdb: &mut Child) -> Result<(), Error> {
        let trouble = |kind, what: String| {
            let said = tail(&self.directory.initdb_log(), 0);
            Error::new(kind, format!("initdb {what}; it said: {said}"))
        };
        match deadline::poll(INITDB_WAIT, || initdb.try_wait()) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(trouble(ErrorKind::Initdb, format!("ended with {status}"))),
            Ok(None) => Err(trouble(ErrorKind::Timeout, format!("took longer than {INITDB_WAIT:?}"))),
            Err(error) => Err(Error::caused(ErrorKind::Process, "could not wait for initdb", error)),
        }
    }

    /// Starts a server on `port`; it is [ready](Server::wait_until_ready) later.
    pub(crate) fn start_server(&self, port: u16, reaper: &mut Reaper) -> Result<Server, Error> {
        let log = self.directory.log();
        let log_begin = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mut command = gate::command(&self.binaries.postgres(), &log, self.account)?;
        command.arg("-D").arg(self.directory.data()).arg("-p").arg(port.to_string());
        let waiting = Waiting::spawn(command)?;
        reaper.tell(Running::Server(waiting.id()))?;
        Ok(Server::starting(waiting.let_through()?, log_begin))
    }

    /// Adds lines to the cluster's `postgresql.conf`; the last one of a name counts.
    ///
    /// # Errors
    /// [`ErrorKind::Directory`].
    pub(crate) fn append_settings(&self, lines: &str) -> Result<(), Error> {
        let path = self.directory.data().join("postgresql.conf");
        let appended =
            OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(lines.as_bytes()));
        appended.map_err(|error| {
            Error::caused(ErrorKind::Directory, format!("could not write {}", path.display()), error)
        })
    }

    /// Writes a file that only the server's account can read. PostgreSQL takes a key only then.
    pub(crate) fn write_private(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(contents)?;
        self.account.map_or(Ok(()), |account| account.own(path))
    }
}
