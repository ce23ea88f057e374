//! What a signature is for: each purpose has keys of its own, so no token can stand in for another.

use hmac::{KeyInit, Mac as _};
use zeroize::Zeroizing;

use super::{MAC_BYTES, Mac};

/// What the messages of [`Signer::sign_message`](crate::Signer::sign_message) are for: `"password-reset"`, `"unsubscribe"`.
///
/// Each purpose signs with a key of its own, derived from the ring's. A message signed for one is a
/// [`BadSignature`](crate::TokenError::BadSignature) to all others and to session tokens. Every
/// text is a purpose; the lifetime keeps out what a request brought along.
///
/// ```
/// use pg_session::Purpose;
///
/// const PASSWORD_RESET: Purpose = Purpose::new("password-reset");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Purpose(&'static str);

impl Purpose {
    /// The purpose with this name. **Renaming it invalidates every message that was signed for it.**
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// What this library signs. No label is a prefix of another kind's. So an application cannot name its purpose like one
/// of the library.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    SessionToken,
    Message(Purpose),
}

impl Kind {
    /// The first byte: the kind in the high four bits, the version of its format in the low ones.
    pub(super) fn format(self) -> u8 {
        match self {
            Self::SessionToken => 0x11,
            Self::Message(_) => 0x21,
        }
    }

    /// A state keyed for this kind only.
    pub(super) fn keyed(self, root: &Mac) -> Mac {
        let key = match self {
            Self::SessionToken => derive(root, "session-token", ""),
            Self::Message(purpose) => derive(root, "message/", purpose.0),
        };
        keyed(key.as_slice())
    }
}

/// `HMAC-SHA256(key, "pg-session/v1/" || label || name)`, where `root` is keyed with the key: the expansion of HKDF in one
/// block. Its extraction (RFC 5869) is left out because a signing key is random already.
pub(super) fn derive(root: &Mac, label: &str, name: &str) -> Zeroizing<[u8; MAC_BYTES]> {
    let mut mac = root.clone();
    for part in ["pg-session/v1/", label, name] {
        mac.update(part.as_bytes());
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// HMAC is defined for keys of any length; the crate's `Result` is that of a trait for all MACs.
#[allow(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
pub(super) fn keyed(key: &[u8]) -> Mac {
    Mac::new_from_slice(key).expect("HMAC takes keys of any length")
}
