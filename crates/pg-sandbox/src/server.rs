//! The running server: one postmaster, from its start to its end, and the signals that PostgreSQL understands.
//!
//! States: starting (spawned, not yet ready) → running ⇄ paused → ended. A value of [`Server`] is never "ended": the
//! calls that end it consume it.

use std::{
    fs,
    process::{Child, ExitStatus},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    deadline,
    directory::Directory,
    error::{Error, ErrorKind},
    log::tail,
    processes,
};

/// How long a start may take, recovery after a crash included.
const START_WAIT: Duration = Duration::from_secs(120);
/// How long a fast shutdown may take, its checkpoint included.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// What PostgreSQL says when another process has its port.
const PORT_TAKEN: &str = "Address already in use";

/// Why a server did not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// Another process listens on the port. A different port may work.
    PortTaken(Error),
    /// Anything else.
    Failed(Error),
}

/// One running postmaster.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where this server's part of the log begins, in bytes.
    log_begin: u64,
    paused: bool,
}

impl Server {
    /// The server that is starting in `child`, and logs from `log_begin` on.
    pub(crate) fn starting(child: Child, log_begin: u64) -> Self {
        Self { child, log_begin, paused: false }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the postmaster runs; it may have ended by itself.
    pub(crate) fn is_running(&mut self) -> Result<bool, Error> {
        Ok(self.ended()?.is_none())
    }

    /// Waits until connections are accepted.
    pub(crate) fn wait_until_ready(&mut self, directory: &Directory) -> Result<(), StartError> {
        let id = self.id();
        let answer = deadline::poll(START_WAIT, || {
            Ok(match self.ended()? {
                Some(status) => Some(Err(status)),
                None => says_ready(directory, id).then_some(Ok(())),
            })
        });
        let said = || tail(&directory.log(), self.log_begin);
        match answer.map_err(StartError::Failed)? {
            Some(Ok(())) => Ok(()),
            Some(Err(status)) => {
                let said = said();
                let error =
                    Error::new(ErrorKind::Start, format!("the server ended with {status}; its log: {said}"));
                Err(if said.contains(PORT_TAKEN) {
                    StartError::PortTaken(error)
                } else {
                    StartError::Failed(error)
                })
            }
            None => Err(StartError::Failed(Error::new(
                ErrorKind::Timeout,
                format!("the server was not ready in {START_WAIT:?}; its log: {}", said()),
            ))),
        }
    }

    /// A fast shutdown: connections are closed, transactions in flight are rolled back, everything is written.
    /// A server that takes too long is killed, and that is an error.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        // Once its status is collected, another process may have its id.
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.resume()?;
        processes::signal(self.id(), Signal::SIGINT)?;
        if deadline::poll(STOP_WAIT, || self.ended())?.is_some() {
            return Ok(());
        }
        self.kill()?;
        Err(Error::new(
            ErrorKind::Timeout,
            format!("the server did not stop in {STOP_WAIT:?} and was killed"),
        ))
    }

    /// A crash: the postmaster and all of its children are killed, and none of them writes anything more.
    pub(crate) fn kill(mut self) -> Result<(), Error> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let children = self.stop_forking()?;
        for child in &children {
            processes::signal(*child, Signal::SIGKILL)?;
        }
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map_err(|error| Error::caused(ErrorKind::Process, "could not kill the server", error))?;
        // While one of them lives, its shared memory does, and the next server would refuse to start.
        processes::wait_until_gone(&children)
    }

    /// Freezes the postmaster and all of its children, as they are.
    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        self.paused = true;
        for child in self.stop_forking()? {
            processes::signal(child, Signal::SIGSTOP)?;
            processes::wait_until_stopped(child)?;
        }
        Ok(())
    }

    /// Lets a frozen server go on.
    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        if self.paused {
            for child in processes::children_of(self.id())? {
                processes::signal(child, Signal::SIGCONT)?;
            }
            processes::signal(self.id(), Signal::SIGCONT)?;
            self.paused = false;
        }
        Ok(())
    }

    /// Freezes the postmaster, so that the list of its children, which this returns, stays true.
    fn stop_forking(&self) -> Result<Vec<u32>, Error> {
        processes::signal(self.id(), Signal::SIGSTOP)?;
        processes::wait_until_stopped(self.id())?;
        processes::children_of(self.id())
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(|error| {
            Error::caused(ErrorKind::Process, "could not ask for the state of the server", error)
        })
    }
}

impl Drop for Server {
    /// Collects the exit status, so that no zombie is left. The reaper goes first and ends the server gently; what is
    /// still here then has to go.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && let Err(error) = self.child.kill().and_then(|()| self.child.wait())
        {
            eprintln!("pg-sandbox: could not kill the server {}: {error}", self.id());
        }
    }
}

/// `postmaster.pid` says who runs (line 1) and how it is doing (line 8). After a crash it is a dead server's.
fn says_ready(directory: &Directory, id: u32) -> bool {
    let Ok(text) = fs::read_to_string(directory.data().join("postmaster.pid")) else { return false };
    let mut lines = text.lines();
    lines.next() == Some(id.to_string().as_str())
        && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}
