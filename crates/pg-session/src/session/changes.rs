//! What a request wants to change: one final state per key, whatever was called in which order.
//!
//! `set` then `remove` is a removal, `remove` then `set` is a set: the last call wins, so an update never carries
//! two orders for one key (the predecessor lost writes that way).
//!
//! Keys and texts stand in one buffer. They are made in a request's task and dropped in the writer's: with two allocations for
//! each of them, which the allocator had to carry from thread to thread, creates of five attributes were 5 to 9 % slower.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::clock::DbTime;
use crate::error::{Error, ErrorKind};

/// The final state that one key is to have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    Set { text: &'a str, expires_at: DbTime },
    Remove,
}

/// The changes of one session, by key. A clone shares them until one of the two goes on changing: an update takes along what
/// its handle has.
#[derive(Clone, Default)]
pub(crate) struct Changes(Option<Arc<List>>);

#[derive(Clone, Default)]
struct List {
    /// Each change's key and then its text, in the order of the calls.
    buffer: String,
    /// Sorted by key; one for each key.
    spans: Vec<Span>,
}

/// Where a change stands in the buffer.
#[derive(Clone, Copy)]
struct Span {
    key: usize,
    text: usize,
    end: usize,
    /// When what is set expires; `None` if the key is removed.
    expires_at: Option<DbTime>,
}

impl Changes {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Encodes `value` as what `key` is to have, if `check` admits its text. On error nothing changes.
    pub(crate) fn encode<T: Serialize + ?Sized>(
        &mut self,
        key: &str,
        value: &T,
        expires_at: DbTime,
        check: impl FnOnce(&str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.list().put(key, Some(expires_at), |buffer| {
            let start = buffer.len();
            serde_json::to_writer(Append(buffer), value).map_err(|error| {
                let trouble = format!("the value of attribute {key:?} has no JSON form");
                Error::new(ErrorKind::Encode, trouble).with_source(error)
            })?;
            check(&buffer[start..])
        })
    }

    /// Sets a text that is known to be JSON.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn set(&mut self, key: &str, text: &str, expires_at: DbTime) {
        let Ok(()) = self.list().put(key, Some(expires_at), |buffer| {
            buffer.push_str(text);
            Ok::<_, Infallible>(())
        });
    }

    pub(crate) fn remove(&mut self, key: &str) {
        let Ok(()) = self.list().put(key, None, |_| Ok::<_, Infallible>(()));
    }

    fn list(&mut self) -> &mut List {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    pub(crate) fn get(&self, key: &str) -> Option<Change<'_>> {
        let list = self.0.as_ref()?;
        let at = list.find(key).ok()?;
        Some(list.change(list.spans[at]))
    }

    /// Sorted by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Change<'_>)> + Clone {
        let list = self.0.iter();
        list.flat_map(|list| list.spans.iter().map(|&span| (list.key(span), list.change(span))))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |list| list.spans.len())
    }

    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}

impl List {
    /// Of the buffer at first: a login's usual attributes.
    const BYTES: usize = 128;

    /// `write` appends the text.
    fn put<E>(
        &mut self,
        key: &str,
        expires_at: Option<DbTime>,
        write: impl FnOnce(&mut String) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.buffer.is_empty() {
            self.buffer.reserve(Self::BYTES);
        }
        let start = self.buffer.len();
        self.buffer.push_str(key);
        let text = self.buffer.len();
        if let Err(error) = write(&mut self.buffer) {
            self.buffer.truncate(start);
            return Err(error);
        }
        let span = Span { key: start, text, end: self.buffer.len(), expires_at };
        match self.find(key) {
            Ok(at) => {
                let old = std::mem::replace(&mut self.spans[at], span);
                self.cut(old.key, old.end);
            }
            Err(at) => self.spans.insert(at, span),
        }
        Ok(())
    }

    /// Takes out what was set before, text and all: a key that is set again and again keeps the last text only.
    fn cut(&mut self, start: usize, end: usize) {
        self.buffer.drain(start..end);
        for span in self.spans.iter_mut().filter(|span| span.key >= end) {
            span.key -= end - start;
            span.text -= end - start;
            span.end -= end - start;
        }
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.spans.binary_search_by(|&span| self.key(span).cmp(key))
    }

    fn key(&self, span: Span) -> &str {
        &self.buffer[span.key..span.text]
    }

    fn change(&self, span: Span) -> Change<'_> {
        match span.expires_at {
            Some(expires_at) => Change::Set { text: &self.buffer[span.text..span.end], expires_at },
            None => Change::Remove,
        }
    }
}

/// What is encoded goes straight into the buffer. A text of its own, grown as it comes and freed at once, was a good part of what
/// large values cost.
struct Append<'a>(&'a mut String);

impl Append<'_> {
    /// Bytes of what may follow a piece that makes up most of the text, as a string's closing quote does.
    const LITTLE: usize = 16;
}

