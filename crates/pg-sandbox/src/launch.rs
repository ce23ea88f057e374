//! Starting PostgreSQL's programs: as which account, with which environment, and never before the reaper knows.
//!
//! A program that has been spawned and not yet been told about would outlive an owner that is killed at that moment;
//! `initdb` would even make the directory again that the reaper has removed. So a program begins as a shell that waits
//! at a gate, a pipe: it is made known, then let through, and the shell becomes the program. If the owner dies in
//! between, the pipe ends, and so does the shell.

use std::{
    env,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use crate::{
    account::Account,
    binaries::Binaries,
    deadline,
    directory::Directory,
    error::{Error, ErrorKind},
    log::tail,
    reaper::{Reaper, Running},
    server::Server,
};

/// How long `initdb` may take: about a second, much more on a loaded machine.
const INITDB_WAIT: Duration = Duration::from_secs(120);

/// The shell at the gate. The arguments are the program and its own arguments.
const GATE: &str = r#"read -r _ && exec "$@" </dev/null"#;

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
        let mut command = self.command(&self.binaries.initdb(), &self.directory.initdb_log())?;
        command.arg("--pgdata").arg(self.directory.data()).args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        let waiting = Waiting::spawn(command)?;
        reaper.tell(Running::Group(waiting.child.id()))?;
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
        let mut command = self.command(&self.binaries.postgres(), &log)?;
        command.arg("-D").arg(self.directory.data()).arg("-p").arg(port.to_string());
        let waiting = Waiting::spawn(command)?;
        reaper.tell(Running::Server(waiting.child.id()))?;
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

    /// Writes a file that nobody but the server's account can read. PostgreSQL takes a key only then.
    pub(crate) fn write_private(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(contents)?;
        self.account.map_or(Ok(()), |account| account.own(path))
    }

    /// A program of PostgreSQL behind its gate, with nothing of the caller's PostgreSQL about it.
    fn command(&self, program: &Path, log: &Path) -> Result<Command, Error> {
        let log_file = OpenOptions::new().create(true).append(true).open(log);
        let (out, err) = log_file.and_then(|file| Ok((file.try_clone()?, file))).map_err(|error| {
            Error::caused(ErrorKind::Directory, format!("could not open {}", log.display()), error)
        })?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GATE, "pg-sandbox-gate"]).arg(program);
        // PGDATA, PGPORT, PGOPTIONS and their kin would lead elsewhere.
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        // English, because the log is read; UTC, because initdb would spend its time comparing time zones.
        command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(out).stderr(err);
        if let Some(account) = self.account {
            account.run(&mut command);
        }
        Ok(command)
    }
}

/// A program at its gate.
struct Waiting {
    child: Child,
    gate: ChildStdin,
}

impl Waiting {
    fn spawn(mut command: Command) -> Result<Self, Error> {
        let could_not = "could not start /bin/sh as the account that the server runs as";
        let mut child =
            command.spawn().map_err(|error| Error::caused(ErrorKind::Process, could_not, error))?;
        match child.stdin.take() {
            Some(gate) => Ok(Self { child, gate }),
            None => Err(Error::new(ErrorKind::Process, could_not)),
        }
    }

    fn let_through(mut self) -> Result<Child, Error> {
        match self.gate.write_all(b"go\n") {
            Ok(()) => Ok(self.child),
            Err(error) => {
                Err(Error::caused(ErrorKind::Process, "a program of PostgreSQL died before it began", error))
            }
        }
    }
}
