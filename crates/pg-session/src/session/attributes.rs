//! The attributes of a session: immutable, sorted by key, shared by every reader on the node.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;

use super::changes::{Change, Changes, Keep};
use super::packed::{self, Room};
use crate::clock::DbTime;
use crate::error::{Error, ErrorKind};
use crate::version::Version;

/// Where the database keeps an attribute.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    /// In the session's row.
    Packed,
    /// In a row of its own.
    Apart,
}

/// One attribute as the database holds it, with the decoded value beside its text once somebody asked for it.
pub(crate) struct Attribute {
    pub(crate) key: Box<str>,
    /// JSON, exactly as stored.
    pub(crate) text: Box<str>,
    pub(crate) version: Version,
    pub(crate) expires_at: DbTime,
    pub(crate) place: Place,
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Attribute {
    pub(crate) fn new(
        key: Box<str>,
        text: Box<str>,
        version: Version,
        expires_at: DbTime,
        place: Place,
    ) -> Self {
        Self { key, text, version, expires_at, place, decoded: OnceLock::new() }
    }

    pub(crate) fn is_live(&self, now: DbTime) -> bool {
        now < self.expires_at
    }

    /// The value, decoded once per node for the first type that is asked for; another type decodes each time.
    pub(crate) fn shared<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<T>, Error> {
        if let Some(known) = self.decoded.get()
            && let Ok(value) = Arc::clone(known).downcast()
        {
            return Ok(value);
        }
        let value = Arc::new(decode::<T>(&self.key, &self.text)?);
        // Two first readers may both decode; one of the two equal values stays.
        let _ = self.decoded.set(Arc::clone(&value) as Arc<dyn Any + Send + Sync>);
        Ok(value)
    }
}

/// Keys are the application's own words and may stand in a message; values may not, so serde_json's text, which
/// quotes them, is reduced to what kind of fault it is and where.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(
            ErrorKind::Decode,
            format!(
                "attribute {key:?} does not decode as {} ({:?} fault at column {}); read it as the type it was written with",
                std::any::type_name::<T>(),
                error.classify(),
                error.column(),
            ),
        )
    })
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attribute")
            .field("key", &self.key)
            .field("bytes", &self.text.len())
            .field("version", &self.version)
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

/// All attributes of one version of a session, sorted by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes(Box<[Arc<Attribute>]>);

