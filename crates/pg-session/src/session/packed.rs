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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What serde_json would refuse, round, or read only so deep, if it looked into values; and what looks like the
    /// frame around them.
    const TEXTS: [&str; 12] = [
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "1e400",
        "-0.0",
        "123456789012345678901234567890.10",
        "{ \"a\" : [ ] }",
        "\"\\\\\\\"\"",
        "\"],\\\"key\\\":[\"",
        "{\"key\":[1,1]}",
        "\"\u{7f}\u{2028}\u{1f600}\"",
        "{\"a\":1,\"a\":2}",
    ];

    fn texts() -> impl Strategy<Value = String> {
        let any_string = any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
        prop_oneof![
            3 => proptest::sample::select(&TEXTS[..]).prop_map(str::to_owned),
            3 => any_string,
            2 => (0_usize..250).prop_map(|depth| format!("{}{}", "[".repeat(depth + 1), "]".repeat(depth + 1))),
            2 => (0_usize..520).prop_map(|length| format!("\"{}\"", "x".repeat(length))),
            1 => any::<f64>().prop_map(|number| serde_json::to_string(&number).unwrap()),
        ]
    }

    /// Attributes by key, each with the version that wrote it; many, and with versions of every length.
    fn attributes() -> impl Strategy<Value = BTreeMap<String, (String, i64)>> {
        let key = prop_oneof!["[^\\x00]{1,12}", "[a-z]{1,3}", Just("key".to_owned())];
        let version = prop_oneof![1_i64..100, Just(i64::MAX), 1_i64..i64::MAX];
        proptest::collection::btree_map(key, (texts(), version), 0..60)
    }

    /// All of them in the places that they would get, one after the other.
    fn placed(attributes: &BTreeMap<String, (String, i64)>) -> Vec<Attribute> {
        let mut room = Room::beside(std::iter::empty());
        let placed = attributes.iter().map(|(key, (text, version))| {
            let place = room.place(key, text, DbTime::NEVER);
            let (key, text) = (key.as_str().into(), text.as_str().into());
            Attribute::new(key, text, Version::new(*version), DbTime::NEVER, place)
        });
        placed.collect()
    }

    fn packed(placed: &[Attribute]) -> impl Iterator<Item = &Attribute> + Clone {
        placed.iter().filter(|attribute| attribute.place == Place::Packed)
    }

    fn pairs<'a>(attributes: impl Iterator<Item = &'a Attribute>) -> Vec<(&'a str, &'a str, Version, Place)> {
        attributes.map(|a| (&*a.key, &*a.text, a.version, a.place)).collect()
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_as_it_was_and_never_takes_more_than_its_room(attributes in attributes()) {
            let placed = placed(&attributes);
            let text = encode(placed.iter());
            prop_assert!(text.len() <= BYTES_MAX, "{} bytes", text.len());
            let read = decode(&text).unwrap();
            prop_assert_eq!(pairs(read.iter()), pairs(packed(&placed)));
        }

        #[test]
        fn one_is_found_and_taken_out_and_the_others_stay_as_they_are(
            attributes in attributes(),
            at in any::<proptest::sample::Index>(),
        ) {
            let placed = placed(&attributes);
            let text = encode(placed.iter());
            prop_assert_eq!(without(&text, "no such key").unwrap(), None);
            let packed: Vec<&Attribute> = packed(&placed).collect();
            if packed.is_empty() {
                return Ok(());
            }
            let taken = at.get(&packed);
            prop_assert!(text.contains(&opening(&taken.key)));
            let others = packed.iter().filter(|other| other.key != taken.key).copied();
            prop_assert_eq!(without(&text, &taken.key).unwrap(), Some(encode(others)));
        }
    }

    #[test]
    fn the_column_reads_as_its_documentation_says() {
        let attribute = |key: &str, text: &str, version| {
            Attribute::new(key.into(), text.into(), Version::new(version), DbTime::NEVER, Place::Packed)
        };
        let apart = Attribute::new("x".into(), "1".into(), Version::new(1), DbTime::NEVER, Place::Apart);
        assert_eq!(encode([&apart].into_iter()), "{}");
        let all = [attribute("role", "\"admin\"", 3), apart, attribute("seen", "41", 7)];
        assert_eq!(encode(all.iter()), r#"{"role":["admin",3],"seen":[41,7]}"#);
    }

    #[test]
    fn what_is_large_or_expires_or_has_a_key_to_escape_goes_apart() {
        let place = |key: &str, text: &str| Room::beside(std::iter::empty()).place(key, text, DbTime::NEVER);
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert_eq!(place("key", &text(VALUE_BYTES_MAX)), Place::Packed);
        assert_eq!(place("key", &text(VALUE_BYTES_MAX + 1)), Place::Apart);
        for key in ["a\"b", "a\\b", "a\nb", "\u{1f}", "\""] {
            assert_eq!(place(key, "1"), Place::Apart, "{key:?}");
        }
        for key in [" ", "\u{7f}", "ü", "\u{2028}", "\u{1f600}", "/", "'"] {
            assert_eq!(place(key, "1"), Place::Packed, "{key:?}");
        }
        let expiring = Room::beside(std::iter::empty()).place(
            "key",
            "1",
            DbTime::EPOCH.plus(std::time::Duration::from_secs(1)),
        );
        assert_eq!(expiring, Place::Apart);
    }

    #[test]
    fn what_the_row_has_no_room_for_goes_apart_and_what_is_smaller_still_fits() {
        let text = format!("\"{}\"", "x".repeat(450));
        let mut room = Room::beside(std::iter::empty());
        let places = [0; 4].map(|_| room.place("key", &text, DbTime::NEVER));
        assert_eq!(places, [Place::Packed, Place::Packed, Place::Packed, Place::Apart]);
        assert_eq!(room.place("key", "1", DbTime::NEVER), Place::Packed);

        // Of those that are there, only those count that stand in the row.
        let there =
            |place| Attribute::new("old".into(), text.as_str().into(), Version::new(1), DbTime::NEVER, place);
        let beside = |place| {
            let mut room = Room::beside([there(place), there(place), there(place)].iter());
            room.place("key", &text, DbTime::NEVER)
        };
        assert_eq!((beside(Place::Packed), beside(Place::Apart)), (Place::Apart, Place::Packed));
    }

    #[test]
    fn a_malformed_text_is_refused_and_not_repeated() {
        for text in [
            "",
            "secret",
            "\"secret\"",
            "[\"secret\"]",
            "{\"secret\":",
            "{\"secret\":1}",
            "{\"secret\":[1]}",
            "{\"secret\":[\"secret\"]}",
            "{\"secret\":[\"secret\",1,2]}",
            "{\"secret\":[\"secret\",\"secret\"]}",
            "{\"secret\":[\"secret\",1.5]}",
            "{\"secret\":[secret,1]}",
            "{\"sec\\u0072et\":[\"secret\",1]}",
            "{\"a\":[1,1]} secret",
            "{\"secret\":[1,99999999999999999999]}",
        ] {
            let fault = decode(text).expect_err(text);
            let told = format!("{fault} {fault:?}");
            assert!(
                told.contains("attributes column") && !told.contains("secret") && !told.contains("999"),
                "{told}"
            );
            assert!(without(text, "secret").is_err(), "{text}");
        }
    }
}
