//! What the listener is doing now, for health pages and for waiting.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Error;
use crate::error_kind::ErrorKind;

/// A snapshot of a [`Listener`](crate::Listener), from [`Listener::status`](crate::Listener::status).
#[derive(Debug, Clone, Default)]
pub struct Status {
    pub(crate) phase: Phase,
    pub(crate) connections: u64,
    pub(crate) failures: u32,
    pub(crate) as_of: Option<Instant>,
    pub(crate) last_error: Option<Arc<str>>,
    pub(crate) last_error_kind: Option<ErrorKind>,
}

/// The step of the connection's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Phase {
    /// Connecting, or waiting for the first LISTEN to be in force.
    #[default]
    Connecting,
    /// LISTEN is in force; the connection's first barrier is not back yet.
    Listening,
    /// A barrier came back on this connection.
    InSync,
    /// Waiting before the next attempt to connect.
    Backoff,
    /// Shut down.
    Closed,
}

impl Status {
    /// The step of the connection's life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether LISTEN is in force on a connection, as far as is known now. **It may already be half-open:**
    /// only [`as_of`](Self::as_of) says how fresh that knowledge is.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Listening | Phase::InSync)
    }

    /// Connections made so far, on which LISTEN came into force.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Attempts in a row, up to now, that did not lead to a connection in sync; 0 while in sync.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The `as_of` of the last barrier that came back, on whichever connection.
    #[must_use]
    pub fn as_of(&self) -> Option<Instant> {
        self.as_of
    }

    /// The last trouble with a connection, for people to read; none if there never was any.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// The kind of [`last_error`](Self::last_error).
    #[must_use]
    pub fn last_error_kind(&self) -> Option<ErrorKind> {
        self.last_error_kind
    }

    /// The last error, if only another configuration removes it.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let text = self.last_error.as_deref().unwrap_or_default();
        match self.last_error_kind {
            Some(ErrorKind::Pooler) => Some(Error::pooler()),
            Some(ErrorKind::Refused) => Some(Error::new(ErrorKind::Refused, text.to_owned())),
            _ => None,
        }
    }
}
