//! The inline attributes of a session: those that its row holds, as one text. Each has its version and, if it expires, its
//! expiry in microseconds since the Unix epoch: `{"role":["admin",3],"code":[417,7,1893456000000000]}`. In memory they are
//! the same text, and the offsets of each attribute.
//!
//! An expired attribute stays in the text until the session is written again. No reader sees it.
//!
//! A read looks a key up in the index and borrows from the text: nothing is parsed, nothing is allocated. An update makes
//! the next text, which is what it sends, too.

use std::fmt;
use std::sync::OnceLock;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::decoded::Decoded;
use crate::clock::DbTime;
use crate::version::Version;

/// Bytes of a text that is read: what the column's type allows. Even with the longest versions, its offsets fit into 16 bits.
const BYTES_READ_MAX: usize = 2_048;

/// The attributes of one version of a session's row.
#[derive(Default)]
pub(crate) struct InlineAttributes {
    /// In canonical form: sorted by key, without white space. Empty if there are none, so that nothing is allocated.
    text: Box<str>,
    index: Box<[Span]>,
    /// As long as the index, once a caller has asked for a value.
    decoded: OnceLock<Box<[Decoded]>>,
}

/// Where an attribute is in the text: `"key":[value,version]` or `"key":[value,version,expiry]`.
#[derive(Clone, Copy)]
struct Span {
    key: u16,
    value: u16,
    value_end: u16,
    version_end: u16,
}

/// An attribute that a text is made of.
#[derive(Clone, Copy)]
pub(crate) struct InlineEntry<'a> {
    pub(crate) key: &'a str,
    pub(crate) text: &'a str,
    /// In decimals: those of attributes that do not change are copied, not read and written.
    pub(crate) version: &'a str,
    pub(crate) expires_at: DbTime,
    /// Its value, if it is known already.
    pub(crate) decoded: Option<&'a Decoded>,
}

impl InlineAttributes {
    /// Of entries with one key the first counts, which only a text that was written by hand has.
    pub(crate) fn of(mut entries: Vec<InlineEntry<'_>>) -> Self {
        if entries.is_empty() {
            return Self::default();
        }
        entries.sort_by(|a, b| a.key.cmp(b.key));
        entries.dedup_by(|later, earlier| later.key == earlier.key);
        // Exact unless one expires: braces, and around each of them what is there, with a comma.
        let bytes = entries
            .iter()
            .map(|InlineEntry { key, text, version, .. }| key.len() + text.len() + version.len());
        let mut text = String::with_capacity(1 + bytes.map(|bytes| bytes + 7).sum::<usize>());
        let mut index = Vec::with_capacity(entries.len());
        for entry in &entries {
            text.push_str(if text.is_empty() { "{\"" } else { ",\"" });
            let key = offset(&text);
            text.push_str(entry.key);
            text.push_str("\":[");
            let value = offset(&text);
            text.push_str(entry.text);
            let value_end = offset(&text);
            text.push(',');
            text.push_str(entry.version);
            index.push(Span { key, value, value_end, version_end: offset(&text) });
            if entry.expires_at != DbTime::NEVER {
                text.push(',');
                text.push_str(itoa::Buffer::new().format(micros(entry.expires_at)));
            }
            text.push(']');
        }
        text.push('}');
        let decoded = if entries.iter().any(|entry| entry.decoded.is_some()) {
            let all = entries.iter().map(|entry| entry.decoded.cloned().unwrap_or_default());
            OnceLock::from(all.collect::<Box<[_]>>())
        } else {
            OnceLock::new()
        };
        Self { text: text.into(), index: index.into(), decoded }
    }

    /// Reads the row's text, without the attributes that have expired at `now`. A text in another form is brought into the
    /// canonical one.
    pub(crate) fn read(text: &str, now: DbTime) -> Result<Self, Malformed> {
        let mut entries = parse(text)?;
        entries.retain(|entry| now < entry.expires_at);
        Ok(Self::of(entries))
    }

    /// As the row holds it.
    pub(crate) fn text(&self) -> &str {
        if self.text.is_empty() { "{}" } else { &self.text }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry<'_>> {
        let at = self.index.binary_search_by(|span| span.key(&self.text).cmp(key)).ok()?;
        Some(Entry { inline: self, at })
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Sorted by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.index.len()).map(|at| Entry { inline: self, at })
    }
}

