//! [`Session`]: what a request holds. A shared snapshot of one version, and the request's own changes.
//!
//! Reading never blocks and never copies the attributes: all requests on a node share one record per version.
//! Writing changes nothing but this handle until [`SessionManager::save`](crate::SessionManager::save) commits.

pub(crate) mod attribute;
pub(crate) mod attributes;
pub(crate) mod changes;
pub(crate) mod check;
mod decoded;
pub(crate) mod expiry;
pub(crate) mod inline;
pub(crate) mod keep;
pub(crate) mod limits;
pub(crate) mod placement;
pub(crate) mod record;
pub(crate) mod request;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::attribute::{Attribute, decode};
use self::attributes::Attributes;
use self::changes::{Change, Changes};
pub use self::expiry::IdleLimit;
use self::expiry::Lifetime;
use self::keep::Keep;
use self::record::{Policy, SharedRecord};
use crate::clock::DbTime;
use crate::error::{Error, ErrorKind};
use crate::id::{GroupId, SessionId, UserId};
use crate::version::Version;

/// A session as one request sees it.
///
/// The handle is a snapshot: another request's update does not change it. Changes made through it are visible
/// through it at once, and to all others once `save` has returned. Dropping it discards them.
#[derive(Clone)]
pub struct Session {
    record: SharedRecord,
    /// None for a hit that was not changed. The handle is two pointers and moves in two registers: copying
    /// more words costs a good part of a hit.
    own: Option<Box<Own>>,
}

/// What is this handle's alone.
#[derive(Clone, Default)]
struct Own {
    changes: Changes,
    from_database: bool,
    invalidated: bool,
}

impl Session {
    /// Read from memory.
    #[inline]
    pub(crate) fn from_cache(record: SharedRecord) -> Self {
        Self { record, own: None }
    }

    /// Read from the database, or just written.
    pub(crate) fn from_database(record: SharedRecord) -> Self {
        Self { record, own: Some(Box::new(Own { from_database: true, ..Own::default() })) }
    }

    pub(crate) fn record(&self) -> &SharedRecord {
        &self.record
    }

    pub(crate) fn changes(&self) -> &Changes {
        static NONE: Changes = Changes::none();
        self.own.as_ref().map_or(&NONE, |own| &own.changes)
    }

    fn own(&mut self) -> &mut Own {
        self.own.get_or_insert_default()
    }

    /// After a commit: the handle shows what the database holds.
    pub(crate) fn advance(&mut self, record: SharedRecord) {
        self.record = record;
        *self.own() = Own { from_database: true, ..Own::default() };
    }

