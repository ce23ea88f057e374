//! What the fuzz targets do with an input: read it as the library does, and check what holds for any input.
//!
//! ```text
//! cargo install cargo-fuzz
//! cd crates/pg-session && cargo +nightly fuzz run session_token      # or signed_message, versioned_id, notification,
//!                                                                   # cookie_header, forwarded_header
//! ```
//!
//! The tests in `tests/it` take this file in as well and run the checked-in corpus through it, so that each ordinary run
//! covers what fuzzing has taught. Each function says whether the library accepted the input, and panics where a
//! promise is broken. A file of the corpus whose name begins with `accepted` or `rejected` has to be just that.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use pg_session::{KeyRing, Purpose, Signer, SigningKey, TokenError, Version, VersionedId};

/// Its tokens are in the corpus. It has the key of the known answers in `src/signing/tests.rs`, bytes 0 to 31.
#[allow(clippy::expect_used, reason = "32 bytes are a key")]
static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let bytes: Vec<u8> = (0..32).collect();
    Signer::new(KeyRing::new(&SigningKey::from_bytes(&bytes).expect("32 bytes are a key")))
});

const PURPOSE: Purpose = Purpose::new("password-reset");
/// After the end of the expired message in the corpus.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A session token from a cookie. What is accepted has exactly the spelling in which it was issued.
pub fn session_token(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    match SIGNER.verify(text) {
        Ok(verified) => {
            let issued = SIGNER.issue_at(verified.id, verified.version, verified.issued_at);
            assert_eq!(issued.expose(), text);
            true
        }
        Err(rejected) => {
            assert_ne!(rejected, TokenError::Expired);
            false
        }
    }
}

/// A signed message as text and as bytes: both roads agree. Then the input as a message. It comes
/// back whole. One changed byte is noticed; the first three bytes of the input say where and how.
pub fn signed_message(input: &[u8]) -> bool {
    let accepted =
        std::str::from_utf8(input).is_ok_and(|text| SIGNER.verify_message(PURPOSE, text, now()).is_ok());
    if SIGNER.verify_message_bytes(PURPOSE, input, now()).is_ok() {
        assert!(!accepted, "the first byte of one is not a character of the other");
    }
    let signed = SIGNER.sign_message_bytes(PURPOSE, input, Duration::MAX, now());
    let Ok(mut signed) = signed else { return accepted };
    assert_eq!(SIGNER.verify_message_bytes(PURPOSE, &signed, now()), Ok(input));
    if let [high, low, change, ..] = *input
        && change != 0
    {
        let at = usize::from(u16::from_be_bytes([high, low])) % signed.len();
        signed[at] ^= change;
        assert!(SIGNER.verify_message_bytes(PURPOSE, &signed, now()).is_err());
    }
    accepted
}

/// An unsigned id with its version. What is accepted has one spelling, and a version that a session can have.
pub fn versioned_id(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let Ok(pair) = text.parse::<VersionedId>() else { return false };
    assert_eq!(pair.encode(), text);
    assert!(pair.version >= Version::FIRST && pair.version.get() < i64::MAX);
    true
}

/// The payload of a notification. It is bounded, and begins with the version of its format.
pub fn notification(input: &[u8]) -> bool {
    let Ok(payload) = std::str::from_utf8(input) else { return false };
    let accepted = pg_session::testing::parse_notification(payload);
    if accepted {
        assert!(payload.len() < 8_000 && payload.starts_with(|char: char| char.is_ascii_digit()));
    }
    accepted
}
