//! The token that a client holds for a session, and what a valid one says.
//!
//! ```text
//! 0x11 (1) · key id (4) · session id (16) · session version (8) · time of issue (8) · HMAC-SHA256 (32) = 69 bytes
//! ```
//!
//! Numbers are big-endian, the version signed, the time in whole seconds since 1970. 69 bytes are exactly 92
//! characters of base64url, so no two texts of that length mean the same bytes.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::encoding::{chars, decode_exactly, encode, take, unix_seconds};
use super::envelope::{ENVELOPE_BYTES, open, seal};
use super::purpose::Kind;
use super::{KeyId, KeyRing, TokenError};
use crate::id::SessionId;
use crate::version::Version;

const TOKEN_BYTES: usize = ENVELOPE_BYTES + 16 + 8 + 8;

/// A signed session token: the value of the session cookie. From [`Signer::issue`](crate::Signer::issue).
///
/// **Its holder is logged in.** So it has no `Display`, and its `Debug` shows nothing of it.
///
/// Without the key it can be guessed with a probability of 2⁻²⁵⁶, whatever is known of the
/// session's id. The signature is part of the secret, and an id from a table or a log is useless
/// without it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionToken(String);

impl SessionToken {
    /// Characters of a token, always: 92, of the 4 096 bytes that a cookie may have with its name.
    pub const CHARS: usize = chars(TOKEN_BYTES);

    /// The text for the cookie: [`CHARS`](Self::CHARS) characters of `A-Z a-z 0-9 - _`. The name is a warning: do not log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text for the cookie, without a copy. The same warning holds.
    #[must_use]
    pub fn expose_into(self) -> String {
        self.0
    }

    pub(super) fn issue(ring: &KeyRing, id: SessionId, version: Version, issued_at: SystemTime) -> Self {
        let signed = seal(
            ring,
            Kind::SessionToken,
            &[id.expose().as_bytes(), &version.get().to_be_bytes(), &unix_seconds(issued_at).to_be_bytes()],
        );
        Self(encode(&signed))
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(redacted)")
    }
}

impl KeyId {
    /// The key that a token names, **unverified**: for an operator who looks for the right key. `None` for a text that is no
    /// session token.
    #[must_use]
    pub fn of_token(token: &str) -> Option<Self> {
        let bytes: [u8; TOKEN_BYTES] = decode_exactly(token).ok()?;
        let mut rest = &bytes[..];
        let format: [u8; 1] = take(&mut rest).ok()?;
        let id = take(&mut rest).ok()?;
        (format == [Kind::SessionToken.format()]).then(|| Self::from_bytes(id))
    }
}

/// What an authentic session token says. It exists only where the signature was right.
///
/// It says that this session was handed to this client once. **Whether the session still lives, only the manager
/// knows**: get it with the id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Verified {
    /// The session.
    pub id: SessionId,
    /// The session's version when the token was issued: no node that answers this client may know less.
    pub version: Version,
    /// When the token was issued, by the clock of the node that did; whole seconds.
    pub issued_at: SystemTime,
    /// The key that signed it. Where it is not [the one that signs now](KeyRing::signing), a new token lets the old key go.
    pub key: KeyId,
}

impl Verified {
    pub(super) fn read(ring: &KeyRing, token: &str) -> Result<Self, TokenError> {
        let bytes: [u8; TOKEN_BYTES] = decode_exactly(token)?;
        let (key, mut body) = open(ring, Kind::SessionToken, &bytes)?;
        let id = SessionId::from_uuid(uuid::Uuid::from_bytes(take(&mut body)?));
        let version = Version::new(i64::from_be_bytes(take(&mut body)?));
        let issued_at = Duration::from_secs(u64::from_be_bytes(take(&mut body)?));
        // Out of this machine's reach only if another kind of machine signed it.
        let issued_at = UNIX_EPOCH.checked_add(issued_at).ok_or(TokenError::Malformed)?;
        Ok(Self { id, version, issued_at, key })
    }
}
