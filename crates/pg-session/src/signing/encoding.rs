//! Bytes as text and as fields: canonical base64url without padding (RFC 4648, section 5), and nothing else.
//!
//! One value has one spelling: padding, the other alphabet, white space and bits beyond the last byte are refused.
//! Otherwise a token that was blocked could come back in another spelling.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::TokenError;

/// Characters that `bytes` bytes become.
pub(super) const fn chars(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Exactly `N` bytes, on the stack. The length is looked at before anything else.
pub(super) fn decode_exactly<const N: usize>(text: &str) -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    if text.len() != chars(N) {
        return Err(TokenError::Malformed);
    }
    match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(length) if length == N => Ok(bytes),
        _ => Err(TokenError::Malformed),
    }
}

/// At most `bytes_max` bytes. A longer text is refused unread.
pub(super) fn decode_at_most(text: &str, bytes_max: usize) -> Result<Vec<u8>, TokenError> {
    if text.len() > chars(bytes_max) {
        return Err(TokenError::Malformed);
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)
}

/// The next `N` bytes, taken off the front.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], TokenError> {
    let (field, rest) = bytes.split_first_chunk().ok_or(TokenError::Malformed)?;
    *bytes = rest;
    Ok(*field)
}

/// Whole seconds since 1970, cut off; earlier times count as 1970.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
