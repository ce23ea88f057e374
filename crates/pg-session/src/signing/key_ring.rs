//! The keys that are in use at one time: the first signs, all verify.
//!
//! A ring never changes: each step of a rotation makes another one. It holds what was derived from the keys, not the
//! keys. Its last copy overwrites that with zeros when dropped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::purpose::Kind;
use super::signing_key::{KeyError, KeyId, SigningKey};
use super::{Mac, TokenError};

/// The signing keys in use: the first one signs, all of them verify. Cheap to clone; never changes.
///
/// # Rotating
///
/// A node must know a key before another node signs with it. So a rotation that logs no user out has three steps, each
/// done on every node before the next begins:
///
/// 1. The new key is known: [`with_verifying`](Self::with_verifying), or last in [`from_keys`](Self::from_keys).
/// 2. The new key signs: [`with_signing`](Self::with_signing), or first in `from_keys`.
/// 3. The old key is gone: [`without`](Self::without). **What it signed is rejected at once.** Do this after the
///    longest life of a session, or when the key has leaked.
///
/// A single node, or one that may turn users away for the seconds of a rollout, begins with step 2.
/// [`Signer::replace`](crate::Signer::replace) takes each ring at run time.
///
/// ```
/// use pg_session::{KeyRing, SigningKey};
///
/// let (old, new) = (SigningKey::generate()?, SigningKey::generate()?);
/// let ring = KeyRing::new(&old).with_verifying(&new)?;
/// assert_eq!(ring.signing(), old.id());
/// let ring = ring.with_signing(&new)?;
/// assert_eq!(ring.signing(), new.id());
/// let ring = ring.without(old.id())?;
/// assert_eq!(ring.ids().collect::<Vec<_>>(), [new.id()]);
/// # Ok::<(), pg_session::KeyError>(())
/// ```
#[derive(Clone)]
pub struct KeyRing(Arc<Keys>);

/// Never empty, by its type.
struct Keys {
    signing: RingKey,
    others: Vec<RingKey>,
}

/// What a ring keeps of a key.
#[derive(Clone)]
pub(super) struct RingKey {
    id: KeyId,
    /// For purposes that the application names.
    root: Mac,
    /// For session tokens: they are verified with every request.
    session: Mac,
    /// Whether it has verified something since the last report. Rings share it, so that a rotation forgets nothing.
    used: Arc<AtomicBool>,
}

impl KeyRing {
    /// Keys that one ring may have. Each one in use is one more that may leak; a rotation needs three.
    pub const KEYS_MAX: usize = 16;

    /// A ring of one key, which signs and verifies.
    #[must_use]
    pub fn new(key: &SigningKey) -> Self {
        Self(Arc::new(Keys { signing: RingKey::new(key), others: Vec::new() }))
    }

