//! The secret that an application configures, and the name by which tokens refer to it.
//!
//! A key is only kept here, never used: a `KeyRing` derives from it what signs. Its bytes are overwritten with zeros
//! when it is dropped, and `Debug` shows its id.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use zeroize::Zeroizing;

use super::purpose::{derive, keyed};
use super::{KEY_ID_BYTES, Mac};

/// The characters of the longest key in base64, and as many again for line ends.
const BASE64_CHARS_MAX: usize = SigningKey::BYTES_MAX * 3;

/// A secret from which a [`KeyRing`](crate::KeyRing) signs: 32 to 1 024 **random** bytes.
///
/// Not a password: the holder of one token can try passwords against it as fast as SHA-256 goes. Make a key
/// with `openssl rand -base64 32` or [`generate`](Self::generate), and keep it where the application keeps its other secrets.
///
/// The bytes are overwritten with zeros on drop, and `Debug` shows the [`KeyId`] only. (What the caller read them from,
/// and copies that the compiler made on the stack, are beyond this type's reach.)
#[derive(Clone)]
pub struct SigningKey {
    bytes: Zeroizing<Box<[u8]>>,
    id: KeyId,
}

impl SigningKey {
    /// The fewest bytes of a key: as many as SHA-256 puts out.
    pub const BYTES_MIN: usize = 32;
    /// The most bytes of a key. Beyond 64 they add nothing.
    pub const BYTES_MAX: usize = 1024;