impl Attributes {
    /// Of a key that stands in the session's row and has a row of its own, too, the latter was left behind when it had
    /// expired, and counts no more.
    pub(crate) fn new(mut attributes: Vec<Arc<Attribute>>) -> Self {
        attributes.sort_unstable_by(|a, b| a.key.cmp(&b.key).then_with(|| a.place.cmp(&b.place)));
        attributes.dedup_by(|later, earlier| later.key == earlier.key);
        Self(attributes.into_boxed_slice())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Attribute>> {
        let at = self.0.binary_search_by(|attribute| (*attribute.key).cmp(key)).ok()?;
        Some(&self.0[at])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Attribute>> {
        self.0.iter()
    }

    /// What the database holds once `changes` were written as `version` on top of these.
    pub(crate) fn apply(&self, changes: &Changes, version: Version) -> Self {
        let kept = self.0.iter().filter(|attribute| changes.get(&attribute.key).is_none());
        let mut room = Room::beside(kept.clone().map(|attribute| &**attribute));
        let set = changes.iter().filter_map(|(key, change)| match change {
            Change::Set { text, expires_at } => {
                let place = room.place(key, text, *expires_at);
                Some(Arc::new(Attribute::new(key.into(), text.clone(), version, *expires_at, place)))
            }
            Change::Remove => None,
        });
        Self::new(kept.map(Arc::clone).chain(set).collect())
    }

    /// Those that are kept and alive, all as if `version` had written them.
    pub(crate) fn carry(&self, keep: &Keep, version: Version, now: DbTime) -> Self {
        let kept = self.0.iter().filter(|attribute| keep.contains(&attribute.key) && attribute.is_live(now));
        let carried = kept.map(|attribute| {
            let Attribute { key, text, expires_at, place, .. } = &**attribute;
            Arc::new(Attribute::new(key.clone(), text.clone(), version, *expires_at, *place))
        });
        Self(carried.collect())
    }

    /// The keys of `changes` whose attributes are not those that `seen` has, sorted. One that has expired is absent: so it
    /// was, or would have been by now.
    pub(crate) fn differing(&self, seen: &Self, changes: &Changes, now: DbTime) -> Vec<String> {
        let version = |attributes: &Self, key: &str| {
            let live = attributes.get(key).filter(|attribute| attribute.is_live(now));
            live.map(|attribute| attribute.version)
        };
        let keys = changes.iter().map(|(key, _)| key);
        keys.filter(|key| version(self, key) != version(seen, key)).map(str::to_owned).collect()
    }
}

/// What makes the tables of a session that has the attributes `before` hold those of `after`, its next version.
#[derive(Debug)]
pub(crate) struct Writes<'a> {
    /// The attributes of the session's row, if they change.
    pub(crate) packed: Option<String>,
    /// Attributes whose own rows are written.
    pub(crate) set: Vec<&'a Attribute>,
    /// Keys whose own rows are deleted.
    pub(crate) removed: Vec<&'a str>,
}

impl<'a> Writes<'a> {
    /// `version` is the one that `after` belongs to: what it wrote is what changes.
    pub(crate) fn new(before: &'a Attributes, after: &'a Attributes, version: Version) -> Self {
        let place = |of: &Attributes, key: &str| of.get(key).map(|attribute| attribute.place);
        let written = || after.0.iter().map(|attribute| &**attribute).filter(|new| new.version == version);
        let left = |from: Place| {
            let old = before.0.iter().filter(move |old| old.place == from);
            old.filter(move |old| place(after, &old.key) != Some(from)).map(|old| &*old.key)
        };
        let repacked =
            written().any(|new| new.place == Place::Packed) || left(Place::Packed).next().is_some();
        Self {
            packed: repacked.then(|| packed::encode(after.0.iter().map(|attribute| &**attribute))),
            set: written().filter(|new| new.place == Place::Apart).collect(),
            removed: left(Place::Apart).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::session::packed::VALUE_BYTES_MAX;

    const KEYS: [&str; 5] = ["a", "b", "c", "d", "\"e\""];

    /// For each key: nothing, a removal, or a value of this many bytes that may expire.
    type Step = [Option<Option<(usize, bool)>>; KEYS.len()];

    fn step() -> impl Strategy<Value = Step> {
        let bytes = prop_oneof![Just(1), Just(400), Just(VALUE_BYTES_MAX), Just(VALUE_BYTES_MAX + 1)];
        let set = (bytes, proptest::bool::weighted(0.2));
        proptest::array::uniform5(proptest::option::of(proptest::option::weighted(0.7, set)))
    }

    fn changes(step: Step) -> Changes {
        let mut changes = Changes::none();
        for (key, change) in KEYS.into_iter().zip(step) {
            match change {
                Some(Some((bytes, expires))) => {
                    let expires_at = if expires { DbTime::from_nanos(i64::MAX - 1) } else { DbTime::NEVER };
                    changes.set(key, "1".repeat(bytes).into(), expires_at);
                }
                Some(None) => changes.remove(key),
                None => {}
            }
        }
        changes
    }

    /// Both tables, as far as they hold one session.
    #[derive(Default)]
    struct Tables {
        packed: String,
        rows: BTreeMap<String, (String, DbTime, Version)>,
    }

    impl Tables {
        fn write(&mut self, writes: &Writes<'_>, version: Version) {
            let Writes { packed, set, removed } = writes;
            if let Some(packed) = packed {
                self.packed.clone_from(packed);
            }
            for attribute in set {
                assert!(!removed.contains(&&*attribute.key), "written and deleted by one statement");
                let row = (attribute.text.to_string(), attribute.expires_at, version);
                self.rows.insert(attribute.key.to_string(), row);
            }
            for key in removed {
                assert!(self.rows.remove(*key).is_some(), "what is deleted was there");
            }
        }

        /// What a load reads.
        fn attributes(&self) -> Vec<Arc<Attribute>> {
            let rows = self.rows.iter().map(|(key, (text, expires_at, version))| {
                Attribute::new(key.as_str().into(), text.as_str().into(), *version, *expires_at, Place::Apart)
            });
            packed::decode(&self.packed).unwrap().into_iter().chain(rows).map(Arc::new).collect()
        }
    }

    fn pairs(attributes: &Attributes) -> Vec<(&str, &str, Version, DbTime, Place)> {
        attributes.iter().map(|a| (&*a.key, &*a.text, a.version, a.expires_at, a.place)).collect()
    }

    proptest! {
        /// Wherever they move, the tables hold what the node goes on with, each attribute once, and nothing is written
        /// that does not change.
        #[test]
        fn what_is_written_makes_the_tables_hold_what_the_node_has(steps in proptest::collection::vec(step(), 1..12)) {
            let mut tables = Tables { packed: "{}".to_owned(), ..Tables::default() };
            let (mut before, mut version) = (Attributes::default(), Version::new(1));
            for step in steps {
                version = version.next();
                let changes = changes(step);
                let after = before.apply(&changes, version);
                let packed = tables.packed.clone();
                let writes = Writes::new(&before, &after, version);
                prop_assert!(writes.set.iter().all(|attribute| changes.get(&attribute.key).is_some()));
                prop_assert!(writes.removed.iter().all(|key| changes.get(key).is_some()));
                let same = writes.packed.is_none();
                tables.write(&writes, version);
                let held = tables.attributes();
                prop_assert_eq!(held.len(), after.iter().count(), "each attribute stands in one place");
                let held = Attributes::new(held);
                prop_assert_eq!(pairs(&held), pairs(&after));
                prop_assert_eq!(same, packed == tables.packed, "the row's text is written if it changes");
                before = after;
            }
        }
    }

    #[test]
    fn a_row_that_was_left_behind_counts_less_than_the_sessions_own() {
        let attribute = |text: &str, version, place| {
            Arc::new(Attribute::new("key".into(), text.into(), Version::new(version), DbTime::NEVER, place))
        };
        let (packed, left) = (attribute("1", 2, Place::Packed), attribute("2", 1, Place::Apart));
        for both in [vec![Arc::clone(&packed), Arc::clone(&left)], vec![left, packed]] {
            assert_eq!(
                pairs(&Attributes::new(both)),
                [("key", "1", Version::new(2), DbTime::NEVER, Place::Packed)]
            );
        }
    }
}