impl io::Write for Append<'_> {
    /// serde_json writes a text in whole pieces, each of them UTF-8.
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(piece).map_err(io::Error::other)?;
        if text.len() >= self.0.len() {
            // More than twice as long already: to double that would be too large for what allocators keep for each thread.
            self.0.reserve_exact(text.len() + Self::LITTLE);
        }
        self.0.push_str(text);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// `None` is a removal.
    type Call = (String, Option<(String, i64)>);

    fn call() -> impl Strategy<Value = Call> {
        // Few keys, so that they meet; of different lengths, some of them beyond ASCII.
        let key = prop_oneof![Just(""), Just("a"), Just("ab"), Just("b"), Just("ü"), Just("\u{1f600}key")];
        let set = proptest::option::weighted(0.7, ("[a-z\u{e4}\u{20ac}]{0,5}", 1..i64::MAX));
        (key.prop_map(str::to_owned), set)
    }

    fn make(changes: &mut Changes, (key, set): &Call) {
        match set {
            Some((text, nanos)) => changes.set(key, text, DbTime::from_nanos(*nanos)),
            None => changes.remove(key),
        }
    }

    fn shown(changes: &Changes) -> Vec<Call> {
        let all = changes.iter().map(|(key, change)| {
            assert!(changes.get(key) == Some(change), "{key:?} is found as it is listed");
            let set = match change {
                Change::Set { text, expires_at } => Some((text.to_owned(), expires_at.nanos())),
                Change::Remove => None,
            };
            (key.to_owned(), set)
        });
        all.collect()
    }

    proptest! {
        /// As a map by key; and a clone keeps what it had while the other goes on.
        #[test]
        fn the_last_call_for_each_key_counts(
            calls in proptest::collection::vec(call(), 0..24),
            more in proptest::collection::vec(call(), 0..6),
        ) {
            let (mut changes, mut model) = (Changes::none(), BTreeMap::new());
            for call in &calls {
                make(&mut changes, call);
                model.insert(call.0.clone(), call.1.clone());
            }
            let shared = changes.clone();
            more.iter().for_each(|call| make(&mut changes, call));
            prop_assert_eq!(shown(&shared), model.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(shared.len(), model.len());
            model.extend(more);
            prop_assert_eq!(shown(&changes), model.into_iter().collect::<Vec<_>>());
        }
    }

    fn admit(_: &str) -> Result<(), Error> {
        Ok(())
    }

    fn text(changes: &Changes, key: &str) -> Option<String> {
        match changes.get(key)? {
            Change::Set { text, .. } => Some(text.to_owned()),
            Change::Remove => None,
        }
    }

    proptest! {
        #[test]
        fn a_value_is_encoded_as_serde_json_does(value in any::<(String, Vec<Option<f64>>, char)>(), more in 0..600_usize) {
            let value = (value, "\u{1f600}\"".repeat(more));
            let mut changes = Changes::none();
            for key in ["b", "a", "b"] {
                changes.encode(key, &value, DbTime::NEVER, admit).unwrap();
            }
            let expected = Some(serde_json::to_string(&value).unwrap());
            prop_assert_eq!(text(&changes, "a"), expected.clone());
            prop_assert_eq!(text(&changes, "b"), expected);
        }
    }

    #[test]
    fn what_cannot_be_encoded_or_is_not_admitted_changes_nothing() {
        let refuse = |text: &str| Err(Error::new(ErrorKind::Attribute, format!("{} bytes", text.len())));
        let no_json = BTreeMap::from([(vec![1], "a list is no key")]);
        let mut changes = Changes::none();
        for known in [None, Some("1")] {
            for key in ["known", "new"] {
                let error = changes.encode(key, &no_json, DbTime::NEVER, admit).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Encode);
                let error = changes.encode(key, "long", DbTime::NEVER, refuse).unwrap_err();
                assert_eq!(error.to_string(), "6 bytes");
                assert_eq!((text(&changes, "known").as_deref(), text(&changes, "new")), (known, None));
                assert_eq!(changes.len(), usize::from(known.is_some()));
            }
            changes.set("known", "1", DbTime::NEVER);
        }
        let bytes = changes.0.as_ref().map(|list| list.buffer.len());
        assert_eq!(bytes, Some("known1".len()), "nothing of it is left");
    }

    #[test]
    fn a_long_value_takes_little_more_than_its_own_length() {
        let mut changes = Changes::none();
        changes.encode("key", &"x".repeat(1_000), DbTime::NEVER, admit).unwrap();
        let capacity = changes.0.as_ref().map(|list| list.buffer.capacity());
        assert!(capacity.is_some_and(|capacity| (1_005..1_032).contains(&capacity)), "{capacity:?}");
    }

    #[test]
    fn a_key_that_is_set_again_and_again_keeps_its_last_text_only() {
        let mut changes = Changes::none();
        for count in 0..1_000 {
            changes.set("first", "1", DbTime::NEVER);
            changes.set("count", &format!("{count:04}"), DbTime::NEVER);
        }
        let bytes = changes.0.as_ref().map(|list| list.buffer.len());
        assert_eq!(bytes, Some("first1count0999".len()));
    }
}