    /// The session's id. **A capability**; see [`SessionId`].
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.record.row.id
    }

    /// The user whom the session belongs to. `None` for an anonymous session.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        self.record.row.user_id
    }

    /// The group that the session belongs to, if any.
    #[must_use]
    pub fn group_id(&self) -> Option<GroupId> {
        self.record.row.group_id
    }

    /// The version that this handle shows, without its unsaved changes.
    #[must_use]
    pub fn version(&self) -> Version {
        self.record.row.version
    }

    /// When the session was created, by the database's clock.
    #[must_use]
    pub fn created_at(&self) -> SystemTime {
        self.record.row.created_at.into()
    }

    /// When this version was written, by the database's clock.
    #[must_use]
    pub fn updated_at(&self) -> SystemTime {
        self.record.row.updated_at.into()
    }

    /// The absolute limit, by the database's clock. The idle limit may end the session earlier.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.record.row.expires_at.into()
    }

    /// The last access that this node knows of, to a tenth of `last_access_flush_interval` or a minute. Other nodes' accesses become
    /// known when they are flushed, `last_access_flush_interval` later at most.
    #[must_use]
    pub fn last_accessed_at(&self) -> SystemTime {
        self.record.access.last().into()
    }

    /// Whether the session ends after `idle_timeout` without access.
    #[must_use]
    pub fn idle_limit(&self) -> IdleLimit {
        self.record.row.idle_limit
    }

    /// Whether the session was rotated ([`rotate`](crate::SessionManager::rotate)), and this handle shows what
    /// was left under the old id: the user and the attributes from before, for requests in flight. It ends
    /// within the grace of the rotation and cannot be saved; ending it ends the session.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.record.row.rotated
    }

    /// Whether the read that made this handle was answered from the node's memory.
    #[must_use]
    pub fn is_from_cache(&self) -> bool {
        !self.own.as_ref().is_some_and(|own| own.from_database)
    }

    /// Whether the handle has changes that were not saved.
    #[must_use]
    pub fn is_modified(&self) -> bool {
        !self.changes().is_empty()
    }

    /// Forgets the unsaved changes.
    pub fn discard_changes(&mut self) {
        if let Some(own) = &mut self.own {
            own.changes.clear();
        }
    }

    /// Marks the handle as unusable for writing: a later `save` with it fails with
    /// [`ErrorKind::Invalidated`](crate::ErrorKind::Invalidated). For a request that found its session to be in a state that must
    /// not be saved.
    /// Nothing is sent to the database.
    pub fn invalidate(&mut self) {
        self.own().invalidated = true;
    }

    /// Whether [`invalidate`](Session::invalidate) was called.
    #[must_use]
    pub fn is_invalidated(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.invalidated)
    }

    /// Decodes an attribute. `None` if there is none, or it has expired.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if the value is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.get_raw(key).map(|text| decode(key, text)).transpose()
    }

    /// Decodes an attribute once per node and version, and shares the result with every reader.
    ///
    /// The first type asked for is the one kept; reading the same attribute as another type works and decodes
    /// each time. A value that this handle has set and not saved is decoded each time, too.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if the value is not a `T`.
    pub fn get_shared<T>(&self, key: &str) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        match self.changes().get(key) {
            Some(_) => Ok(self.get(key)?.map(Arc::new)),
            None => self.saved(key).map(Attribute::shared).transpose(),
        }
    }

    /// Keeps a value beside this version of the session, for all readers on this node. The
    /// application has computed or loaded it. It is dropped when the session changes, is evicted,
    /// or leaves the node's memory. The first value stays; later calls do nothing. It does not
    /// count in the size of the cache.
    pub fn attach<T: Send + Sync + 'static>(&self, value: Arc<T>) {
        // Two readers may both have made one; one of the two stays.
        let _ = self.record.attached.set(value);
    }

    /// The value that [`attach`](Session::attach) keeps beside this version, if it is a `T`.
    #[must_use]
    pub fn attached<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Arc::clone(self.record.attached.get()?).downcast().ok()
    }

    /// An attribute's JSON as stored. `None` if there is none, or it has expired.
    #[must_use]
    pub fn get_raw(&self, key: &str) -> Option<&str> {
        match self.changes().get(key) {
            Some(Change::Set { text, expires_at }) => (self.now() < expires_at).then_some(text),
            Some(Change::Remove) => None,
            None => self.saved(key).map(Attribute::text),
        }
    }

    /// Whether the attribute exists and has not expired.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.get_raw(key).is_some()
    }

    /// The keys of all attributes that exist and have not expired, sorted, unsaved changes included.
    #[must_use]
    pub fn keys(&self) -> Vec<&str> {
        let now = self.now();
        let saved = self.record.attributes.iter().filter(|attribute| attribute.is_live(now));
        let untouched = saved.map(Attribute::key).filter(|key| self.changes().get(key).is_none());
        let set = self.changes().iter().filter_map(|(key, change)| match change {
            Change::Set { expires_at, .. } if now < expires_at => Some(key),
            Change::Set { .. } | Change::Remove => None,
        });
        let mut keys: Vec<&str> = untouched.chain(set).collect();
        keys.sort_unstable();
        keys
    }

    /// The session version that last wrote a saved attribute. `None` if there is none, it has expired, or this
    /// handle has changed it.
    #[must_use]
    pub fn attribute_version(&self, key: &str) -> Option<Version> {
        match self.changes().get(key) {
            Some(_) => None,
            None => self.saved(key).map(Attribute::version),
        }
    }

    /// When an attribute expires by itself, by the database's clock. `None` if it lives as long as the session, or
    /// does not exist.
    #[must_use]
    pub fn attribute_expires_at(&self, key: &str) -> Option<SystemTime> {
        let expires_at = match self.changes().get(key) {
            Some(Change::Set { expires_at, .. }) => expires_at,
            Some(Change::Remove) => return None,
            None => self.saved(key)?.expires_at(),
        };
        (self.now() < expires_at && expires_at != DbTime::NEVER).then(|| expires_at.into())
    }

    /// Sets an attribute for as long as the session lives.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) if `value` is not representable in JSON;
    /// [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) if key or value are too long;
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if the key is empty or holds a NUL byte. The
    /// handle is unchanged then.
    pub fn set<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), Error> {
        self.put(key, value, Lifetime::Session)
    }

    /// Sets an attribute that disappears by itself at `expires_at` on the database's clock. A time in the past
    /// makes it absent.
    ///
    /// No read returns an expired attribute. **Its value stays in the table** until the next write
    /// of the session. A large one, which has a row of its own, stays at most until the next
    /// cleanup.
    ///
    /// # Errors
    /// As [`set`](Session::set).
    pub fn set_until<T: Serialize + ?Sized>(
        &mut self,
        key: &str,
        value: &T,
        expires_at: SystemTime,
    ) -> Result<(), Error> {
        let lifetime = Lifetime::Until(expires_at.into());
        self.put(key, value, lifetime)
    }

    /// Sets an attribute that disappears by itself after `lifetime`, counted from this call.
    ///
    /// # Errors
    /// As [`set`](Session::set).
    pub fn set_for<T: Serialize + ?Sized>(
        &mut self,
        key: &str,
        value: &T,
        lifetime: Duration,
    ) -> Result<(), Error> {
        self.put(key, value, Lifetime::For(lifetime))
    }

    /// Sets an attribute to JSON text, which is stored as it is. For tools that do not know the type of the value.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) if `json` is not one JSON value, otherwise as [`set`](Session::set).
    pub fn set_raw(&mut self, key: &str, json: &str) -> Result<(), Error> {
        let value: &serde_json::value::RawValue = serde_json::from_str(json).map_err(|error| {
            let (kind, column) = (error.classify(), error.column());
            let message =
                format!("the text for attribute {key:?} is no JSON ({kind:?} fault at column {column})");
            Error::new(ErrorKind::Encode, message)
        })?;
        self.put(key, value, Lifetime::Session)
    }

    /// Removes an attribute. Removing one that does not exist is a change, too: a checked update then verifies that
    /// it still does not exist.
    pub fn remove(&mut self, key: &str) {
        self.own().changes.remove(key);
    }

    /// Checks what the session would hold: its changes and the attributes that it `keeps`, as far as this handle can
    /// see. Nodes that add different keys at the same time may exceed the limits together, by what each of them
    /// added.
    pub(crate) fn check_limits(&self, keep: &Keep) -> Result<(), Error> {
        let now = self.now();
        let kept = self.record.attributes.iter().filter(|attribute| attribute.is_live(now));
        let kept = kept.filter(|attribute| keep.contains(attribute.key()));
        let kept = kept.filter(|attribute| self.changes().get(attribute.key()).is_none());
        let kept = kept.map(|attribute| (attribute.key(), attribute.text()));
        check(&self.record.policy, &self.record.attributes, kept, self.changes())
    }

    /// Checks that `keep` names keys that attributes can have, and not more of them than a session holds.
    pub(crate) fn check_keys(&self, keep: &Keep) -> Result<(), Error> {
        let limits = &self.record.policy.limits;
        keep.named().try_for_each(|key| limits.check_key(key))?;
        limits.check_total(keep.named().map(|key| (key, "")))
    }

    fn put<T: Serialize + ?Sized>(&mut self, key: &str, value: &T, lifetime: Lifetime) -> Result<(), Error> {
        let own = self.own.get_or_insert_default();
        put(&mut own.changes, &self.record.policy, key, value, lifetime)
    }

    fn saved(&self, key: &str) -> Option<Attribute<'_>> {
        let attribute = self.record.attributes.get(key)?;
        // Most attributes never expire: they cost no clock read.
        let live = attribute.expires_at() == DbTime::NEVER || attribute.is_live(self.now());
        live.then_some(attribute)
    }

    fn now(&self) -> DbTime {
        self.record.policy.clock.database_now()
    }
}

