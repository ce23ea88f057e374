//! Identifiers: sessions, users and groups.
//!
//! A [`SessionId`] is made only here, from the operating system's random numbers. It is a
//! capability: a client that holds it holds the session. So it has no `Display`, and its `Debug`
//! shows a fingerprint that cannot be used to log in. User and group ids are not secret.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};

/// The id of a session: a random (version 4) UUID with 122 unpredictable bits.
///
/// **Treat it like a password.** `Debug` prints the first four bytes of its SHA-256: enough to follow a session
/// through a log, useless for signing in. Use [`expose`](SessionId::expose) where the real value is needed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

impl SessionId {
    /// The bounds of a range of ids.
    pub(crate) const MIN: Self = Self(Uuid::nil());
    pub(crate) const MAX: Self = Self(Uuid::max());

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
    pub const fn from_uuid(uuid: Uuid) -> Self {
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
        /// The column holds a UUID. Applications with other keys map them deterministically. An integer is embedded,
        /// and [`as_integer`](Self::as_integer) returns it. [`named`](Self::named) hashes a text, which cannot be read
        /// back. The text of a UUID parses: `"3f2504e0-4f89-41d3-9a0c-0305e82c3301".parse()`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id of a text that is neither a UUID nor a number: 121 bits of its SHA-256.
            ///
            /// The text is hashed as it is: `"Ann"` and `"ann"` are two ids. **The text of a UUID gives another id than
            /// the UUID**: parse it instead. An id from here never equals one from an integer.
            #[must_use]
            pub fn named(text: &str) -> Self {
                Self(uuid_of_text(text))
            }

            /// The id as the UUID that is in the table.
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

        /// The number of an unsigned key. Fails above `i64::MAX`.
        impl TryFrom<u64> for $name {
            type Error = Error;

            fn try_from(number: u64) -> Result<Self, Error> {
                let number = i64::try_from(number).map_err(|_| {
                    Error::new(
                        ErrorKind::InvalidArgument,
                        "an integer id must be at most 9223372036854775807; use a UUID or `named`",
                    )
                })?;
                Ok(Self::from(number))
            }
        }

        /// Parses the text of a UUID, with or without hyphens.
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Uuid::try_parse(text).map(Self).map_err(|_| {
                    Error::new(
                        ErrorKind::InvalidArgument,
                        concat!(
                            "this text is not a UUID; use `",
                            stringify!($name),
                            "::named` for other texts, or `from` for an integer"
                        ),
                    )
                })
            }
        }

        /// Shows the integer that the id was made from, otherwise the UUID.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.as_integer() {
                    Some(number) => write!(f, "{number}"),
                    None => write!(f, "{}", self.0),
                }
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

/// The sessions of a user, of a group, or all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    User(UserId),
    Group(GroupId),
    All,
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
            assert_ne!(id, UserId::named(&number.to_string()));
            assert_eq!(id.to_string(), number.to_string());
        }
        assert_eq!(UserId::from(Uuid::new_v4()).as_integer(), None);
        assert_eq!(UserId::named("42").as_integer(), None);
    }

    #[test]
    fn texts_map_to_one_id_each() {
        assert_eq!(UserId::named("ann"), UserId::named("ann"));
        assert_ne!(UserId::named("ann"), UserId::named("Ann"));
        assert_ne!(UserId::named("").as_uuid(), Uuid::nil());
    }

    #[test]
    fn the_text_of_a_uuid_is_that_uuid() {
        let uuid = Uuid::new_v4();
        assert_eq!(uuid.to_string().parse::<UserId>().unwrap(), UserId::from(uuid));
        assert_eq!(UserId::from(uuid).to_string(), uuid.to_string());
        let error = "ann".parse::<GroupId>().unwrap_err();
        assert!(error.to_string().contains("GroupId::named"), "{error}");
        assert_eq!(UserId::try_from(42_u64).unwrap(), UserId::from(42));
        assert!(UserId::try_from(u64::MAX).is_err());
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
