//! What a request wants to change: one final state per key, whatever was called in which order.
//!
//! `set` then `remove` is a removal, `remove` then `set` is a set: the last call wins. So an update never has
//! two changes of one key.
//!
//! Keys and texts are in one buffer. A request's task makes them and the writer's task drops them. Two
//! allocations for each would go from thread to thread, which slows creates down.

use std::sync::Arc;

use crate::clock::DbTime;

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

/// Where a change is in the buffer.
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

    /// Sets a text that is known to be JSON.
    pub(crate) fn set(&mut self, key: &str, text: &str, expires_at: DbTime) {
        self.list().put(key, text, Some(expires_at));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.list().put(key, "", None);
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

    fn put(&mut self, key: &str, text: &str, expires_at: Option<DbTime>) {
        if self.buffer.is_empty() {
            self.buffer.reserve(Self::BYTES);
        }
        let start = self.buffer.len();
        self.buffer.push_str(key);
        let value = self.buffer.len();
        self.buffer.push_str(text);
        let span = Span { key: start, text: value, end: self.buffer.len(), expires_at };
        match self.find(key) {
            Ok(at) => {
                let old = std::mem::replace(&mut self.spans[at], span);
                self.cut(old.key, old.end);
            }
            Err(at) => self.spans.insert(at, span),
        }
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

impl std::fmt::Debug for Changes {
    /// Keys only: values are the application's secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(|(key, _)| key)).finish()
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
