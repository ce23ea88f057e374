//! The one way in which this library signs, and the one way in which it verifies.
//!
//! ```text
//! kind and format (1) · key id (4) · body · HMAC-SHA256 of all that, whole (32)
//! ```
//!
//! The key of the MAC is derived for the kind and its purpose. The body is reachable only through [`open`].

use hmac::Mac as _;

use super::encoding::take;
use super::purpose::Kind;
use super::{KEY_ID_BYTES, KeyId, KeyRing, MAC_BYTES, TokenError};

/// Bytes around the body.
pub(super) const ENVELOPE_BYTES: usize = 1 + KEY_ID_BYTES + MAC_BYTES;

/// Signs the body, which is given in parts, with the ring's first key.
pub(super) fn seal(ring: &KeyRing, kind: Kind, body: &[&[u8]]) -> Vec<u8> {
    let (id, mut mac) = ring.signing_for(kind);
    let body_bytes: usize = body.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + body_bytes);
    bytes.push(kind.format());
    bytes.extend_from_slice(&id.to_bytes());
    for part in body {
        bytes.extend_from_slice(part);
    }
    mac.update(&bytes);
    bytes.extend_from_slice(&mac.finalize().into_bytes());
    bytes
}

/// The key and the body, if it was signed for `kind` with a key of the ring. The signatures are compared in constant time.
pub(super) fn open<'a>(ring: &KeyRing, kind: Kind, bytes: &'a [u8]) -> Result<(KeyId, &'a [u8]), TokenError> {
    let (signed, signature) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(TokenError::Malformed)?;
    let mut body = signed;
    if take(&mut body)? != [kind.format()] {
        return Err(TokenError::Malformed);
    }
    let id = KeyId::from_bytes(take(&mut body)?);
    let key = ring.verifying(id)?;
    let mut mac = key.keyed(kind);
    mac.update(signed);
    mac.verify_slice(signature).map_err(|_| TokenError::BadSignature)?;
    key.note_use();
    Ok((id, body))
}
