//! What a request wants to change: one final state per key, whatever was called in which order.
//!
//! `set` then `remove` is a removal, `remove` then `set` is a set: the last call wins, so an update never carries
//! two orders for one key (the predecessor lost writes that way).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::DbTime;
use crate::error::{Error, ErrorKind};

/// The final state that one key is to have.
#[derive(Clone)]
pub(crate) enum Change {
    Set { text: Box<str>, expires_at: DbTime },
    Remove,
}

/// The changes of one session, by key. A clone shares them until one of the two goes on changing: an update takes along what
/// its handle has.
#[derive(Clone, Default)]
pub(crate) struct Changes(Option<Arc<BTreeMap<Box<str>, Change>>>);

impl Changes {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn set(&mut self, key: &str, text: Box<str>, expires_at: DbTime) {
        self.put(key, Change::Set { text, expires_at });
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.put(key, Change::Remove);
    }

    fn put(&mut self, key: &str, change: Change) {
        Arc::make_mut(self.0.get_or_insert_default()).insert(key.into(), change);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Change> {
        self.0.as_ref()?.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Change)> + Clone {
        self.0.iter().flat_map(|changes| &**changes).map(|(key, change)| (&**key, change))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |changes| changes.len())
    }

    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}

impl std::fmt::Debug for Changes {
    /// Keys only: values are the application's secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(|(key, _)| key)).finish()
    }
}

/// What an update is checked against before anything of it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Check {
    /// Nothing: the changes are applied to whatever the database holds.
    #[default]
    None,
    /// The session still has the version that the caller saw.
    Version,
    /// Each changed attribute still has the version that the caller saw, or is still absent.
    Attributes,
}

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

/// What a session may hold. Checked where a value is set and again on the whole session before it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) key_bytes_max: usize,
    pub(crate) value_bytes_max: usize,
    pub(crate) attributes_max: usize,
    pub(crate) session_bytes_max: usize,
}

impl Limits {
    pub(crate) fn check_key(&self, key: &str) -> Result<(), Error> {
        let trouble = if key.is_empty() {
            "an attribute's key must not be empty".to_owned()
        } else if key.contains('\0') {
            "an attribute's key must not contain a NUL byte, which PostgreSQL's text cannot hold".to_owned()
        } else if key.len() > self.key_bytes_max {
            format!(
                "an attribute's key of {} bytes is over attribute_key_bytes_max = {}; shorten the key",
                key.len(),
                self.key_bytes_max
            )
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Attribute, trouble))
    }

    pub(crate) fn check_value(&self, key: &str, text: &str) -> Result<(), Error> {
        if text.len() > self.value_bytes_max {
            return Err(Error::new(
                ErrorKind::Attribute,
                format!(
                    "attribute {key:?} takes {} bytes of JSON, over attribute_value_bytes_max = {}; keep large values \
                     elsewhere and store a reference",
                    text.len(),
                    self.value_bytes_max
                ),
            ));
        }
        Ok(())
    }

    /// Whether a session may hold so many attributes with so many bytes in keys and texts.
    pub(crate) fn admit(&self, count: usize, bytes: usize) -> bool {
        count <= self.attributes_max && bytes <= self.session_bytes_max
    }

    /// Checks what the session would hold, given each attribute's key and text.
    pub(crate) fn check_total<'a>(
        &self,
        attributes: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), Error> {
        let (mut count, mut bytes) = (0, 0);
        for (key, text) in attributes {
            count += 1;
            bytes += key.len() + text.len();
        }
        if count > self.attributes_max {
            return Err(Error::new(
                ErrorKind::Attribute,
                format!(
                    "the session would hold {count} attributes, over attributes_max = {}; remove some or group them in one",
                    self.attributes_max
                ),
            ));
        }
        if bytes > self.session_bytes_max {
            return Err(Error::new(
                ErrorKind::Attribute,
                format!(
                    "the session's attributes would take {bytes} bytes, over session_bytes_max = {}; remove some",
                    self.session_bytes_max
                ),
            ));
        }
        Ok(())
    }
}

/// When an attribute that is being set expires.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lifetime {
    Session,
    Until(DbTime),
    For(Duration),
}

impl Lifetime {
    /// The instant on the database's clock, given what that clock shows at the latest. As PostgreSQL keeps it: the node
    /// that sets an attribute shows the same end as those that read it, and shows it no longer.
    pub(crate) fn resolve(self, now: DbTime) -> DbTime {
        match self {
            Self::Session => DbTime::NEVER,
            Self::Until(time) => time.as_stored(),
            Self::For(duration) => now.plus(duration).as_stored(),
        }
    }
}
