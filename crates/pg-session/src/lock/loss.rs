//! Why a lease ended before its holder released it.

use std::fmt;

/// Why a lease ended before its holder released it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Loss {
    /// It could not be renewed in time: the database did not answer, or this process was stopped.
    Expired,
    /// The database does not know it any more: the lock was taken by force, or its session ended.
    Gone,
    /// The manager is shutting down and renews no more. **The lock stays taken until the guard is dropped or the lease
    /// ends.** There is a little time to finish.
    Shutdown,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the lease could not be renewed in time",
            Self::Gone => "the lock was taken away, or its session ended",
            Self::Shutdown => "the session manager is shutting down",
        })
    }
}
