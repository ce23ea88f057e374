//! The attributes that a session keeps in its own row, as one text: `{"role":["admin",3],"seen":[41,7]}`, each with its
//! version.
//!
//! A change of one of them is one row of PostgreSQL's to change, not two: half of the server's work for an update, a
//! fifth for a create. It is paid for by writing the others again, so there is a bound: what is large, or would make the
//! row large, has a row of its own, and so has what expires by itself, for the clean-up to find.

use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::attributes::{Attribute, Place};
use crate::clock::DbTime;
use crate::version::Version;

/// Bytes of one value in the session's row.
pub(crate) const VALUE_BYTES_MAX: usize = 512;
/// Bytes of the text. With the row's other columns it stays below the 2 000 bytes at which PostgreSQL begins to compress
/// columns and to move them out of line (documentation of TOAST), and several versions of the row share a page.
pub(crate) const BYTES_MAX: usize = 1_536;
/// What an attribute takes beside key and value: four quotes and brackets, a colon, two commas, and a version.
const FRAME_BYTES_MAX: usize = 7 + 19;

/// The room that is left in a session's row.
pub(crate) struct Room(usize);

impl Room {
    /// What is left beside these attributes, as far as they are packed.
    pub(crate) fn beside<'a>(attributes: impl Iterator<Item = &'a Attribute>) -> Self {
        let packed = attributes.filter(|attribute| attribute.place == Place::Packed);
        let taken: usize = packed.map(|attribute| bytes_max(&attribute.key, &attribute.text)).sum();
        // For the braces.
        Self(BYTES_MAX.saturating_sub(2 + taken))
    }

    /// Where the attribute goes. If it fits, its room is taken.
    pub(crate) fn place(&mut self, key: &str, text: &str, expires_at: DbTime) -> Place {
        let bytes = bytes_max(key, text);
        let fits = expires_at == DbTime::NEVER && text.len() <= VALUE_BYTES_MAX && bytes <= self.0;
        // So that a key stands in the text as it is, and is borrowed from it.
        let plain = !key.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\');
        if fits && plain {
            self.0 -= bytes;
            Place::Packed
        } else {
            Place::Apart
        }
    }
}

fn bytes_max(key: &str, text: &str) -> usize {
    key.len() + text.len() + FRAME_BYTES_MAX
}

/// The text of those attributes that are packed.
pub(crate) fn encode<'a>(attributes: impl Iterator<Item = &'a Attribute>) -> String {
    let mut packed = String::with_capacity(128);
    for attribute in attributes.filter(|attribute| attribute.place == Place::Packed) {
        packed.push(if packed.is_empty() { '{' } else { ',' });
        packed.push('"');
        packed.push_str(&attribute.key);
        packed.push_str("\":[");
        packed.push_str(&attribute.text);
        packed.push(',');
        // Writing to a String does not fail.
        let _ = write!(packed, "{}]", attribute.version);
    }
    packed.push_str(if packed.is_empty() { "{}" } else { "}" });
    debug_assert!(packed.len() <= BYTES_MAX, "the row's attributes have a bound");
    packed
}

/// How an attribute begins in the text, if it is packed at all.
pub(crate) fn opening(key: &str) -> String {
    format!("\"{key}\":[")
}

/// The text without one of its attributes; `None` if it has no such attribute.
pub(crate) fn without(packed: &str, key: &str) -> Result<Option<String>, Malformed> {
    let attributes = decode(packed)?;
    let others: Vec<&Attribute> = attributes.iter().filter(|attribute| *attribute.key != *key).collect();
    Ok((others.len() < attributes.len()).then(|| encode(others.into_iter())))
}

/// A text that [`encode`] did not make. It says where it is at fault, and not what stands there.
#[derive(Debug)]
pub(crate) struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// The attributes of a text that [`encode`] made.
pub(crate) fn decode(packed: &str) -> Result<Vec<Attribute>, Malformed> {
    if packed == "{}" {
        return Ok(Vec::new());
    }
    let Pairs(pairs) = serde_json::from_str(packed).map_err(|error| {
        Malformed(format!("the attributes column: {:?} fault at column {}", error.classify(), error.column()))
    })?;
    Ok(pairs)
}

struct Pairs(Vec<Attribute>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of values and versions")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut attributes = Vec::new();
                while let Some((key, (value, version))) = map.next_entry::<&str, (&RawValue, i64)>()? {
                    attributes.push(Attribute::new(
                        key.into(),
                        value.get().into(),
                        Version::new(version),
                        DbTime::NEVER,
                        Place::Packed,
                    ));
                }
                Ok(Pairs(attributes))
            }
        }

        deserializer.deserialize_map(Read)
    }
}
