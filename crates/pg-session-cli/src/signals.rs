//! The signals that ask the program to end: Ctrl-C, `kill`, and a terminal that was closed.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Catches the signals from its making on, so that nothing is left behind however the program is ended.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// A signal that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Caught(SignalKind);

impl Signals {
    /// # Errors
    /// If the operating system refuses a handler.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.interrupt.recv() => Caught(SignalKind::interrupt()),
            _ = self.terminate.recv() => Caught(SignalKind::terminate()),
            _ = self.hang_up.recv() => Caught(SignalKind::hangup()),
        }
    }
}

impl Caught {
    /// The exit code by which a shell knows it: 128 + the signal's number.
    pub(crate) fn exit_code(self) -> u8 {
        u8::try_from(self.0.as_raw_value()).unwrap_or(0).saturating_add(128)
    }
}
