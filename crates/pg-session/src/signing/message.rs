//! Messages that an application signs for a purpose of its own.
//!
//! ```text
//! 0x21 (1) · key id (4) · end (8) · the message · HMAC-SHA256 (32)
//! ```
//!
//! The purpose is in the key, not in the text. The end is in whole seconds since 1970, big-endian, all ones for "never".

use std::fmt;
use std::time::{Duration, SystemTime};

use super::encoding::{take, unix_seconds};
use super::envelope::{ENVELOPE_BYTES, open, seal};
use super::purpose::Kind;
use super::{KeyRing, Purpose, TokenError};

/// See [`Signer::MESSAGE_BYTES_MAX`](crate::Signer::MESSAGE_BYTES_MAX).
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The longest signed message, before it becomes text.
pub(super) const SIGNED_BYTES_MAX: usize = ENVELOPE_BYTES + 8 + MESSAGE_BYTES_MAX;

pub(super) fn sign(
    ring: &KeyRing,
    purpose: Purpose,
    message: &[u8],
    valid_for: Duration,
    now: SystemTime,
) -> Result<Vec<u8>, MessageTooLong> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(MessageTooLong);
    }
    let ends_at = ends_at(now, valid_for).to_be_bytes();
    Ok(seal(ring, Kind::Message(purpose), &[&ends_at, message]))
}

/// The end counts only once the signature has proved it.
pub(super) fn verify<'a>(
    ring: &KeyRing,
    purpose: Purpose,
    signed: &'a [u8],
    now: SystemTime,
) -> Result<&'a [u8], TokenError> {
    if signed.len() > SIGNED_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let (_, mut body) = open(ring, Kind::Message(purpose), signed)?;
    let ends_at = u64::from_be_bytes(take(&mut body)?);
    if ends_at != u64::MAX && unix_seconds(now) >= ends_at { Err(TokenError::Expired) } else { Ok(body) }
}

/// Rounded up, so that a message lives at least as long as was asked for.
fn ends_at(now: SystemTime, valid_for: Duration) -> u64 {
    let part_of_a_second = u64::from(valid_for.subsec_nanos() > 0);
    unix_seconds(now).saturating_add(valid_for.as_secs()).saturating_add(part_of_a_second + 1)
}

/// The message is longer than [`Signer::MESSAGE_BYTES_MAX`](crate::Signer::MESSAGE_BYTES_MAX).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageTooLong;

impl fmt::Display for MessageTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("message is longer than 64 KiB; sign a reference to it instead")
    }
}

impl std::error::Error for MessageTooLong {}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::SigningKey;
    use super::*;

    const INVITE: Purpose = Purpose::new("invite");

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn message_expires_at_most_two_seconds_late() {
        let ring = KeyRing::new(&SigningKey::from_bytes(&[7; 32]).unwrap());
        for (now, valid_for) in
            [(0, 0), (999, 1), (1_000, 1), (1_000, 1_000), (1_999, 999), (123_456, 60_000)]
        {
            let signed = sign(&ring, INVITE, b"hello", Duration::from_millis(valid_for), at(now)).unwrap();
            let read = |millis| verify(&ring, INVITE, &signed, at(millis));
            assert_eq!(read(now), Ok(b"hello".as_slice()));
            assert_eq!(read(now + valid_for), Ok(b"hello".as_slice()));
            assert_eq!(read(now + valid_for + 2_000), Err(TokenError::Expired));
        }
    }

    #[test]
    fn a_message_without_an_end_never_expires() {
        let ring = KeyRing::new(&SigningKey::from_bytes(&[7; 32]).unwrap());
        let signed = sign(&ring, INVITE, b"", Duration::MAX, at(1)).unwrap();
        assert_eq!(verify(&ring, INVITE, &signed, at(u64::MAX / 1_000)), Ok(b"".as_slice()));
    }

    #[test]
    fn expired_message_with_wrong_signature_is_not_expired() {
        let ring = KeyRing::new(&SigningKey::from_bytes(&[7; 32]).unwrap());
        let mut signed = sign(&ring, INVITE, b"hello", Duration::ZERO, at(0)).unwrap();
        signed[12] ^= 1;
        assert_eq!(verify(&ring, INVITE, &signed, at(1_000_000)), Err(TokenError::BadSignature));
    }
}
