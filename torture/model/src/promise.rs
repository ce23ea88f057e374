//! The promises that an answer may break.

use crate::cache::Record;
use crate::database::Database;
use crate::version::Version;

/// What a read has to see at least.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Floor {
    version: Version,
    /// Whether its node has answered with it before, or else it was acknowledged anywhere before the trust window.
    answered: bool,
}

/// A promise that was not kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Broken {
    /// I2: a node that has shown or acknowledged a version has answered with a lower one.
    Backwards,
    /// I3: a change that was acknowledged before the trust window was not seen.
    Late,
    /// I4: a session was seen after its end was acknowledged, or was due.
    Revived,
    /// I6: a row with the attributes of another version.
    Torn,
    /// Something was seen that was never committed.
    Uncommitted,
    /// A read that began after its node had handled a loss was answered from memory before a barrier of the new connection
    /// was back.
    FromMemory,
}

impl Floor {
    pub(crate) fn new(answered: Version, due: Version) -> Self {
        Self { version: answered, answered: true }.raise(due)
    }

    pub(crate) fn raise(self, due: Version) -> Self {
        if due > self.version { Self { version: due, answered: false } } else { self }
    }

    pub(crate) fn judge(self, answer: Option<Record>, database: &Database) -> Option<Broken> {
        let Some(record) = answer else {
            return (database.row != Version::DELETED).then_some(Broken::Uncommitted);
        };
        if record.version < self.version {
            Some(match self {
                Self { version: Version::DELETED, .. } => Broken::Revived,
                Self { answered: true, .. } => Broken::Backwards,
                Self { answered: false, .. } => Broken::Late,
            })
        } else if !record.whole {
            Some(Broken::Torn)
        } else if record.version > database.committed {
            Some(Broken::Uncommitted)
        } else {
            None
        }
    }
}
