//! What an application signs and verifies with. Holds the key ring of the moment, and nothing else.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::encoding::{decode_at_most, encode};
use super::message::{self, SIGNED_BYTES_MAX};
use super::{KeyError, KeyRing, MessageTooLong, Purpose, SessionToken, SigningKey, TokenError, Verified};
use crate::clock::wall_now;
use crate::id::SessionId;
use crate::version::Version;

/// Signs and verifies session tokens and messages with the keys of a [`KeyRing`].
///
/// Clones share the ring, so that [`replace`](Self::replace) rotates the keys of all of them while they are in use.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use pg_session::{KeyRing, Purpose, TokenError, SessionId, Signer, SigningKey, Version};
///
/// let signer = Signer::new(KeyRing::new(&SigningKey::generate()?));
///
/// // The cookie. In an application, id and version are the session's.
/// let id: SessionId = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse()?;
/// let token = signer.issue(id, Version::FIRST);
/// let verified = signer.verify(token.expose())?;
/// assert_eq!((verified.id, verified.version), (id, Version::FIRST));
/// assert_eq!(signer.verify("anything else"), Err(TokenError::Malformed));
///
/// // Something else that has to come back unchanged.
/// const RESET: Purpose = Purpose::new("password-reset");
/// // In an application, `SessionManager::database_time`, which is the same on all nodes.
/// let now = SystemTime::now();
/// let link = signer.sign_message(RESET, b"user 42", Duration::from_secs(15 * 60), now)?;
/// assert_eq!(signer.verify_message(RESET, &link, now)?, b"user 42");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Cost
///
/// No query, whatever the outcome. Verifying a session token takes two blocks of SHA-256 and no allocation.
/// A message derives the key of its purpose each time, which takes about twice as long.
/// `cargo run --release --example signed_tokens` measures both.
#[derive(Clone)]
pub struct Signer {
    /// Swapped as a whole. A lock, even one for readers, would be written to by every request of every core.
    ring: Arc<ArcSwap<KeyRing>>,
}

impl Signer {
    /// The longest message that is signed: 64 KiB. (A cookie holds some 3 000 bytes, a URL about 1 500.)
    pub const MESSAGE_BYTES_MAX: usize = message::MESSAGE_BYTES_MAX;

    /// Signs with the ring's first key, verifies with all of them.
    #[must_use]
    pub fn new(ring: KeyRing) -> Self {
        Self { ring: Arc::new(ArcSwap::from_pointee(ring)) }
    }

    /// Signs and verifies with one key, as [`SigningKey::from_base64`] reads it.
    ///
    /// # Errors
    /// As [`SigningKey::from_base64`].
    pub fn from_base64(key: &str) -> Result<Self, KeyError> {
        SigningKey::from_base64(key).map(Self::from)
    }

    /// Goes on with another ring, for all clones of this signer. When this returns, every call that begins later, on any
    /// thread, uses the new ring: **what a removed key signed is rejected from here on.**
    ///
    /// [`KeyRing`] says how to rotate keys without logging users out.
    pub fn replace(&self, ring: KeyRing) {
        self.ring.store(Arc::new(ring));
    }

    /// The ring in use.
    #[must_use]
    pub fn ring(&self) -> KeyRing {
        KeyRing::clone(&self.ring.load())
    }

    /// A token for this session, issued now by this machine's clock: the value of its cookie. The time says nothing about the
    /// life of the session. [`issue_at`](Self::issue_at) takes the database's clock.
    ///
    /// The version lets every node answer this client with what the client has seen at least. Issue a new token
    /// after an update where that matters; the older one stays valid.
    #[must_use]
    pub fn issue(&self, id: SessionId, version: Version) -> SessionToken {
        self.issue_at(id, version, wall_now())
    }

    /// The same with another time of issue, for applications that keep a clock of their own; whole seconds, 1970 at the
    /// earliest.
    #[must_use]
    pub fn issue_at(&self, id: SessionId, version: Version, issued_at: SystemTime) -> SessionToken {
        SessionToken::issue(&self.ring.load(), id, version, issued_at)
    }

    /// What the token says, if a key of the ring signed exactly this text as a session token.
    ///
    /// # Errors
    ///
    /// [`TokenError`], with nothing of the token in it. Never [`TokenError::Expired`]: how long a session lives is decided by
    /// the database.
    pub fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        Verified::read(&self.ring.load(), token)
    }

    /// Signs a message as text, for a cookie, a link or a form: base64url, 45 bytes and a third longer than the message.
    ///
    /// It is valid for at least `valid_for` from `now`, and up to two seconds more; `Duration::MAX` is for ever. Take `now` from
    /// [`SessionManager::database_time`](crate::SessionManager::database_time), which is the same on all nodes. The clock of a
    /// machine may be wrong. **Its holder can read the message**: it is signed, not encrypted. It can be presented more than once.
    ///
    /// # Errors
    ///
    /// [`MessageTooLong`] above [`MESSAGE_BYTES_MAX`](Self::MESSAGE_BYTES_MAX).
    pub fn sign_message(
        &self,
        purpose: Purpose,
        message: &[u8],
        valid_for: Duration,
        now: SystemTime,
    ) -> Result<String, MessageTooLong> {
        Ok(encode(&self.sign_message_bytes(purpose, message, valid_for, now)?))
    }

    /// The message, if a key of the ring signed this text for this purpose and it has not expired at `now`; see
    /// [`sign_message`](Self::sign_message).
    ///
    /// # Errors
    ///
    /// [`TokenError`], with nothing of the message in it.
    pub fn verify_message(
        &self,
        purpose: Purpose,
        signed: &str,
        now: SystemTime,
    ) -> Result<Vec<u8>, TokenError> {
        let signed = decode_at_most(signed, SIGNED_BYTES_MAX)?;
        self.verify_message_bytes(purpose, &signed, now).map(<[u8]>::to_vec)
    }

    /// As [`sign_message`](Self::sign_message), without the encoding: for transports that take any byte.
    ///
    /// # Errors
    ///
    /// [`MessageTooLong`] above [`MESSAGE_BYTES_MAX`](Self::MESSAGE_BYTES_MAX).
    pub fn sign_message_bytes(
        &self,
        purpose: Purpose,
        message: &[u8],
        valid_for: Duration,
        now: SystemTime,
    ) -> Result<Vec<u8>, MessageTooLong> {
        message::sign(&self.ring.load(), purpose, message, valid_for, now)
    }

    /// As [`verify_message`](Self::verify_message), for what [`sign_message_bytes`](Self::sign_message_bytes) made. The
    /// message is a part of `signed`.
    ///
    /// # Errors
    ///
    /// [`TokenError`], with nothing of the message in it.
    pub fn verify_message_bytes<'a>(
        &self,
        purpose: Purpose,
        signed: &'a [u8],
        now: SystemTime,
    ) -> Result<&'a [u8], TokenError> {
        message::verify(&self.ring.load(), purpose, signed, now)
    }
}

/// Signs and verifies with this key only.
impl From<SigningKey> for Signer {
    fn from(key: SigningKey) -> Self {
        Self::new(KeyRing::new(&key))
    }
}

/// The ids of the keys; no key.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("ring", &*self.ring.load()).finish()
    }
}
