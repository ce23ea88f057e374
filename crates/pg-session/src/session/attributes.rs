//! The attributes of a session: immutable, sorted by key, shared by every reader on the node.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;

use super::changes::{Change, Changes};
use crate::clock::DbTime;
use crate::error::{Error, ErrorKind};
use crate::version::Version;

/// One attribute as the database holds it, with the decoded value beside its text once somebody asked for it.
pub(crate) struct Attribute {
    pub(crate) key: Box<str>,
    /// JSON, exactly as stored.
    pub(crate) text: Box<str>,
    pub(crate) version: Version,
    pub(crate) expires_at: DbTime,
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Attribute {
    pub(crate) fn new(key: Box<str>, text: Box<str>, version: Version, expires_at: DbTime) -> Self {
        Self { key, text, version, expires_at, decoded: OnceLock::new() }
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
    pub(crate) fn new(mut attributes: Vec<Arc<Attribute>>) -> Self {
        attributes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        debug_assert!(attributes.windows(2).all(|pair| pair[0].key < pair[1].key), "a key stands twice");
        Self(attributes.into_boxed_slice())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Attribute>> {
        let at = self.0.binary_search_by(|attribute| (*attribute.key).cmp(key)).ok()?;
        Some(&self.0[at])
    }

    /// The version that a checked update expects `key` to have in the database.
    pub(crate) fn version_of(&self, key: &str) -> Version {
        self.get(key).map_or(Version::ABSENT, |attribute| attribute.version)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Attribute>> {
        self.0.iter()
    }

    /// What the database holds once `changes` were written as `version` on top of these.
    pub(crate) fn apply(&self, changes: &Changes, version: Version) -> Self {
        let kept = self.0.iter().filter(|attribute| changes.get(&attribute.key).is_none()).map(Arc::clone);
        let set = changes.iter().filter_map(|(key, change)| match change {
            Change::Set { text, expires_at } => {
                Some(Arc::new(Attribute::new(key.into(), text.clone(), version, *expires_at)))
            }
            Change::Remove => None,
        });
        Self::new(kept.chain(set).collect())
    }
}