    /// A ring of these keys, as a configuration lists them. The first one signs.
    ///
    /// # Errors
    ///
    /// [`KeyError::Empty`], [`KeyError::TooMany`] above 16 keys, [`KeyError::Duplicate`].
    pub fn from_keys<'a>(keys: impl IntoIterator<Item = &'a SigningKey>) -> Result<Self, KeyError> {
        let mut keys = keys.into_iter();
        let first = Self::new(keys.next().ok_or(KeyError::Empty)?);
        keys.try_fold(first, |ring, key| {
            if ring.contains(key.id()) { Err(KeyError::Duplicate) } else { ring.with_verifying(key) }
        })
    }

    /// The same ring, in which `key` verifies but does not sign; no change if it is in the ring already.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooMany`] above 16 keys.
    pub fn with_verifying(&self, key: &SigningKey) -> Result<Self, KeyError> {
        if self.contains(key.id()) {
            return Ok(self.clone());
        }
        let mut others = self.0.others.clone();
        others.push(RingKey::new(key));
        Self::of(self.0.signing.clone(), others)
    }

    /// The same ring, in which `key` signs, and the one that signed so far verifies.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooMany`] above 16 keys.
    pub fn with_signing(&self, key: &SigningKey) -> Result<Self, KeyError> {
        let others = self.all().filter(|other| other.id != key.id()).cloned().collect();
        Self::of(RingKey::new(key), others)
    }

    /// The same ring without this key; no change if it is not in the ring.
    ///
    /// # Errors
    ///
    /// [`KeyError::Signing`] for the key that signs: another one has to sign first.
    pub fn without(&self, id: KeyId) -> Result<Self, KeyError> {
        if self.signing() == id {
            return Err(KeyError::Signing);
        }
        let others = self.0.others.iter().filter(|key| key.id != id).cloned().collect();
        Self::of(self.0.signing.clone(), others)
    }

    /// The key that signs.
    #[must_use]
    pub fn signing(&self) -> KeyId {
        self.0.signing.id
    }

    /// All keys, the one that signs first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.all().map(|key| key.id)
    }

    /// Whether what this key signed is accepted.
    #[must_use]
    pub fn contains(&self, id: KeyId) -> bool {
        self.ids().any(|known| known == id)
    }

    fn of(signing: RingKey, others: Vec<RingKey>) -> Result<Self, KeyError> {
        if others.len() >= Self::KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        Ok(Self(Arc::new(Keys { signing, others })))
    }

    fn all(&self) -> impl Iterator<Item = &RingKey> {
        std::iter::once(&self.0.signing).chain(&self.0.others)
    }

    /// The key that signs, and a state that was keyed for `kind`.
    pub(super) fn signing_for(&self, kind: Kind) -> (KeyId, Mac) {
        (self.0.signing.id, self.0.signing.keyed(kind))
    }

    /// The key that a token names. The search may take longer for one key than for another: ids are no secrets.
    pub(super) fn verifying(&self, id: KeyId) -> Result<&RingKey, TokenError> {
        self.all().find(|key| key.id == id).ok_or(TokenError::UnknownKey)
    }

    /// All keys, the one that signs first, and whether each has verified something since this was called last.
    pub(super) fn take_uses(&self) -> impl Iterator<Item = (KeyId, bool)> {
        self.all().map(|key| (key.id, key.used.swap(false, Ordering::Relaxed)))
    }
}

impl RingKey {
    fn new(key: &SigningKey) -> Self {
        let root = key.root();
        let session = Kind::SessionToken.keyed(&root);
        Self { id: key.id(), root, session, used: Arc::default() }
    }

    /// The key has verified something. A write for each request would move the line of memory from core to core.
    pub(super) fn note_use(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// A state that was keyed for `kind`.
    pub(super) fn keyed(&self, kind: Kind) -> Mac {
        match kind {
            Kind::SessionToken => self.session.clone(),
            Kind::Message(_) => kind.keyed(&self.root),
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.ids().collect();
        f.debug_struct("KeyRing").field("signing", &self.signing()).field("ids", &ids).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_ring_has_one_to_sixteen_keys_each_once() {
        let keys: Vec<_> = (0..17).map(key).collect();
        assert_eq!(KeyRing::from_keys(&keys[..0]).err(), Some(KeyError::Empty));
        assert_eq!(KeyRing::from_keys(&keys).err(), Some(KeyError::TooMany));
        assert_eq!(KeyRing::from_keys([&keys[0], &keys[1], &keys[0]]).err(), Some(KeyError::Duplicate));
        let full = KeyRing::from_keys(&keys[..KeyRing::KEYS_MAX]).unwrap();
        assert_eq!(full.ids().collect::<Vec<_>>(), keys[..16].iter().map(SigningKey::id).collect::<Vec<_>>());
        assert_eq!(full.with_verifying(&keys[16]).err(), Some(KeyError::TooMany));
        assert_eq!(full.with_signing(&keys[16]).err(), Some(KeyError::TooMany));
        // Neither adds a key.
        assert_eq!(full.with_signing(&keys[5]).unwrap().ids().count(), KeyRing::KEYS_MAX);
        assert_eq!(full.with_verifying(&keys[5]).unwrap().ids().count(), KeyRing::KEYS_MAX);
    }

    #[test]
    fn the_key_that_signs_cannot_be_removed() {
        let ring = KeyRing::from_keys([&key(1), &key(2)]).unwrap();
        assert_eq!(ring.without(key(1).id()).err(), Some(KeyError::Signing));
        let ring = ring.without(key(2).id()).unwrap();
        assert_eq!(ring.ids().collect::<Vec<_>>(), [key(1).id()]);
        assert_eq!(ring.without(key(3).id()).unwrap().ids().count(), 1);
    }
}
