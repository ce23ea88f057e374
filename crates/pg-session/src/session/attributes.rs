//! The attributes of a session: immutable, shared by every reader on the node.

use std::fmt;
use std::sync::Arc;

use super::attribute::{Attribute, OverflowAttribute};
use super::changes::{Change, Changes};
use super::inline::{Entry, InlineAttributes, InlineEntry};
use super::keep::Keep;
use super::placement::{InlineBudget, Placement};
use crate::clock::DbTime;
use crate::version::Version;

/// All attributes of one version of a session, as the database holds them.
#[derive(Default)]
pub(crate) struct Attributes {
    inline: InlineAttributes,
    /// Sorted by key.
    overflow: Box<[Arc<OverflowAttribute>]>,
    /// Of their keys and texts.
    overflow_bytes: usize,
}

impl Attributes {
    /// A key may be in the session's row and have a row of its own. Then the latter has expired and
    /// does not count.
    pub(crate) fn new(inline: InlineAttributes, mut overflow: Vec<Arc<OverflowAttribute>>) -> Self {
        overflow.retain(|overflow| inline.get(&overflow.key).is_none());
        overflow.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let overflow_bytes = overflow.iter().map(|overflow| overflow.bytes()).sum();
        Self { inline, overflow: overflow.into(), overflow_bytes }
    }

    pub(crate) fn len(&self) -> usize {
        self.inline.len() + self.overflow.len()
    }

    /// Keys and texts take no more than that.
    pub(crate) fn bytes_max(&self) -> usize {
        self.inline.text().len() + self.overflow_bytes
    }

    pub(crate) fn get(&self, key: &str) -> Option<Attribute<'_>> {
        let inline = self.inline.get(key).map(Attribute::Inline);
        inline.or_else(|| self.overflow(key).map(Attribute::Overflow))
    }

    fn overflow(&self, key: &str) -> Option<&OverflowAttribute> {
        let at = self.overflow.binary_search_by(|overflow| (*overflow.key).cmp(key)).ok()?;
        Some(&self.overflow[at])
    }

    /// Sorted by key in each place, those of the session's row first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Attribute<'_>> {
        let overflow = self.overflow.iter().map(|overflow| Attribute::Overflow(overflow));
        self.inline.iter().map(Attribute::Inline).chain(overflow)
    }

    /// What the database holds once `changes` were written as `version` on top of these. Inline attributes that have
    /// expired at `now` are left out.
    ///
    /// Those that have rows of their own may be many. The changed ones are searched for, and the
    /// others are not visited.
    pub(crate) fn apply(&self, changes: &Changes, version: Version, now: DbTime) -> Self {
        let is_kept = |entry: &Entry<'_>| changes.get(entry.key()).is_none() && now < entry.expires_at();
        let mut inline: Vec<InlineEntry<'_>> = Vec::with_capacity(self.inline.len() + changes.len());
        inline.extend(self.inline.iter().filter(is_kept).map(Entry::inline_entry));
        let (mut overflow, mut overflow_bytes) = (self.overflow.to_vec(), self.overflow_bytes);
        let taken = inline.iter().map(|entry| (entry.key, entry.text, entry.expires_at));
        let mut room = InlineBudget::beside(taken);
        let mut decimals = itoa::Buffer::new();
        let decimals = decimals.format(version.get());
        for (key, change) in changes.iter() {
            let mut new = None;
            if let Change::Set { text, expires_at } = change {
                match room.place(key, text, expires_at) {
                    Placement::Inline => {
                        inline.push(InlineEntry { key, text, version: decimals, expires_at, decoded: None });
                    }
                    Placement::Overflow => {
                        new = Some(Arc::new(OverflowAttribute::new(key, text, version, expires_at)));
                    }
                }
            }
            overflow_bytes += new.as_ref().map_or(0, |new| new.bytes());
            match (overflow.binary_search_by(|overflow| (*overflow.key).cmp(key)), new) {
                (Ok(at), Some(new)) => overflow_bytes -= std::mem::replace(&mut overflow[at], new).bytes(),
                (Ok(at), None) => overflow_bytes -= overflow.remove(at).bytes(),
                (Err(at), Some(new)) => overflow.insert(at, new),
                (Err(_), None) => {}
            }
        }
        Self { inline: InlineAttributes::of(inline), overflow: overflow.into(), overflow_bytes }
    }

    /// Those that are kept and alive, all as if `version` had written them.
    pub(crate) fn carry(&self, keep: &Keep, version: Version, now: DbTime) -> Self {
        let (mut inline, mut overflow, decimals) = (Vec::new(), Vec::new(), version.to_string());
        for kept in self.iter().filter(|attribute| keep.contains(attribute.key()) && attribute.is_live(now)) {
            match kept {
                Attribute::Inline(entry) => {
                    inline.push(InlineEntry { version: &decimals, decoded: None, ..entry.inline_entry() });
                }
                Attribute::Overflow(OverflowAttribute { key, text, expires_at, .. }) => {
                    overflow.push(Arc::new(OverflowAttribute::new(key, text, version, *expires_at)));
                }
            }
        }
        Self::new(InlineAttributes::of(inline), overflow)
    }

    /// The keys of `changes` whose attributes are not those that `seen` has, sorted. One that has expired is absent: so it
    /// was, or would have been by now.
    pub(crate) fn differing(&self, seen: &Self, changes: &Changes, now: DbTime) -> Vec<String> {
        // The text as well: a restored database gives a version number again, to other content.
        fn content<'a>(attributes: &'a Attributes, key: &str, now: DbTime) -> Option<(Version, &'a str)> {
            let live = attributes.get(key).filter(|attribute| attribute.is_live(now));
            live.map(|attribute| (attribute.version(), attribute.text()))
        }
        let keys = changes.iter().map(|(key, _)| key);
        keys.filter(|key| content(self, key, now) != content(seen, key, now)).map(str::to_owned).collect()
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What makes the tables of a session that has the attributes `before` hold those of `after`, its next version.
pub(crate) struct Writes<'a> {
    /// The attributes of the session's row, if they change.
    pub(crate) inline: Option<&'a str>,
    /// Attributes whose own rows are written.
    pub(crate) set: Vec<&'a OverflowAttribute>,
    /// Keys whose own rows are deleted.
    pub(crate) removed: Vec<&'a str>,
}

