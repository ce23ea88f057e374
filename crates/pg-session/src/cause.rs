//! Why sessions end.

use std::fmt;

/// Why a session has ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The user logged out.
    Logout,
    /// The user logged out everywhere.
    Everywhere,
    /// An administrator ended it.
    Admin,
    /// A login of the user needed its place; see [`sessions_per_user_max`](crate::Config::sessions_per_user_max).
    Cap,
    /// It goes on under a new id.
    Rotated,
    /// It reached its absolute limit.
    Expired,
    /// It was not used for [`idle_timeout`](crate::Config::idle_timeout).
    Idle,
    /// The password or another credential changed.
    Credential,
    /// A provider of identities asked for it.
    Backchannel,
    /// An SQL statement that named no other cause.
    Sql,
    /// None of these, or no node knows.
    Unknown,
}

impl Cause {
    const ALL: [Self; 11] = [
        Self::Logout,
        Self::Everywhere,
        Self::Admin,
        Self::Cap,
        Self::Rotated,
        Self::Expired,
        Self::Idle,
        Self::Credential,
        Self::Backchannel,
        Self::Sql,
        Self::Unknown,
    ];

    /// As the SQL functions take it. They refuse `cap`, `rotated`, `expired` and `idle`, which only the library knows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Everywhere => "everywhere",
            Self::Admin => "admin",
            Self::Cap => "cap",
            Self::Rotated => "rotated",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::Credential => "credential",
            Self::Backchannel => "backchannel",
            Self::Sql => "sql",
            Self::Unknown => "unknown",
        }
    }

    /// As a notification has it.
    pub(crate) const fn letter(self) -> char {
        match self {
            Self::Logout => 'l',
            Self::Everywhere => 'e',
            Self::Admin => 'a',
            Self::Cap => 'p',
            Self::Rotated => 'r',
            Self::Expired => 'x',
            Self::Idle => 'i',
            Self::Credential => 'c',
            Self::Backchannel => 'b',
            Self::Sql => 's',
            Self::Unknown => 'u',
        }
    }

    /// A letter of a newer node is unknown.
    pub(crate) fn from_letter(letter: char) -> Self {
        Self::ALL.into_iter().find(|cause| cause.letter() == letter).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_letter_of_its_own() {
        for cause in Cause::ALL {
            assert_eq!(Cause::from_letter(cause.letter()), cause);
        }
        assert_eq!(Cause::from_letter('z'), Cause::Unknown);
    }
}
