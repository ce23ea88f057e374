//! The one error of the crate: opaque, with a [`kind`](Error::kind) to branch on.
//!
//! Messages say what to do, never hold a payload or a password, and do not repeat their `source()`.

use std::borrow::Cow;
use std::error::Error as StdError;

use crate::error_kind::ErrorKind;
use crate::{pooler_check, refusal};

/// What went wrong. Branch on [`kind`](Error::kind); `Display` is for people, `source()` for the cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// The sort of error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the listener is shut down; start a new one")
    }

    pub(crate) fn not_connected() -> Self {
        Self::new(
            ErrorKind::Connection,
            "the listener is not connected now; wait for it (`wait_connected`) and try again",
        )
    }

    pub(crate) fn connection_lost() -> Self {
        Self::new(
            ErrorKind::Connection,
            "the listening connection was lost before the answer came; the outcome is unknown",
        )
    }

    pub(crate) fn pooler() -> Self {
        Self::new(
            ErrorKind::Pooler,
            "a connection pooler answers in postgres' place and would lose notifications; connect the listener to postgres \
             itself",
        )
    }

    pub(crate) fn provider(message: &'static str, cause: Option<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: ErrorKind::Provider, message: message.into(), source: cause }
    }

    fn caused_by(self, error: tokio_postgres::Error) -> Self {
        self.with_source(error)
    }

    pub(crate) fn with_source(mut self, error: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(error));
        self
    }

    pub(crate) fn with_message(mut self, message: String) -> Self {
        self.message = message.into();
        self
    }

    /// A refusal of settings that a provider returned: the next ones may work.
    pub(crate) fn may_pass(mut self) -> Self {
        if self.kind == ErrorKind::Refused {
            self.kind = ErrorKind::Connection;
            self.message = format!(
                "the settings that the provider returned do not work, it is asked again; {}",
                self.message
            )
            .into();
        }
        self
    }

    /// How much the error of one host says about what to do: a server's answer more than silence.
    pub(crate) fn weight(&self) -> u8 {
        let driver = self.source.as_ref().and_then(|source| source.downcast_ref::<tokio_postgres::Error>());
        match (self.kind, driver) {
            (ErrorKind::Pooler | ErrorKind::Refused, _) => 3,
            (_, Some(driver)) if driver.as_db_error().is_some() => 2,
            (_, Some(_)) => 1,
            _ => 0,
        }
    }

    /// From the driver's error: the kind says what refused: the server, or the way to it.
    pub(crate) fn driver(error: tokio_postgres::Error) -> Self {
        let (kind, message) = match error.as_db_error() {
            Some(answer) if pooler_check::names_a_pooler(answer) => return Self::pooler().caused_by(error),
            Some(_) => (ErrorKind::Database, "postgres refused the statement"),
            None => (ErrorKind::Connection, "the connection to postgres failed; the outcome is unknown"),
        };
        Self { kind, message: message.into(), source: Some(Box::new(error)) }
    }

    /// From the driver's error while connecting.
    pub(crate) fn connecting(error: tokio_postgres::Error) -> Self {
        let (kind, message) = match refusal::kind(&error) {
            ErrorKind::Pooler => return Self::pooler().caused_by(error),
            ErrorKind::Refused => (
                ErrorKind::Refused,
                "postgres refused the connection; correct the role, password, database, options or TLS settings",
            ),
            ErrorKind::Unreachable if refusal::is_read_only(&error) => (
                ErrorKind::Unreachable,
                "the server accepts no writes: it is a standby, or default_transaction_read_only is on; give the address of \
                 the primary",
            ),
            ErrorKind::Unreachable => {
                (ErrorKind::Unreachable, "no postgres answers at the address; check host and port")
            }
            ErrorKind::Proxy => {
                (ErrorKind::Proxy, "a proxy or pooler answers at the address, and not postgres itself")
            }
            kind => (kind, "the connection to postgres could not be made"),
        };
        Self::new(kind, message).caused_by(error)
    }
}

/// An error and its causes on one line, for a log field.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_every_cause_once() {
        let inner = Error::closed();
        let outer =
            Error { kind: ErrorKind::Connection, message: "outer".into(), source: Some(Box::new(inner)) };
        assert_eq!(chain(&outer), "outer: the listener is shut down; start a new one");
    }
}