impl<'a> Writes<'a> {
    /// What both have, they share, so nothing of it is looked at.
    pub(crate) fn new(before: &'a Attributes, after: &'a Attributes) -> Self {
        let (old, new) = (before.inline.text(), after.inline.text());
        let (mut set, mut removed) = (Vec::new(), Vec::new());
        let (mut olds, mut news) = (before.overflow.iter().peekable(), after.overflow.iter().peekable());
        loop {
            match (olds.peek().copied(), news.peek().copied()) {
                (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {
                    olds.next();
                    news.next();
                }
                (Some(old), new) if new.is_none_or(|new| old.key < new.key) => {
                    removed.push(&*old.key);
                    olds.next();
                }
                (old, Some(new)) => {
                    set.push(&**new);
                    news.next();
                    if old.is_some_and(|old| old.key == new.key) {
                        olds.next();
                    }
                }
                (_, None) => break,
            }
        }
        // Whatever is written to the row has a new version, so the text tells. If rows of
        // attributes change, it is written as well. The stored text may still have an expired
        // attribute of the same key, which no reader has seen.
        let changes = old != new || !set.is_empty() || !removed.is_empty();
        Self { inline: changes.then_some(new), set, removed }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::value::{RawValue, Value};

    use super::*;
    use crate::session::placement::INLINE_VALUE_BYTES_MAX;

    const KEYS: [&str; 6] = ["a", "b", "c", "ü", "\u{1f600}", "\"e\""];

    /// For each key: nothing, a removal, or a value of this many bytes that may expire; and whether a caller reads it
    /// afterwards.
    type Step = [(Option<Option<(usize, bool)>>, bool); KEYS.len()];

    fn step() -> impl Strategy<Value = Step> {
        let bytes =
            prop_oneof![Just(1), Just(400), Just(INLINE_VALUE_BYTES_MAX), Just(INLINE_VALUE_BYTES_MAX + 1)];
        let set = (bytes, proptest::bool::weighted(0.2));
        let change = proptest::option::of(proptest::option::weighted(0.7, set));
        proptest::array::uniform6((change, any::<bool>()))
    }

    /// Each version has values of its own.
    fn changes(step: Step, version: Version) -> Changes {
        let digit = (version.get() % 9 + 1).to_string();
        let mut changes = Changes::none();
        for (key, (change, _)) in KEYS.into_iter().zip(step) {
            match change {
                Some(Some((bytes, expires))) => {
                    let expires_at =
                        if expires { DbTime::from_nanos(i64::MAX - 1).as_stored() } else { DbTime::NEVER };
                    changes.set(key, &digit.repeat(bytes), expires_at);
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
        inline: String,
        rows: BTreeMap<String, (String, DbTime, Version)>,
    }

    impl Tables {
        fn write(&mut self, writes: &Writes<'_>, version: Version) {
            let Writes { inline, set, removed } = writes;
            if let Some(inline) = inline {
                (*inline).clone_into(&mut self.inline);
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
        fn attributes(&self) -> (InlineAttributes, Vec<Arc<OverflowAttribute>>) {
            let rows = self.rows.iter().map(|(key, (text, expires_at, version))| {
                Arc::new(OverflowAttribute::new(key, text, *version, *expires_at))
            });
            (InlineAttributes::read(&self.inline, DbTime::EPOCH).unwrap(), rows.collect())
        }
    }

    fn shown(attributes: &Attributes) -> Vec<(&str, &str, Version, DbTime, Placement)> {
        attributes.iter().map(|a| (a.key(), a.text(), a.version(), a.expires_at(), a.place())).collect()
    }

    proptest! {
        /// Wherever they move, the tables hold each attribute once, as the node has it. Nothing is written that does
        /// not change. And it is what was set last, no matter who had read what was there before.
        #[test]
        fn what_is_written_makes_the_tables_hold_what_the_node_has(steps in proptest::collection::vec(step(), 1..12)) {
            let mut tables = Tables { inline: "{}".to_owned(), ..Tables::default() };
            let mut model = BTreeMap::new();
            let (mut before, mut version) = (Attributes::default(), Version::new(1));
            for step in steps {
                version = version.next();
                let changes = changes(step, version);
                let after = before.apply(&changes, version, DbTime::EPOCH);
                let inline = tables.inline.clone();
                let writes = Writes::new(&before, &after);
                prop_assert!(writes.set.iter().all(|attribute| attribute.version == version));
                prop_assert!(writes.set.iter().all(|attribute| changes.get(&attribute.key).is_some()));
                prop_assert!(writes.removed.iter().all(|key| changes.get(key).is_some()));
                let same = writes.inline.is_none();
                let rows_change = !writes.set.is_empty() || !writes.removed.is_empty();
                tables.write(&writes, version);
                let (row, rows) = tables.attributes();
                prop_assert_eq!(row.len() + rows.len(), after.len(), "each attribute is in one place");
                let held = Attributes::new(row, rows);
                prop_assert_eq!(shown(&held), shown(&after));
                let bytes: usize = after.iter().map(|a| a.key().len() + a.text().len()).sum();
                prop_assert!((bytes..bytes + 60 * after.len() + 3).contains(&after.bytes_max()), "{:?}", after);
                prop_assert_eq!(held.bytes_max(), after.bytes_max());
                prop_assert!(!same || inline == tables.inline, "the row's text is written if it changes");
                prop_assert!(same || rows_change || inline != tables.inline, "and not without a reason");

                for (key, change) in changes.iter() {
                    match change {
                        Change::Set { text, expires_at } => {
                            model.insert(key.to_owned(), (text.to_owned(), version, expires_at));
                        }
                        Change::Remove => drop(model.remove(key)),
                    }
                }
                let all = after.iter().map(|a| (a.key().to_owned(), (a.text().to_owned(), a.version(), a.expires_at())));
                prop_assert_eq!(&all.collect::<BTreeMap<_, _>>(), &model);
                for (key, (_, read)) in KEYS.into_iter().zip(step) {
                    prop_assert_eq!(after.get(key).map(Attribute::text), model.get(key).map(|(text, ..)| &**text));
                    if let Some(attribute) = after.get(key).filter(|_| read) {
                        let value = attribute.shared::<Box<RawValue>>().unwrap();
                        prop_assert_eq!(value.get(), attribute.text());
                    }
                }
                before = after;
            }
        }
    }

    fn set(attributes: &[(&str, &str)]) -> Changes {
        let mut changes = Changes::none();
        attributes.iter().for_each(|&(key, text)| changes.set(key, text, DbTime::NEVER));
        changes
    }

    fn value(attributes: &Attributes, key: &str) -> Arc<Value> {
        attributes.get(key).unwrap().shared().unwrap()
    }

    #[test]
    fn decoded_value_is_kept_until_it_is_set_again() {
        let large = format!("\"{}\"", "x".repeat(INLINE_VALUE_BYTES_MAX));
        let all = [("b", "[1]"), ("c", "[2]"), ("large", &*large)];
        let first = Attributes::default().apply(&set(&all), Version::new(1), DbTime::EPOCH);
        let known = all.map(|(key, _)| (key, value(&first, key)));
        let is_known = |attributes: &Attributes| {
            known.each_ref().map(|(key, known)| Arc::ptr_eq(known, &value(attributes, key)))
        };
        assert_eq!(is_known(&first), [true; 3]);
        assert_eq!(*first.get("b").unwrap().shared::<Vec<u8>>().unwrap(), [1], "as another type, too");
        assert_eq!(is_known(&first), [true; 3]);

        // Others come and go before and behind.
        let second =
            first.apply(&set(&[("a", "0"), ("d", "0"), ("larger", &large)]), Version::new(2), DbTime::EPOCH);
        assert_eq!(is_known(&second), [true; 3]);
        let mut changes = Changes::none();
        changes.remove("a");
        let third = second.apply(&changes, Version::new(3), DbTime::EPOCH);
        assert_eq!(is_known(&third), [true; 3]);

        let fourth = third.apply(&set(&[("b", "[3]"), ("large", &large)]), Version::new(4), DbTime::EPOCH);
        assert_eq!(is_known(&fourth), [false, true, false]);
        assert_eq!((value(&fourth, "b"), value(&third, "b")), (Arc::new([3].into()), Arc::new([1].into())));

        let carried = fourth.carry(&Keep::All, Version::new(5), DbTime::EPOCH);
        assert_eq!(is_known(&carried), [false; 3], "nothing decoded goes from one id to another");
    }

    #[test]
    fn attributes_kept_by_rotation_are_live_with_new_version() {
        let mut changes = set(&[("a", "1"), ("b", "2"), ("\"c\"", "3")]);
        changes.set("d", "4", DbTime::from_nanos(10_000));
        changes.set("e", "5", DbTime::from_nanos(20_000));
        let attributes = Attributes::default().apply(&changes, Version::new(1), DbTime::EPOCH);
        let only = |keys: &[&str]| Keep::Only(keys.iter().map(|&key| key.into()).collect());
        let kept = |keep: &Keep| {
            let carried = attributes.carry(keep, Version::new(7), DbTime::from_nanos(10_000));
            assert!(carried.iter().all(|attribute| attribute.version() == Version::new(7)));
            carried.iter().map(|a| format!("{} {} {:?}", a.key(), a.text(), a.place())).collect::<Vec<_>>()
        };
        assert_eq!(kept(&Keep::All), ["a 1 Inline", "b 2 Inline", "e 5 Inline", "\"c\" 3 Overflow"]);
        assert_eq!(kept(&only(&["b", "d", "e", "f"])), ["b 2 Inline", "e 5 Inline"]);
        assert_eq!(kept(&Keep::none()), [""; 0]);
    }

    /// The stored text keeps an expired attribute that no node has in memory. Then the key becomes large.
    #[test]
    fn an_expired_inline_attribute_does_not_hide_a_row() {
        let mut tables = Tables::default();
        let mut changes = set(&[("other", "1")]);
        changes.set("code", "4", DbTime::from_nanos(10_000));
        let none = Attributes::default();
        let first = none.apply(&changes, Version::new(1), DbTime::EPOCH);
        tables.write(&Writes::new(&none, &first), Version::new(1));
        let expired = DbTime::from_nanos(10_000);
        let loaded = Attributes::new(InlineAttributes::read(&tables.inline, expired).unwrap(), Vec::new());
        assert!(loaded.get("code").is_none());
        let large = "1".repeat(INLINE_VALUE_BYTES_MAX + 1);
        let second = loaded.apply(&set(&[("code", &large)]), Version::new(2), expired);
        tables.write(&Writes::new(&loaded, &second), Version::new(2));
        assert_eq!(tables.inline, r#"{"other":[1,1]}"#);
        let (row, rows) = tables.attributes();
        assert_eq!(Attributes::new(row, rows).get("code").map(Attribute::text), Some(&*large));
    }

    #[test]
    fn a_row_that_was_left_behind_counts_less_than_the_sessions_own() {
        let left = ["other", "key"]
            .map(|key| Arc::new(OverflowAttribute::new(key, "2", Version::new(1), DbTime::NEVER)));
        let both =
            Attributes::new(InlineAttributes::read(r#"{"key":[1,2]}"#, DbTime::EPOCH).unwrap(), left.into());
        assert_eq!(
            shown(&both),
            [
                ("key", "1", Version::new(2), DbTime::NEVER, Placement::Inline),
                ("other", "2", Version::new(1), DbTime::NEVER, Placement::Overflow)
            ]
        );
    }

    #[test]
    fn a_debug_output_tells_no_value() {
        let large = format!("\"secret{}\"", "x".repeat(INLINE_VALUE_BYTES_MAX));
        let attributes = Attributes::default().apply(
            &set(&[("a", "\"secret\""), ("b", &large)]),
            Version::new(1),
            DbTime::EPOCH,
        );
        let shown = format!("{attributes:?}");
        assert!(shown.contains("\"a\"") && shown.contains("\"b\"") && !shown.contains("secret"), "{shown}");
    }
}