    /// Takes the bytes as they are.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooShort`] below 32 bytes, [`KeyError::TooLong`] above 1 024.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        match bytes.len() {
            length if length < SigningKey::BYTES_MIN => Err(KeyError::TooShort),
            length if length > SigningKey::BYTES_MAX => Err(KeyError::TooLong),
            _ => Ok(Self { bytes: Zeroizing::new(bytes.into()), id: KeyId::of(&keyed(bytes)) }),
        }
    }

    /// Reads base64, as a file or an environment variable holds it: either alphabet, padded or not, with white
    /// space around it. (Tokens are read strictly. A key comes from the operator.)
    ///
    /// # Errors
    ///
    /// [`KeyError::NotBase64`], or as [`from_bytes`](Self::from_bytes).
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        if text.len() > BASE64_CHARS_MAX {
            return Err(KeyError::TooLong);
        }
        let text = text.trim();
        let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
        let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        // Space for all of it beforehand: a growing vector would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(BASE64_CHARS_MAX));
        GeneralPurpose::new(alphabet, lenient)
            .decode_vec(text, &mut bytes)
            .map_err(|_| KeyError::NotBase64)?;
        Self::from_bytes(&bytes)
    }

    /// A new key: 32 bytes from the operating system's random number generator.
    ///
    /// A key that only this process knows logs all users out when it stops. No other node accepts what it signs.
    /// Store it: [`expose_base64`](Self::expose_base64).
    ///
    /// # Errors
    ///
    /// [`KeyError::NoRandomness`] where the operating system has none to give.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; SigningKey::BYTES_MIN]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| KeyError::NoRandomness)?;
        Self::from_bytes(bytes.as_slice())
    }

    /// The name by which tokens refer to this key. Not secret.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The key in base64, to be stored. The name is a warning: **a reader of it can log in as any user**.
    #[must_use]
    pub fn expose_base64(&self) -> String {
        general_purpose::STANDARD.encode(self.bytes.as_ref())
    }

    /// The state from which everything else is derived.
    pub(super) fn root(&self) -> Mac {
        keyed(&self.bytes)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The public name of a [`SigningKey`]: 32 bits derived from it with a MAC. So every node calls a key the same
/// without a setting, and no two keys share a name. It is in each token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; KEY_ID_BYTES]);

impl KeyId {
    fn of(root: &Mac) -> Self {
        let [a, b, c, d, ..] = *derive(root, "key-id", "");
        Self([a, b, c, d])
    }

    pub(super) fn from_bytes(bytes: [u8; KEY_ID_BYTES]) -> Self {
        Self(bytes)
    }

    pub(super) fn to_bytes(self) -> [u8; KEY_ID_BYTES] {
        self.0
    }
}

/// Eight hexadecimal digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Why a key or a ring of keys cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum KeyError {
    /// Fewer than [`BYTES_MIN`](SigningKey::BYTES_MIN) bytes.
    TooShort,
    /// More than [`BYTES_MAX`](SigningKey::BYTES_MAX) bytes.
    TooLong,
    /// The text is not base64.
    NotBase64,
    /// The operating system gave no random numbers.
    NoRandomness,
    /// The ring would have no key.
    Empty,
    /// The ring would have more than [`KEYS_MAX`](crate::KeyRing::KEYS_MAX) keys.
    TooMany,
    /// Two keys of the ring have the same id: they are the same key, or (once in 4 billion) meet by chance.
    Duplicate,
    /// The key is the one that signs, and cannot be taken out before another one signs.
    Signing,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "signing key is shorter than 32 bytes; make one with `openssl rand -base64 32`",
            Self::TooLong => "signing key is longer than 1024 bytes; 32 random bytes are enough",
            Self::NotBase64 => "signing key is not base64; pass it as `openssl rand -base64 32` printed it",
            Self::NoRandomness => {
                "the operating system has no random numbers; pass a key that was made elsewhere"
            }
            Self::Empty => "key ring has no key; pass at least one, the one that signs first",
            Self::TooMany => "key ring has more than 16 keys; remove the oldest ones",
            Self::Duplicate => "key ring has two keys of one id; pass each key once",
            Self::Signing => "the key is the one that signs; let another key sign before removing it",
        })
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shorter_than_32_bytes_is_refused() {
        for length in 0..SigningKey::BYTES_MIN {
            assert_eq!(SigningKey::from_bytes(&vec![7; length]).err(), Some(KeyError::TooShort));
        }
        assert!(SigningKey::from_bytes(&[7; SigningKey::BYTES_MIN]).is_ok());
        assert!(SigningKey::from_bytes(&[7; SigningKey::BYTES_MAX]).is_ok());
        let long = [7; SigningKey::BYTES_MAX + 1];
        assert_eq!(SigningKey::from_bytes(&long).err(), Some(KeyError::TooLong));
        assert_eq!(SigningKey::from_base64("").err(), Some(KeyError::TooShort));
        assert_eq!(SigningKey::from_base64(&"A".repeat(1_000_000)).err(), Some(KeyError::TooLong));
    }

    #[test]
    fn base64_reads_as_the_usual_tools_write_it() {
        // 32 bytes whose base64 holds both characters in which the alphabets differ.
        let bytes: Vec<u8> = (0..16).flat_map(|_| [0xfb, 0xff]).collect();
        let id = SigningKey::from_bytes(&bytes).unwrap().id();
        let padded = general_purpose::STANDARD.encode(&bytes);
        let bare = general_purpose::URL_SAFE_NO_PAD.encode(&bytes);
        assert!(padded.contains(['+', '/']) && padded.ends_with('=') && bare.contains(['-', '_']));
        let line = format!("{padded}\n");
        for text in [padded.as_str(), padded.trim_end_matches('='), bare.as_str(), line.as_str()] {
            assert_eq!(SigningKey::from_base64(text).map(|key| key.id()), Ok(id), "{text:?}");
        }
        let mixed = format!("{}-/", &padded[..41]);
        for text in ["key!", "a b", mixed.as_str()] {
            assert_eq!(SigningKey::from_base64(text).err(), Some(KeyError::NotBase64), "{text:?}");
        }
    }

    #[test]
    fn a_generated_key_is_new_each_time_and_survives_storage() {
        let key = SigningKey::generate().unwrap();
        assert_eq!(SigningKey::from_base64(&key.expose_base64()).unwrap().id(), key.id());
        assert_ne!(SigningKey::generate().unwrap().expose_base64(), key.expose_base64());
    }
}
