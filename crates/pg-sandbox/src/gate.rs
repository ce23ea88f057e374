//! Starting programs: as which account, with which environment, and never before the reaper knows.
//!
//! A program that is spawned and not yet reported would outlive an owner that is killed then; `initdb` would even
//! make the directory again that the reaper has removed. So a program begins as a shell that waits at a pipe, the
//! gate. It is recorded, then let through, and the shell becomes the program. If the owner dies in between, the pipe
//! ends, and so does the shell.

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::{
    account::Account,
    error::{Error, ErrorKind},
};

/// The shell at the gate. The arguments are the program and its own arguments.
const GATE: &str = r#"read -r _ && exec "$@" </dev/null"#;

/// `program` behind its gate, as `account`, with nothing of the caller's PostgreSQL about it.
///
/// # Errors
/// [`ErrorKind::Directory`] if `log` cannot be opened.
pub(crate) fn command(program: &Path, log: &Path, account: Option<Account>) -> Result<Command, Error> {
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
    if let Some(account) = account {
        account.run(&mut command);
    }
    Ok(command)
}

/// A program at its gate.
pub(crate) struct Waiting {
    child: Child,
    gate: ChildStdin,
}

impl Waiting {
    pub(crate) fn spawn(mut command: Command) -> Result<Self, Error> {
        let could_not = "could not start /bin/sh as the account that the server runs as";
        let mut child =
            command.spawn().map_err(|error| Error::caused(ErrorKind::Process, could_not, error))?;
        match child.stdin.take() {
            Some(gate) => Ok(Self { child, gate }),
            None => Err(Error::new(ErrorKind::Process, could_not)),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn let_through(mut self) -> Result<Child, Error> {
        match self.gate.write_all(b"go\n") {
            Ok(()) => Ok(self.child),
            Err(error) => Err(Error::caused(ErrorKind::Process, "the program died before it began", error)),
        }
    }
}
