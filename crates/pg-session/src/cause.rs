//! Why a client ended sessions through the SQL contract.

use std::fmt;

/// Why sessions are ended. Each node logs it at level `debug`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The user logged out.
    Logout,
    /// The user logged out everywhere.
    Everywhere,
    /// An administrator ended them.
    Admin,
    /// The password or another credential changed.
    Credential,
    /// A provider of identities asked for it.
    Backchannel,
    /// An SQL statement that named no other cause.
    Sql,
    /// None of these.
    Unknown,
}

impl Cause {
    const ALL: [Self; 7] = [
        Self::Logout,
        Self::Everywhere,
        Self::Admin,
        Self::Credential,
        Self::Backchannel,
        Self::Sql,
        Self::Unknown,
    ];

    /// As the SQL functions take it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Everywhere => "everywhere",
            Self::Admin => "admin",
            Self::Credential => "credential",
            Self::Backchannel => "backchannel",
            Self::Sql => "sql",
            Self::Unknown => "unknown",
        }
    }

    /// As a notification has it: the first letter of the name. A letter of a newer node is unknown.
    pub(crate) fn from_letter(letter: char) -> Self {
        Self::ALL.into_iter().find(|cause| cause.name().starts_with(letter)).unwrap_or(Self::Unknown)
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
            assert_eq!(cause.name().chars().next().map(Cause::from_letter), Some(cause));
        }
        assert_eq!(Cause::from_letter('x'), Cause::Unknown);
    }
}
