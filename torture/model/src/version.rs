//! Versions as `pg_session::Version` has them; the session's end is the highest.

use std::fmt;

/// A version of the one session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u8);

impl Version {
    /// Lower than any version.
    pub const ABSENT: Self = Self(0);
    /// The version of a session that was just created.
    pub const FIRST: Self = Self(1);
    /// Higher than any version.
    pub const DELETED: Self = Self(u8::MAX);

    /// The version that directly follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Whether this is a session that can be read.
    #[must_use]
    pub fn is_live(self) -> bool {
        self != Self::ABSENT && self != Self::DELETED
    }

    /// How many updates came before.
    #[must_use]
    pub fn updates(self) -> u8 {
        self.0 - 1
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ABSENT => f.write_str("none"),
            Self::DELETED => f.write_str("gone"),
            Self(number) => write!(f, "v{number}"),
        }
    }
}
