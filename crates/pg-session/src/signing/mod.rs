//! What a client holds: signed tokens, the keys that sign them, and the one way in which bytes become text.
//!
//! ```text
//! SigningKey ──▶ KeyRing ──▶ Signer ── issue ─────────▶ SessionToken (the cookie's value)
//!                               ▲  └── sign_message ──▶ any other message, for one Purpose
//!                            replace
//! ```
//!
//! Pure: no I/O, no async, no query. A bad token is turned away here, before anything asks the database. There is no
//! fallback: what one path rejects, no other path accepts. [`VersionedId`] is the one thing here that is not signed.

mod encoding;
mod envelope;
mod key_ring;
mod key_uses;
mod message;
mod purpose;
mod signer;
mod signing_key;
mod token;
mod token_error;
mod versioned_id;

#[cfg(test)]
mod tests;

pub use key_ring::KeyRing;
pub(crate) use key_uses::{KeyUse, KeyUses};
pub use message::MessageTooLong;
pub use purpose::Purpose;
pub use signer::Signer;
pub use signing_key::{KeyError, KeyId, SigningKey};
pub use token::{SessionToken, Verified};
pub use token_error::TokenError;
pub use versioned_id::VersionedId;

use hmac::Hmac;
use sha2::Sha256;

/// A keyed state, ready to be cloned for each token. It overwrites itself with zeros when it is dropped (the
/// `zeroize` features of `hmac` and `sha2`).
type Mac = Hmac<Sha256>;

/// HMAC-SHA256, whole: nothing is cut off.
const MAC_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
