//! The watchdog: a child process that ends the server and removes the directory when the owner is gone, however it
//! went. A destructor does not run on `kill -9`, on an unhandled Ctrl-C, in `process::abort`, or for a static.
//!
//! The watchdog reads from a pipe whose other end lives in the owner alone: the kernel closes it with the process.
//! The standard library makes pipes close-on-exec, so no child of the owner holds it open. The watchdog is in a process
//! group of its own, and so is the server: Ctrl-C in a terminal reaches the owner only, and what follows is the
//! watchdog's decision. It holds neither the standard streams nor the working directory of its owner.
//!
//! The watchdog also makes the directory: there is no moment in which the owner could die and leave it behind.
//!
//! Dropping a sandbox goes the same way: the pipe is closed, and the owner waits for the watchdog. There is one way
//! to clean up, and every test takes it.

use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use crate::{
    deadline,
    directory::Directory,
    error::{Error, ErrorKind},
};

/// The watchdog's program.
const SCRIPT: &str = include_str!("reaper.sh");

/// How long cleaning up may take: above the sum of the script's own limits.
const REAP_WAIT: Duration = Duration::from_secs(30);

/// What runs in the sandbox, and has to be ended with it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Running {
    /// Nothing.
    None,
    /// `initdb` or pgbouncer, the leader of a process group.
    Group(u32),
    /// The postmaster.
    Server(u32),
}

/// The owner's end of the watchdog. Dropping it cleans up and waits.
#[derive(Debug)]
pub(crate) struct Reaper {
    directory: Directory,
    /// The process and the pipe, until they have done their work.
    watchdog: Option<(Child, ChildStdin)>,
}

impl Reaper {
    /// Starts a watchdog, which makes `directory`.
    ///
    /// # Errors
    /// [`ErrorKind::Process`] if there is no `sh`, or no process to be had; [`ErrorKind::Directory`] if the directory
    /// cannot be made.
    pub(crate) fn watch(directory: Directory) -> Result<Self, Error> {
        let no_watchdog =
            |error| Error::caused(ErrorKind::Process, "could not start the watchdog with /bin/sh", error);
        let mut child = Command::new("/bin/sh")
            // By way of a variable: `ps` shows a short line, and not the whole script.
            .args(["-c", r#"eval "$PG_SANDBOX_REAPER""#, "pg-sandbox-reaper"])
            .arg(directory.path())
            .env("PG_SANDBOX_REAPER", SCRIPT)
            .env("LC_ALL", "C")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(no_watchdog)?;
        let (pipe, mut answer) = (child.stdin.take(), String::new());
        if let Some(mut out) = child.stdout.take() {
            out.read_to_string(&mut answer).map_err(no_watchdog)?;
        }
        let reaper = Self { directory, watchdog: pipe.map(|pipe| (child, pipe)) };
        if answer.trim() == "made" { Ok(reaper) } else { Err(reaper.not_made(answer.trim())) }
    }

    /// The watchdog has ended without a directory: there is nothing to clean up but itself.
    fn not_made(mut self, answer: &str) -> Error {
        let place = self.directory.path().display().to_string();
        if let Some((mut child, pipe)) = self.watchdog.take() {
            drop(pipe);
            if let Err(error) = child.wait() {
                return Error::caused(ErrorKind::Process, "could not wait for the watchdog", error);
            }
        }
        let message =
            format!("could not make {place} ({answer}): set TMPDIR to a directory where files can be made");
        Error::new(ErrorKind::Directory, message)
    }

    /// Tells the watchdog what it would have to end. Call it before a process does anything, and when it has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Process`] if the watchdog is gone.
    pub(crate) fn tell(&mut self, running: Running) -> Result<(), Error> {
        let line = match running {
            Running::None => "none 0\n".to_owned(),
            Running::Group(id) => format!("group {id}\n"),
            Running::Server(id) => format!("server {id}\n"),
        };
        let sent = match &mut self.watchdog {
            Some((_, pipe)) => pipe.write_all(line.as_bytes()),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        sent.map_err(|error| {
            let message =
                "the watchdog of the sandbox is gone: nothing would remove the server; start a new sandbox";
            Error::caused(ErrorKind::Process, message, error)
        })
    }

    /// Ends what runs, removes the directory, and waits until that is done. Doing it twice does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Process`] or [`ErrorKind::Timeout`] if something may be left; the message says where.
    pub(crate) fn reap(&mut self) -> Result<(), Error> {
        let Some((mut child, pipe)) = self.watchdog.take() else { return Ok(()) };
        drop(pipe);
        let ended = deadline::poll(REAP_WAIT, || child.try_wait());
        if matches!(ended, Ok(Some(status)) if status.success()) {
            return Ok(());
        }
        let place = self.directory.path().display();
        match ended {
            Ok(Some(status)) => {
                let message =
                    format!("the watchdog ended with {status}; remove {place} and what runs in it by hand");
                Err(Error::new(ErrorKind::Process, message))
            }
            Ok(None) => {
                let message =
                    format!("cleaning up {place} takes longer than {REAP_WAIT:?}; the watchdog goes on");
                Err(Error::new(ErrorKind::Timeout, message))
            }
            Err(error) => Err(Error::caused(
                ErrorKind::Process,
                format!("could not wait for the watchdog of {place}"),
                error,
            )),
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if let Err(error) = self.reap() {
            // A destructor cannot return an error, so it prints it.
            eprintln!("pg-sandbox: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_that_cannot_be_made_is_an_error_with_its_cause() {
        let error = Reaper::watch(Directory::at("/nowhere/pg-sandbox-test")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Directory);
        assert!(
            error.to_string().contains("No such file") && error.to_string().contains("TMPDIR"),
            "{error}"
        );
    }

    #[test]
    fn directory_of_another_account_is_not_taken_or_removed() {
        let directory = Directory::choose(None);
        std::fs::create_dir(directory.path()).unwrap();
        let error = Reaper::watch(directory.clone()).unwrap_err();
        std::fs::remove_dir(directory.path()).unwrap();
        assert_eq!(error.kind(), ErrorKind::Directory);
    }
}
