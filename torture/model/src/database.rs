//! PostgreSQL as the protocol sees it: one row, commits in an order, and what was acknowledged when.

use arrayvec::ArrayVec;

use crate::version::Version;

/// The longest window that a model may have, in ticks.
pub const WINDOW_MAX: usize = 2;

/// The session's row, and what was acknowledged of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Database {
    /// What a query sees.
    pub row: Version,
    /// The highest version that was ever committed.
    pub committed: Version,
    /// Whether the session has ended by itself.
    pub expired: bool,
    /// The highest version that was acknowledged, by how many ticks ago: `[0]` since the last tick, the last one as long
    /// ago as the trust window or longer.
    acknowledged: ArrayVec<Version, { WINDOW_MAX + 1 }>,
}

impl Database {
    pub(crate) fn new(window: u8) -> Self {
        let acknowledged = (0..=window).map(|_| Version::ABSENT).collect();
        Self { row: Version::FIRST, committed: Version::FIRST, expired: false, acknowledged }
    }

    /// Commits the next version and returns it.
    pub(crate) fn update(&mut self) -> Version {
        self.row = self.row.next();
        self.committed = self.row;
        self.row
    }

    pub(crate) fn delete(&mut self) {
        self.row = Version::DELETED;
    }

    /// The session's end has come: no statement finds it any more.
    pub(crate) fn expire(&mut self) {
        self.row = Version::DELETED;
        self.expired = true;
    }

    /// A client, on any node, learns that `version` was committed.
    pub(crate) fn acknowledge(&mut self, version: Version) {
        self.acknowledged[0] = version.max(self.acknowledged[0]);
    }

    /// What was acknowledged a trust window ago, or earlier: every read must see it. An end that was known beforehand
    /// has no window.
    #[must_use]
    pub fn due(&self) -> Version {
        if self.expired {
            return Version::DELETED;
        }
        self.acknowledged.last().copied().unwrap_or(Version::ABSENT)
    }

    pub(crate) fn tick(&mut self) {
        for ago in (1..self.acknowledged.len()).rev() {
            self.acknowledged[ago] = self.acknowledged[ago].max(self.acknowledged[ago - 1]);
        }
    }
}
