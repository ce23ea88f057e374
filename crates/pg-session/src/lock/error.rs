//! Why a lock was not taken, or not released while it was held.

use std::fmt;
use std::time::SystemTime;

use crate::error::{Error, ErrorKind};
use crate::postgres::failure::{Failure, Verdict};

/// Why a lock was not taken, extended or released.
#[derive(Debug)]
#[non_exhaustive]
pub enum LockError {
    /// Another holder has it, and had it until the end of the wait.
    Held {
        /// When it becomes free by itself, on the database's clock, unless its holder renews or releases it before.
        until: SystemTime,
    },
    /// The session that the lock belongs to is unknown, was deleted, has expired, or was rotated.
    SessionGone,
    /// The lease is not in the database any more: the lock was taken by force, or its session ended. **Another holder
    /// may hold it.**
    NotHeld,
    /// The lease had ended before. **Another holder may have held the lock since.**
    Expired,
    /// Trouble; see [`Error::kind`]. With [`ErrorKind::OutcomeUnknown`] the request was sent and
    /// its answer never came. A lock that may have been taken is given back in the background. At
    /// the latest it ends with its lease.
    Failed(Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held { .. } => "another holder has the lock; wait longer or try again later",
            Self::SessionGone => {
                "the session that the lock belongs to has ended; stop the work that it protects"
            }
            Self::NotHeld => "the lock is not held any more; treat what it protected as changed by others",
            Self::Expired => {
                "the lock's lease had ended before; treat what it protected as changed by others"
            }
            Self::Failed(_) => "the lock could not be taken, extended or released; look at the cause",
        })
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Held { .. } | Self::SessionGone | Self::NotHeld | Self::Expired => None,
        }
    }
}

impl From<Error> for LockError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A failed acquisition, extension or release. An unknown outcome is said to be one.
pub(super) fn failed(failure: Failure) -> LockError {
    if failure.verdict != Verdict::Unknown {
        return LockError::Failed(failure.into_write_error());
    }
    let error = Error::new(
        ErrorKind::OutcomeUnknown,
        "the request for the lock was sent and its answer never came, so it may or may not have been carried out; what \
         has no guard ends with its lease at the latest",
    );
    LockError::Failed(error.with_source(failure.error))
}
