//! The library's error: opaque, with a [`kind`](Error::kind) to branch on and a message that says what to do.
//!
//! Messages never contain a session id, a token or an attribute's value. Business outcomes of an update are in
//! [`UpdateError`]; absence is `Option`.

use std::fmt;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, for code that branches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting or connection string is wrong; the message names it.
    Config,
    /// The tables are missing, too old, too new or were changed by hand.
    Schema,
    /// The database role lacks a right that the message names.
    Permission,
    /// PostgreSQL cannot be reached. Nothing was changed.
    Unavailable,
    /// A read took longer than `query_timeout`. Nothing was changed.
    Timeout,
    /// A write was sent and its answer never came: **it may or may not have been committed.** Load the session
    /// again to see which. Or another server than the listener's has ended sessions: end them again.
    OutcomeUnknown,
    /// Other sessions' writes kept getting in the way, more often than the bounded retries allow.
    Contention,
    /// A bounded queue is full: the node is asked for more than the database can take. Nothing was changed.
    Overloaded,
    /// The user has `sessions_per_user_max` live sessions and the policy is to refuse another.
    SessionLimit,
    /// An argument of the call is out of bounds; the message names it.
    InvalidArgument,
    /// An attribute's key or value, or the session as a whole, is over a limit of the configuration.
    LimitExceeded,
    /// A value could not be turned into JSON.
    Encode,
    /// An attribute's JSON does not fit the type asked for.
    Decode,
    /// A text is not a session id or another identifier that this library issued.
    Malformed,
    /// The session was invalidated by [`Session::invalidate`](crate::Session::invalidate) and cannot be written.
    Invalidated,
    /// The manager is shutting down and takes no new work.
    ShuttingDown,
    /// PostgreSQL refused a statement for a reason not listed here; [`source`](std::error::Error::source) has it.
    Database,
}

/// Something went wrong; see [`kind`](Error::kind). `Display` says what and what to do, without any secret.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Source>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    /// The node takes no new work.
    pub(crate) fn shutting_down() -> Self {
        Self::new(
            ErrorKind::ShuttingDown,
            "the session manager is shutting down; send the request to another node",
        )
    }

    pub(crate) fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same, in words of a caller that knows more. The source stays.
    pub(crate) fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// What went wrong, for code that branches.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether nothing was changed and the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Contention | ErrorKind::Overloaded
        )
    }

    /// Whether a write may or may not have been committed: [`ErrorKind::OutcomeUnknown`].
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.kind() == ErrorKind::OutcomeUnknown
    }

    /// The same outcome for another waiter of one combined statement; the cause travels as text.
    pub(crate) fn duplicate(&self) -> Self {
        let copy = Self::new(self.0.kind, self.0.message.clone());
        match &self.0.source {
            Some(source) => copy.with_source(chain(source.as_ref())),
            None => copy,
        }
    }
}

pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            debug.field("source", &format_args!("{}", chain(source.as_ref())));
        }
        debug.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// Why an update did not happen. Unless the kind is [`ErrorKind::OutcomeUnknown`], nothing of it was written.
#[derive(Debug)]
#[non_exhaustive]
pub enum UpdateError {
    /// Another writer changed what the update was checked against. Load the session again, look, and retry; or
    /// use [`SessionManager::modify`](crate::SessionManager::modify), which does so.
    Conflict {
        /// The attributes whose versions differ, sorted; empty when the session's own version was checked.
        keys: Vec<String>,
    },
    /// The session was deleted, revoked or has expired. It stays gone.
    NotFound,
    /// Another request has rotated the session, and this handle has the retired id. The client has to retry with its
    /// new cookie.
    Rotated,
    /// Trouble; see [`Error::kind`].
    Failed(Error),
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { .. } => {
                f.write_str("another request changed the session; load it again and retry")
            }
            Self::NotFound => f.write_str("the session has ended; begin a new one"),
            Self::Rotated => {
                f.write_str("the session was rotated by another request; retry with the new session cookie")
            }
            Self::Failed(_) => f.write_str("the session could not be updated; look at the cause"),
        }
    }
}

impl std::error::Error for UpdateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Conflict { .. } | Self::NotFound | Self::Rotated => None,
        }
    }
}

impl From<Error> for UpdateError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyError, LockError, MessageTooLong, TokenError};

    #[test]
    fn errors_can_be_sent_to_other_threads() {
        fn check<T: std::error::Error + Send + Sync + 'static>() {}
        check::<Error>();
        check::<UpdateError>();
        check::<LockError>();
        check::<KeyError>();
        check::<TokenError>();
        check::<MessageTooLong>();
    }

    #[test]
    fn only_errors_that_changed_nothing_are_retryable() {
        let error = |kind| Error::new(kind, "");
        for kind in [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Contention, ErrorKind::Overloaded]
        {
            assert!(error(kind).is_retryable() && !error(kind).is_outcome_unknown(), "{kind:?}");
        }
        for kind in [ErrorKind::Config, ErrorKind::LimitExceeded, ErrorKind::ShuttingDown] {
            assert!(!error(kind).is_retryable() && !error(kind).is_outcome_unknown(), "{kind:?}");
        }
        let unknown = error(ErrorKind::OutcomeUnknown);
        assert!(!unknown.is_retryable() && unknown.is_outcome_unknown());
    }
}
