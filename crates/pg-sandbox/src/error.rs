//! The one error of this crate: opaque, with a kind to branch on and a message that says what to do.

use std::{fmt, io};

/// What went wrong, for a person to read; [`kind`](Error::kind) is for code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<io::Error>,
}

/// The sorts of trouble a sandbox can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No `initdb` and `postgres`, or no `pgbouncer`, on this machine; the message names the package to install.
    BinariesMissing,
    /// Running as root, and there is no unprivileged account to run the server as.
    NoAccount,
    /// A setting or file that the builder was given cannot be used.
    Setting,
    /// The directory of the sandbox could not be made or handed over.
    Directory,
    /// No port could be had, or the proxy could not listen.
    Port,
    /// `initdb` failed; the message ends with what it said.
    Initdb,
    /// The server or the pooler did not start; the message ends with the end of its log.
    Start,
    /// A step took longer than its limit.
    Timeout,
    /// The server is stopped, and the call needs it running.
    NotRunning,
    /// The server refused a query of the sandbox itself; the message ends with what it said.
    Query,
    /// A process could not be started, found or signalled, or the directory could not be removed.
    Process,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn caused(kind: ErrorKind, message: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// What sort of trouble this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BinariesMissing => "a program is not installed",
            Self::NoAccount => "no unprivileged account",
            Self::Setting => "unusable setting",
            Self::Directory => "directory trouble",
            Self::Port => "no port",
            Self::Initdb => "initdb failed",
            Self::Start => "server did not start",
            Self::Timeout => "took too long",
            Self::NotRunning => "server is not running",
            Self::Query => "query failed",
            Self::Process => "process trouble",
        })
    }
}