/// Encodes and records one value, or leaves `changes` as they were.
pub(crate) fn put<T: Serialize + ?Sized>(
    changes: &mut Changes,
    policy: &Policy,
    key: &str,
    value: &T,
    lifetime: Lifetime,
) -> Result<(), Error> {
    policy.limits.check_key(key)?;
    let text = serde_json::to_string(value).map_err(|error| {
        let message = format!("the value of attribute {key:?} has no JSON form; store another type");
        Error::new(ErrorKind::Encode, message).with_source(error)
    })?;
    policy.limits.check_value(key, &text)?;
    changes.set(key, &text, lifetime.resolve(policy.clock.database_now()));
    Ok(())
}

/// Checks the keys of removals, too, which `put` has not seen, and the totals of what would be held: the changes, and what is
/// `kept` of `attributes`.
pub(crate) fn check<'a>(
    policy: &Policy,
    attributes: &Attributes,
    kept: impl Iterator<Item = (&'a str, &'a str)>,
    changes: &'a Changes,
) -> Result<(), Error> {
    changes.iter().try_for_each(|(key, _)| policy.limits.check_key(key))?;
    let set = changes.iter().filter_map(|(key, change)| match change {
        Change::Set { text, .. } => Some((key, text)),
        Change::Remove => None,
    });
    let count = set.clone().count();
    let bytes: usize = set.clone().map(|(key, text)| key.len() + text.len()).sum();
    if policy.limits.admit(attributes.len() + count, attributes.bytes_max() + bytes) {
        // Even if all of them were kept, so there is no need to look at each.
        return Ok(());
    }
    policy.limits.check_total(kept.chain(set))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .field("user_id", &self.user_id())
            .field("version", &self.version())
            .field("keys", &self.keys())
            .field("modified", &self.is_modified())
            .field("rotated", &self.is_retired())
            .finish_non_exhaustive()
    }
}