/// The length of a text that has a bound: that of `place`, or what [`BYTES_READ_MAX`] becomes with longer versions.
fn offset(text: &str) -> u16 {
    debug_assert!(u16::try_from(text.len()).is_ok(), "the row's attributes have a bound");
    u16::try_from(text.len()).unwrap_or(u16::MAX)
}

impl Span {
    fn key(self, text: &str) -> &str {
        &text[usize::from(self.key)..usize::from(self.value) - "\":[".len()]
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    inline: &'a InlineAttributes,
    at: usize,
}

impl<'a> Entry<'a> {
    pub(crate) fn key(self) -> &'a str {
        self.span().key(&self.inline.text)
    }

    pub(crate) fn text(self) -> &'a str {
        let Span { value, value_end, .. } = self.span();
        &self.inline.text[usize::from(value)..usize::from(value_end)]
    }

    /// Few ask for it, so it is not kept as a number.
    pub(crate) fn version(self) -> Version {
        let number = self.decimals().parse();
        debug_assert!(number.is_ok(), "a version follows each value");
        number.map_or(Version::ABSENT, Version::new)
    }

    fn decimals(self) -> &'a str {
        let Span { value_end, version_end, .. } = self.span();
        &self.inline.text[usize::from(value_end) + ",".len()..usize::from(version_end)]
    }

    /// Few attributes expire, so it is not kept as a number.
    pub(crate) fn expires_at(self) -> DbTime {
        let rest = &self.inline.text[usize::from(self.span().version_end)..];
        let Some(rest) = rest.strip_prefix(',') else { return DbTime::NEVER };
        let micros = rest.split(']').next().and_then(|decimals| decimals.parse().ok());
        debug_assert!(micros.is_some(), "a number follows the version");
        // One that cannot be read has expired.
        micros.map_or(DbTime::from_nanos(i64::MIN), from_micros)
    }

    pub(crate) fn decoded(self) -> &'a Decoded {
        let none = || self.inline.index.iter().map(|_| Decoded::new()).collect();
        &self.inline.decoded.get_or_init(none)[self.at]
    }

    /// To be put into another text.
    pub(crate) fn inline_entry(self) -> InlineEntry<'a> {
        let decoded = self.inline.decoded.get().map(|all| &all[self.at]);
        let decoded = decoded.filter(|decoded| decoded.get().is_some());
        let expires_at = self.expires_at();
        InlineEntry { key: self.key(), text: self.text(), version: self.decimals(), expires_at, decoded }
    }

    fn span(self) -> Span {
        self.inline.index[self.at]
    }
}

fn micros(time: DbTime) -> i64 {
    time.nanos().div_euclid(1_000)
}

/// Saturates far behind the year 2200, at which PostgreSQL's columns end.
fn from_micros(micros: i64) -> DbTime {
    DbTime::from_nanos(micros.saturating_mul(1_000).min(DbTime::NEVER.nanos() - 1))
}

/// How an attribute begins in the text, if it is inline at all.
pub(crate) fn key_marker(key: &str) -> String {
    format!("\"{key}\":[")
}

/// The text without one of its attributes; `None` if it has no such attribute.
pub(crate) fn without(text: &str, key: &str) -> Result<Option<String>, Malformed> {
    let all = parse(text)?;
    let others: Vec<InlineEntry<'_>> = all.iter().filter(|entry| entry.key != key).copied().collect();
    Ok((others.len() < all.len()).then(|| InlineAttributes::of(others).text().to_owned()))
}

/// A text that is none of a row's. It says where it is at fault, and not what is there.
#[derive(Debug)]
pub(crate) struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

fn parse(text: &str) -> Result<Vec<InlineEntry<'_>>, Malformed> {
    if text == "{}" {
        return Ok(Vec::new());
    }
    if text.len() > BYTES_READ_MAX {
        return Err(Malformed(format!(
            "the attributes column: {} bytes are over {BYTES_READ_MAX}",
            text.len()
        )));
    }
    let Entries(entries) = serde_json::from_str(text).map_err(|error| {
        Malformed(format!("the attributes column: {:?} fault at column {}", error.classify(), error.column()))
    })?;
    Ok(entries)
}

