//! [`Draft`]: the attributes of a session that does not exist yet. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pg_session::{Create, SessionManager};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::error::Error;

/// How long an attribute lives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lifetime {
    Session,
    For(Duration),
    Until(SystemTime),
}

/// What a visitor without a session has been given in this request. Becomes a session when it is saved; a handful of keys, so
/// its limits are those of the session that it becomes.
#[derive(Debug, Default)]
pub(crate) struct Draft(BTreeMap<String, (Box<RawValue>, Lifetime)>);

impl Draft {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        decode(self.get_raw(key))
    }

    pub(crate) fn get_raw(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|(value, _)| value.get())
    }

    /// Refuses at once what could not be saved later, by the limits of the core.
    pub(crate) fn set<T: Serialize + ?Sized>(
        &mut self,
        manager: &SessionManager,
        key: &str,
        value: &T,
        lifetime: Lifetime,
    ) -> Result<(), Error> {
        let value = serde_json::value::to_raw_value(value).map_err(|_| Error::encode())?;
        drop(manager.create_anonymous().set(key, &value).check()?);
        self.0.insert(key.to_owned(), (value, lifetime));
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The attributes, put into a session that is about to be made.
    pub(crate) fn put_into<'a>(&self, mut create: Create<'a>) -> Create<'a> {
        for (key, (value, lifetime)) in &self.0 {
            create = match *lifetime {
                Lifetime::Session => create.set(key, value),
                Lifetime::For(lifetime) => create.set_for(key, value, lifetime),
                Lifetime::Until(end) => create.set_until(key, value, end),
            };
        }
        create
    }
}

/// An attribute's JSON as a `T`. What the parser says is left out: it may repeat the value.
pub(crate) fn decode<T: DeserializeOwned>(text: Option<&str>) -> Result<Option<T>, Error> {
    text.map(|text| serde_json::from_str(text).map_err(|_| Error::decode())).transpose()
}
