//! Versions: the one number that orders everything that happens to a session.

use std::fmt;

/// The version of a session, or of the attribute that this version of the session last wrote.
///
/// Starts at 1 and grows by one with every update that the database accepts. It never repeats and
/// never goes back. So a key that was deleted and set again cannot be mistaken for the one before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version(i64);

impl Version {
    /// The version of a session that was just created.
    pub const FIRST: Version = Version(1);
    /// Lower than any version: represents an attribute that does not exist.
    pub(crate) const ABSENT: Version = Version(0);
    /// Higher than any version: no record is as new as a deletion.
    pub(crate) const DELETED: Version = Version(i64::MAX);

    pub(crate) const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number as the database holds it.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The version that directly follows.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
