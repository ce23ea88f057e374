//! One attribute: where it is, its JSON exactly as stored, and the value that was decoded from that.

use std::any::{Any, type_name};
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::decoded::Decoded;
use super::inline::Entry;
use super::placement::Placement;
use crate::clock::DbTime;
use crate::error::{Error, ErrorKind};
use crate::version::Version;

/// An attribute that has a row of its own. It may be large: the versions of a session share it.
pub(crate) struct OverflowAttribute {
    pub(crate) key: Box<str>,
    pub(crate) text: Box<str>,
    pub(crate) version: Version,
    pub(crate) expires_at: DbTime,
    decoded: Decoded,
}

impl OverflowAttribute {
    pub(crate) fn new(key: &str, text: &str, version: Version, expires_at: DbTime) -> Self {
        Self { key: key.into(), text: text.into(), version, expires_at, decoded: Decoded::new() }
    }

    /// Of key and text.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.text.len()
    }
}

/// An attribute of a session in memory, wherever it is.
#[derive(Clone, Copy)]
pub(crate) enum Attribute<'a> {
    Inline(Entry<'a>),
    Overflow(&'a OverflowAttribute),
}

impl<'a> Attribute<'a> {
    pub(crate) fn key(self) -> &'a str {
        match self {
            Self::Inline(entry) => entry.key(),
            Self::Overflow(overflow) => &overflow.key,
        }
    }

    /// JSON, exactly as stored.
    pub(crate) fn text(self) -> &'a str {
        match self {
            Self::Inline(entry) => entry.text(),
            Self::Overflow(overflow) => &overflow.text,
        }
    }

    /// The session's version that wrote it.
    pub(crate) fn version(self) -> Version {
        match self {
            Self::Inline(entry) => entry.version(),
            Self::Overflow(overflow) => overflow.version,
        }
    }

    pub(crate) fn expires_at(self) -> DbTime {
        match self {
            Self::Inline(entry) => entry.expires_at(),
            Self::Overflow(overflow) => overflow.expires_at,
        }
    }

    pub(crate) fn place(self) -> Placement {
        match self {
            Self::Inline(_) => Placement::Inline,
            Self::Overflow(_) => Placement::Overflow,
        }
    }

    pub(crate) fn is_live(self, now: DbTime) -> bool {
        now < self.expires_at()
    }

    /// The value, decoded once per node for the first type that is asked for; another type decodes each time.
    #[inline]
    pub(crate) fn shared<T: DeserializeOwned + Send + Sync + 'static>(self) -> Result<Arc<T>, Error> {
        let decoded = match self {
            Self::Inline(entry) => entry.decoded(),
            Self::Overflow(overflow) => &overflow.decoded,
        };
        if let Some(known) = decoded.get()
            && let Ok(value) = Arc::clone(known).downcast()
        {
            return Ok(value);
        }
        let value = Arc::new(decode::<T>(self.key(), self.text())?);
        // Two first readers may both decode; one of the two equal values stays.
        let _ = decoded.set(Arc::clone(&value) as Arc<dyn Any + Send + Sync>);
        Ok(value)
    }
}

/// Keys are the application's own words and may be in a message. Values may not. serde_json's text
/// quotes them, so it is reduced to the kind of fault and its place.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(
            ErrorKind::Decode,
            format!(
                "attribute {key:?} does not decode as {} ({:?} fault at column {}); read it as the type it was written with",
                type_name::<T>(),
                error.classify(),
                error.column(),
            ),
        )
    })
}

impl fmt::Debug for Attribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attribute")
            .field("key", &self.key())
            .field("bytes", &self.text().len())
            .field("version", &self.version())
            .field("expires_at", &self.expires_at())
            .field("place", &self.place())
            .finish()
    }
}
