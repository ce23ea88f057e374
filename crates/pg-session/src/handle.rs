//! [`Handle`]: the public name of a session, for operators and logs.
//!
//! The view `session_overview` shows the same handles. Keep it in step with `migrations/0001_contract.sql`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind};
use crate::id::SessionId;

const HANDLE_BYTES: usize = 16;

/// The public name of a session: half of the SHA-256 of its id, as 32 hexadecimal digits. It is not secret. No one can log in
/// with it, and no one can compute the id from it.
///
/// Its first eight digits are those that `Debug` of a [`SessionId`] shows in logs. A session has a new handle after a
/// rotation, as it has a new id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle([u8; HANDLE_BYTES]);

impl Handle {
    /// Digits that [`find`](crate::SessionManager::find) needs at least. Logs show as many.
    pub const DIGITS_MIN: usize = 8;
    /// Digits of a handle.
    pub const DIGITS: usize = 2 * HANDLE_BYTES;

    /// Checks the first digits of a handle.
    pub(crate) fn check_digits(digits: &str) -> Result<(), Error> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if (Self::DIGITS_MIN..=Self::DIGITS).contains(&digits.len()) && digits.bytes().all(is_digit) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "a handle is {} to {} digits of 0-9 and a-f; take it from a listing or a log, never a session id",
                Self::DIGITS_MIN,
                Self::DIGITS
            ),
        ))
    }
}

impl From<SessionId> for Handle {
    fn from(id: SessionId) -> Self {
        let digest = Sha256::digest(id.expose().as_bytes());
        let mut bytes = [0; HANDLE_BYTES];
        bytes.copy_from_slice(&digest[..HANDLE_BYTES]);
        Self(bytes)
    }
}

impl SessionId {
    /// The session's public name.
    #[must_use]
    pub fn handle(self) -> Handle {
        Handle::from(self)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({self})")
    }
}

impl Serialize for Handle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Parses all 32 digits, in lower case.
impl FromStr for Handle {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::check_digits(text)?;
        let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == Self::DIGITS);
        let number = number.ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("a whole handle has {} digits", Self::DIGITS))
        })?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_read_as_it_is_shown() {
        let id = SessionId::random();
        let handle = id.handle();
        let shown = handle.to_string();
        assert_eq!(shown.parse::<Handle>().unwrap(), handle);
        assert_eq!(format!("{id:?}"), format!("SessionId(#{})", &shown[..Handle::DIGITS_MIN]));
        assert!(!shown.contains(&id.expose().simple().to_string()[..8]));
        for wrong in
            ["", "1234567", &shown[..31], &shown.to_uppercase().replace('0', "G"), &id.expose().to_string()]
        {
            assert!(wrong.parse::<Handle>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_session_id_is_no_handle() {
        let id = SessionId::random().expose();
        assert!(Handle::check_digits(&id.to_string()).is_err());
        assert!(Handle::check_digits("0123abcd").is_ok());
    }
}