struct Entries<'a>(Vec<InlineEntry<'a>>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of values and versions")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                // More than most have, so that it does not grow.
                let mut entries = Vec::with_capacity(8);
                while let Some((key, Value { text, version, expires_at })) = map.next_entry()? {
                    entries.push(InlineEntry { key, text, version, expires_at, decoded: None });
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Read)
    }
}

/// `[value,version]` or `[value,version,expiry]`.
struct Value<'a> {
    text: &'a str,
    version: &'a str,
    expires_at: DbTime,
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Value<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, a version and perhaps an expiry")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
                let missing = |count| Error::invalid_length(count, &self);
                let text: &RawValue = seq.next_element()?.ok_or_else(|| missing(0))?;
                let version: &RawValue = seq.next_element()?.ok_or_else(|| missing(1))?;
                let version = version.get();
                serde_json::from_str::<i64>(version).map_err(Error::custom)?;
                let expires_at = seq.next_element::<i64>()?.map_or(DbTime::NEVER, from_micros);
                Ok(Value { text: text.get(), version, expires_at })
            }
        }

        deserializer.deserialize_seq(Read)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::session::placement::{BYTES_MAX, INLINE_VALUE_BYTES_MAX, InlineBudget, Placement};

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
    fn attributes() -> impl Strategy<Value = BTreeMap<String, (String, String)>> {
        let key = prop_oneof!["[^\\x00]{1,12}", "[a-z]{1,3}", Just("key".to_owned())];
        let version = prop_oneof![1_i64..100, Just(i64::MAX), 1_i64..i64::MAX];
        let decimals = version.prop_map(|version| version.to_string());
        proptest::collection::btree_map(key, (texts(), decimals), 0..60)
    }

    fn inline_entry<'a>(key: &'a str, text: &'a str, version: &'a str) -> InlineEntry<'a> {
        InlineEntry { key, text, version, expires_at: DbTime::NEVER, decoded: None }
    }

    /// Those that have room, one after the other.
    fn fitting(attributes: &BTreeMap<String, (String, String)>) -> Vec<InlineEntry<'_>> {
        let mut room = InlineBudget::beside([]);
        let all = attributes.iter().map(|(key, (text, version))| inline_entry(key, text, version));
        all.filter(|entry| room.place(entry.key, entry.text, DbTime::NEVER) == Placement::Inline).collect()
    }

    fn of_inline_entries(entries: &[InlineEntry<'_>]) -> Vec<(String, String, Version)> {
        let version = |entry: &InlineEntry<'_>| Version::new(entry.version.parse().unwrap());
        entries.iter().map(|entry| (entry.key.to_owned(), entry.text.to_owned(), version(entry))).collect()
    }

    fn of_entries<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Vec<(String, String, Version)> {
        entries.map(|entry| (entry.key().to_owned(), entry.text().to_owned(), entry.version())).collect()
    }

    proptest! {
        #[test]
        fn inline_attributes_round_trip_within_their_budget(attributes in attributes()) {
            let entries = fitting(&attributes);
            let inline = InlineAttributes::of(entries.iter().rev().copied().collect());
            prop_assert!(inline.text().len() <= BYTES_MAX, "{} bytes", inline.text().len());
            let read = InlineAttributes::read(inline.text(), DbTime::EPOCH).unwrap();
            prop_assert_eq!(read.text(), inline.text());
            for inline in [inline, read] {
                prop_assert_eq!(of_entries(inline.iter()), of_inline_entries(&entries));
                let found = attributes.keys().filter_map(|key| inline.get(key));
                prop_assert_eq!(of_entries(found), of_inline_entries(&entries));
            }
        }

        #[test]
        fn one_is_found_and_taken_out_and_the_others_stay_as_they_are(
            attributes in attributes(),
            at in any::<proptest::sample::Index>(),
        ) {
            let mut entries = fitting(&attributes);
            let text = InlineAttributes::of(entries.clone()).text().to_owned();
            prop_assert_eq!(without(&text, "no such key").unwrap(), None);
            if entries.is_empty() {
                return Ok(());
            }
            let taken = entries.remove(at.index(entries.len()));
            prop_assert!(text.contains(&key_marker(taken.key)));
            let others = InlineAttributes::of(entries).text().to_owned();
            prop_assert_eq!(without(&text, taken.key).unwrap(), Some(others));
        }
    }

    #[test]
    fn the_column_reads_as_its_documentation_says() {
        assert_eq!(InlineAttributes::default().text(), "{}");
        assert_eq!(
            InlineAttributes::read("{}", DbTime::EPOCH).unwrap().text,
            "".into(),
            "nothing is allocated"
        );
        let all = vec![inline_entry("role", "\"admin\"", "3"), inline_entry("seen", "41", "7")];
        assert_eq!(InlineAttributes::of(all).text(), r#"{"role":["admin",3],"seen":[41,7]}"#);
    }

    #[test]
    fn an_expiry_is_read_as_it_was_written_and_ends_the_attribute() {
        let time = |micros: i64| DbTime::from_nanos(micros * 1_000);
        let code =
            InlineEntry { expires_at: time(1_893_456_000_000_000), ..inline_entry("code", "417", "7") };
        let inline = InlineAttributes::of(vec![code, inline_entry("role", "\"admin\"", "3")]);
        assert_eq!(inline.text(), r#"{"code":[417,7,1893456000000000],"role":["admin",3]}"#);
        let expiries = |inline: &InlineAttributes| inline.iter().map(Entry::expires_at).collect::<Vec<_>>();
        for inline in [&inline, &InlineAttributes::read(inline.text(), time(1_893_455_999_999_999)).unwrap()]
        {
            assert_eq!(expiries(inline), [time(1_893_456_000_000_000), DbTime::NEVER]);
            let code = inline.get("code").unwrap();
            assert_eq!((code.text(), code.version()), ("417", Version::new(7)));
        }
        let read = InlineAttributes::read(inline.text(), time(1_893_456_000_000_000)).unwrap();
        assert_eq!(read.text(), r#"{"role":["admin",3]}"#, "gone at the very instant");
        for micros in [i64::MIN, -1, 0, 1, i64::MAX] {
            let read =
                InlineAttributes::read(&format!(r#"{{"a":[1,1,{micros}]}}"#), DbTime::from_nanos(i64::MIN))
                    .unwrap();
            let saturated = DbTime::from_nanos(micros.saturating_mul(1_000).min(i64::MAX - 1));
            assert!(read.iter().all(|entry| entry.expires_at() <= saturated), "{micros}");
            assert_eq!(read.len(), usize::from(micros != i64::MIN));
        }
    }

    #[test]
    fn hand_written_inline_text_is_read_and_normalised() {
        for (text, canonical) in [
            (" { } ", "{}"),
            (
                " {\n\"seen\" : [ 41 ,\t7 ] , \"role\":[\"admin\",3] }\n",
                r#"{"role":["admin",3],"seen":[41,7]}"#,
            ),
            (r#"{"b":[{ "a" : [ ] } , 1],"a":[1, -2]}"#, r#"{"a":[1,-2],"b":[{ "a" : [ ] },1]}"#),
            (r#"{"":[1,1]}"#, r#"{"":[1,1]}"#),
            // Of one key the first counts.
            (r#"{"b":[1,5],"a":[0,1],"b":[2,6]}"#, r#"{"a":[0,1],"b":[1,5]}"#),
        ] {
            assert_eq!(InlineAttributes::read(text, DbTime::EPOCH).unwrap().text(), canonical);
        }
        let many: Vec<String> = (0..99).map(|number| format!(r#""{}":[{number},1]"#, number % 3)).collect();
        let read = InlineAttributes::read(&format!("{{{}}}", many.join(",")), DbTime::EPOCH).unwrap();
        assert_eq!(read.text(), r#"{"0":[0,1],"1":[1,1],"2":[2,1]}"#);
        assert_eq!(without(r#"{"b":[1,5],"a":[0,1],"b":[2,6]}"#, "b").unwrap().unwrap(), r#"{"a":[0,1]}"#);
    }

    /// As many and as large as they get, and then all with the longest version.
    #[test]
    fn each_is_found_in_the_longest_texts() {
        let longest = i64::MAX.to_string();
        let keys: Vec<String> = (0..200).map(|number| format!("{}{number}", '\u{1f600}')).collect();
        let mut room = InlineBudget::beside([]);
        let tiny = keys.iter().map(|key| inline_entry(key, "1", &longest));
        let tiny: Vec<InlineEntry<'_>> =
            tiny.filter(|entry| room.place(entry.key, "1", DbTime::NEVER) == Placement::Inline).collect();
        let large = format!("\"{}\"", "x".repeat(INLINE_VALUE_BYTES_MAX - 2));
        let rest =
            format!("\"{}\"", "x".repeat(BYTES_MAX - 2 - 2 * (1 + INLINE_VALUE_BYTES_MAX + 26) - 1 - 26 - 2));
        let full = vec![
            inline_entry("a", &large, &longest),
            inline_entry("b", &large, &longest),
            inline_entry("c", &rest, &longest),
        ];
        for entries in [tiny, full] {
            let inline = InlineAttributes::of(entries.clone());
            assert!((BYTES_MAX - 32..BYTES_MAX).contains(&inline.text().len()), "{}", inline.text().len());
            let mut entries = entries;
            entries.sort_by_key(|entry| entry.key);
            let found = entries.iter().filter_map(|entry| inline.get(entry.key));
            assert_eq!(of_entries(found), of_inline_entries(&entries));
        }

        let keys: Vec<String> = (0..177).map(|number| format!("{number:02}")).collect();
        let by_hand: Vec<String> = keys.iter().map(|key| format!(r#""{key}":[1,1]"#)).collect();
        let by_hand = format!("{{{}}}", by_hand.join(","));
        let text = format!("{by_hand}{}", " ".repeat(BYTES_READ_MAX - by_hand.len()));
        let read = InlineAttributes::read(&text, DbTime::EPOCH).unwrap();
        let carried = InlineAttributes::of(
            read.iter().map(|entry| InlineEntry { version: &longest, ..entry.inline_entry() }).collect(),
        );
        assert!(carried.text().len() > 2 * BYTES_READ_MAX);
        for key in &keys {
            let entry = carried.get(key).unwrap();
            assert_eq!((entry.key(), entry.text(), entry.version()), (&**key, "1", Version::new(i64::MAX)));
        }
        let fault = InlineAttributes::read(&format!("{text} "), DbTime::EPOCH).map(|_| ()).unwrap_err();
        assert!(fault.to_string().contains("attributes column"), "{fault}");
    }

    #[test]
    fn a_value_takes_no_memory_before_it_is_read() {
        let text = r#"{"a":[1,1],"b":[2,1]}"#;
        let entries = |inline: &InlineAttributes| {
            let next = InlineAttributes::of(inline.iter().map(Entry::inline_entry).collect());
            next.decoded
                .get()
                .map(|all| all.iter().map(|decoded| decoded.get().is_some()).collect::<Vec<_>>())
        };
        let inline = InlineAttributes::read(text, DbTime::EPOCH).unwrap();
        assert_eq!(entries(&inline), None);
        let _ = inline.get("b").unwrap().decoded();
        assert_eq!(entries(&inline), None, "asked for, and not decodable");
        inline.get("b").unwrap().decoded().set(std::sync::Arc::new(2)).unwrap();
        assert_eq!(entries(&inline), Some(vec![false, true]));
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
            "{\"secret\":[\"secret\",1,2,3]}",
            "{\"secret\":[\"secret\",1,null]}",
            "{\"secret\":[\"secret\",1,\"2\"]}",
            "{\"secret\":[\"secret\",1,99999999999999999999]}",
            "{\"secret\":[\"secret\",\"secret\"]}",
            "{\"secret\":[\"secret\",1.5]}",
            "{\"secret\":[secret,1]}",
            "{\"sec\\u0072et\":[\"secret\",1]}",
            "{\"a\":[1,1]} secret",
            "{\"secret\":[1,99999999999999999999]}",
            "{\"secret\":[1,-9223372036854775809]}",
            "{\"secret\":[1,1e2]}",
            "{\"secret\":[1,null]}",
            "{\"secret\":[1,-0]}",
        ] {
            let fault = InlineAttributes::read(text, DbTime::EPOCH).map(|_| ()).expect_err(text);
            let shown = format!("{fault} {fault:?}");
            assert!(
                shown.contains("attributes column") && !shown.contains("secret") && !shown.contains("999"),
                "{shown}"
            );
            assert!(without(text, "secret").is_err(), "{text}");
        }
    }
}
