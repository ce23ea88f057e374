//! Identifiers: sessions, users and groups.
//!
//! A [`SessionId`] is made only here, from the operating system's random numbers. It is a capability: whoever
//! holds it holds the session, so it has no `Display` and its `Debug` shows a fingerprint that cannot be used
//! to log in. User and group ids are not secret.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};

/// The id of a session: a random (version 4) UUID with 122 unpredictable bits.
///
/// **Treat it like a password.** `Debug` prints the first four bytes of its SHA-256, enough to follow one
/// session through a log and useless to anyone who reads the log. Use [`expose`](SessionId::expose) where the
/// real value is needed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

impl SessionId {
    /// A fresh id from the operating system's random number generator.
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id as a UUID. The name is a warning: do not log it.
    #[must_use]
    pub fn expose(self) -> Uuid {
        self.0
    }

    /// Takes a UUID that a client or another system presented as a session id.
    ///
    /// Nothing is created by this: a session exists only if the database says so.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Sixty-four of the id's random bits, to choose a shard, a stripe or a lane.
    pub(crate) fn spread(self) -> usize {
        let (_, low) = self.0.as_u64_pair();
        // A truncation to `usize` on 32-bit machines still leaves random bits.
        #[allow(clippy::cast_possible_truncation)]
        let spread = low as usize;
        spread
    }
}

/// Parses the canonical form only: 36 characters, lower case, hyphens in place. One session has one spelling.
impl FromStr for SessionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || {
            Error::new(
                ErrorKind::Malformed,
                "session id is not a lower-case hyphenated UUID; pass it as issued",
            )
        };
        let uuid = Uuid::try_parse(text).map_err(|_| malformed())?;
        let mut canonical = Uuid::encode_buffer();
        if uuid.hyphenated().encode_lower(&mut canonical) != text {
            return Err(malformed());
        }
        Ok(Self(uuid))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = Sha256::digest(self.0.as_bytes());
        write!(f, "SessionId(#{:02x}{:02x}{:02x}{:02x})", digest[0], digest[1], digest[2], digest[3])
    }
}

/// Marks UUIDs made from integers and texts: `pgsess` in ASCII, where version 8 leaves the bits free (RFC 9562, 5.8).
const MAPPED_PREFIX: [u8; 6] = *b"pgsess";

macro_rules! owner_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// The column holds a UUID. Applications with other keys map them deterministically: an integer is
        /// embedded and comes back with [`as_integer`](Self::as_integer); a text becomes 121 bits of its SHA-256
        /// and does not come back. The three sources cannot collide with each other, unless an application
        /// makes its own version-8 UUIDs that begin with `pgsess`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id as the UUID that stands in the table.
            #[must_use]
            pub fn as_uuid(self) -> Uuid {
                self.0
            }

            /// The integer that this id was made from, if it was made from one.
            #[must_use]
            pub fn as_integer(self) -> Option<i64> {
                integer_of(self.0)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<i64> for $name {
            fn from(number: i64) -> Self {
                Self(uuid_of_integer(number))
            }
        }

        impl From<i32> for $name {
            fn from(number: i32) -> Self {
                Self(uuid_of_integer(number.into()))
            }
        }

        impl From<u32> for $name {
            fn from(number: u32) -> Self {
                Self(uuid_of_integer(number.into()))
            }
        }

        /// Hashes the text as it is: `"Ann"` and `"ann"` are two ids, and a UUID in text form is hashed like any
        /// other text (parse it first where it is meant as a UUID).
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(uuid_of_text(text))
            }
        }
    };
}

owner_id! {
    /// The user whom a session belongs to.
    UserId
}

owner_id! {
    /// A group of sessions that are listed and ended together: a device, a tenant, an application.
    GroupId
}

/// Layout: 48 bits of prefix, version 8, a zero bit (integer), 9 zero bits, two high bits of the integer;
/// then the variant and the 62 low bits.
fn uuid_of_integer(number: i64) -> Uuid {
    let bits = number.to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&MAPPED_PREFIX);
    bytes[6] = 0x80;
    bytes[7] = bits[0] >> 6;
    bytes[8..].copy_from_slice(&bits);
    bytes[8] = 0x80 | (bits[0] & 0x3f);
    Uuid::from_bytes(bytes)
}

fn integer_of(uuid: Uuid) -> Option<i64> {
    let bytes = uuid.as_bytes();
    if bytes[..6] != MAPPED_PREFIX || bytes[6] != 0x80 || bytes[7] > 3 || bytes[8] & 0xc0 != 0x80 {
        return None;
    }
    let mut bits = [0; 8];
    bits.copy_from_slice(&bytes[8..]);
    bits[0] = (bytes[7] << 6) | (bytes[8] & 0x3f);
    Some(i64::from_be_bytes(bits))
}

/// As a version-8 UUID of the digest, with the bit set that tells a text from an integer.
fn uuid_of_text(text: &str) -> Uuid {
    let digest =
        Sha256::new().chain_update(b"pg-session/text-id/1\0").chain_update(text.as_bytes()).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = 0x88 | (bytes[6] & 0x07);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    Uuid::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back_and_never_look_like_texts() {
        for number in [0, 1, -1, 42, i64::MAX, i64::MIN, 0x3fff_ffff_ffff_ffff, -0x4000_0000_0000_0001] {
            let id = UserId::from(number);
            assert_eq!(id.as_integer(), Some(number));
            assert_eq!(id.as_uuid().get_version_num(), 8);
            assert_ne!(id, UserId::from(number.to_string().as_str()));
        }
        assert_eq!(UserId::from(Uuid::new_v4()).as_integer(), None);
        assert_eq!(UserId::from("42").as_integer(), None);
    }

    #[test]
    fn texts_map_to_one_id_each() {
        assert_eq!(UserId::from("ann"), UserId::from("ann"));
        assert_ne!(UserId::from("ann"), UserId::from("Ann"));
        assert_ne!(UserId::from("").as_uuid(), Uuid::nil());
    }

    #[test]
    fn debug_of_a_session_id_does_not_contain_it() {
        let id = SessionId::random();
        let shown = format!("{id:?}");
        let plain = id.expose().simple().to_string();
        assert!(!shown.contains(&plain[..8]), "{shown}");
        assert_eq!(shown.len(), "SessionId(#00000000)".len());
    }

    #[test]
    fn only_the_canonical_spelling_parses() {
        let id = SessionId::random();
        let text = id.expose().to_string();
        assert_eq!(text.parse::<SessionId>().ok(), Some(id));
        for wrong in [
            text.to_uppercase(),
            text.replace('-', ""),
            format!("{{{text}}}"),
            format!("{text} "),
            String::new(),
        ] {
            assert!(wrong.parse::<SessionId>().is_err() || wrong == text, "{wrong:?}");
        }
    }
}
