//! Which attributes a rotation keeps.

use std::collections::BTreeSet;

/// Which attributes a session keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    All,
    Only(BTreeSet<Box<str>>),
}

impl Keep {
    pub(crate) fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.contains(key),
        }
    }

    /// The keys that are named, if not all are kept.
    pub(crate) fn named(&self) -> impl Iterator<Item = &str> {
        let keys = match self {
            Self::All => None,
            Self::Only(keys) => Some(keys),
        };
        keys.into_iter().flatten().map(|key| &**key)
    }
}
