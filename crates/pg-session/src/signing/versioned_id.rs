//! A session's id together with its version, as one text. **Not signed.**

use std::str::FromStr;

use uuid::Uuid;

use super::TokenError;
use super::encoding::{chars, decode_exactly, encode, take};
use crate::id::SessionId;
use crate::version::Version;

/// The id, then the version (big-endian): 24 bytes, and 32 characters without a bit to spare.
const VERSIONED_ID_BYTES: usize = 16 + 8;

/// A session's id and version in one text, for messages between an application's own services. The
/// receiver gets the session at no older a version than the sender saw.
///
/// **This is not signed.** A client that knows a session's id can write it, and the id in it is the session's secret. In a cookie use
/// [`Signer::issue`](crate::Signer::issue), which carries both and proves where they come from.
///
/// ```
/// use pg_session::{SessionId, Version, VersionedId};
///
/// let id: SessionId = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse()?;
/// let text = VersionedId::new(id, Version::FIRST).encode();
/// assert_eq!(text.len(), 32);
/// assert_eq!(text.parse(), Ok(VersionedId::new(id, Version::FIRST)));
/// # Ok::<(), pg_session::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct VersionedId {
    /// The session.
    pub id: SessionId,
    /// The version of it that was seen.
    pub version: Version,
}

impl VersionedId {
    /// Characters of the text, always.
    pub const CHARS: usize = chars(VERSIONED_ID_BYTES);

    /// This id at this version.
    #[must_use]
    pub fn new(id: SessionId, version: Version) -> Self {
        Self { id, version }
    }

    /// The text: [`CHARS`](Self::CHARS) characters of `A-Z a-z 0-9 - _`. It contains the id: do not log it.
    #[must_use]
    pub fn encode(self) -> String {
        let mut bytes = [0; VERSIONED_ID_BYTES];
        let (id, version) = bytes.split_at_mut(16);
        id.copy_from_slice(self.id.expose().as_bytes());
        version.copy_from_slice(&self.version.get().to_be_bytes());
        encode(&bytes)
    }
}

/// Reads what [`encode`](VersionedId::encode) wrote, and no other spelling of it. A version that no session can have is
/// [`TokenError::Malformed`], like everything else that is wrong.
impl FromStr for VersionedId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes: [u8; VERSIONED_ID_BYTES] = decode_exactly(text)?;
        let mut bytes = bytes.as_slice();
        let id = SessionId::from_uuid(Uuid::from_bytes(take(&mut bytes)?));
        let version = Version::new(i64::from_be_bytes(take(&mut bytes)?));
        // The number is not authenticated: what represents "absent" and "deleted" inside must not come from outside.
        if version < Version::FIRST || version >= Version::DELETED {
            return Err(TokenError::Malformed);
        }
        Ok(Self { id, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_and_its_version_come_back() {
        for version in [1, 2, i64::MAX - 1] {
            let pair = VersionedId::new(SessionId::random(), Version::new(version));
            assert_eq!(pair.encode().parse(), Ok(pair));
        }
    }

    #[test]
    fn versions_that_no_session_has_are_malformed() {
        for version in [0, -1, i64::MIN, i64::MAX] {
            let text = VersionedId::new(SessionId::random(), Version::new(version)).encode();
            assert_eq!(text.parse::<VersionedId>(), Err(TokenError::Malformed), "{version}");
        }
    }

    #[test]
    fn debug_does_not_contain_the_id() {
        let pair = VersionedId::new(SessionId::random(), Version::FIRST);
        let shown = format!("{pair:?}");
        assert!(!shown.contains(&pair.id.expose().simple().to_string()[..8]), "{shown}");
        assert!(!shown.contains(&pair.encode()[..8]), "{shown}");
    }
}
