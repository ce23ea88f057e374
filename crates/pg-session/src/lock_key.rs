//! What identifies a lock: a name, or a name within a session.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::id::SessionId;
use crate::notification::LockTopic;

/// Longest name and label. Keep in step with `migrations/0001_initial.sql`.
const TEXT_BYTES_MAX: usize = 255;

/// Which lock: a name, or a name within a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LockKey {
    session: Option<SessionId>,
    name: Box<str>,
}

impl LockKey {
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a name that the table does not take.
    pub(crate) fn new(session: Option<SessionId>, name: &str) -> Result<Self, Error> {
        check_text("a lock's name", name)?;
        Ok(Self { session, name: name.into() })
    }

    /// Whether it is a lock of a session that cannot exist: the nil UUID represents "no session" in the table.
    pub(crate) fn has_no_session(&self) -> bool {
        self.session.is_some_and(|session| session.expose().is_nil())
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.session
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn scope(&self) -> Uuid {
        self.session.map_or(Uuid::nil(), SessionId::expose)
    }

    /// By what a notification names this lock: a digest, so that every name fits and none can be read. Two locks with
    /// one digest would wake each other's waiters, nothing more.
    pub(crate) fn topic(&self) -> LockTopic {
        let digest = Sha256::new()
            .chain_update(b"pg-session/lock/1\0")
            .chain_update(self.scope().as_bytes())
            .chain_update(self.name.as_bytes())
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        LockTopic(Uuid::from_bytes(bytes))
    }
}

/// # Errors
/// [`ErrorKind::InvalidArgument`] for a text that the table does not take.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), Error> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.contains('\0') {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{what} must have 1 to {TEXT_BYTES_MAX} bytes and no NUL, not {}; choose another",
                text.len()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_table_does_not_take_are_refused() {
        for name in ["", "a\0b", &"n".repeat(256)] {
            assert_eq!(LockKey::new(None, name).unwrap_err().kind(), ErrorKind::InvalidArgument, "{name:?}");
        }
        for name in ["a", "'; DROP TABLE sessions; --", "nächtlich", &"n".repeat(255)] {
            assert_eq!(LockKey::new(None, name).unwrap().name(), name);
        }
    }

    #[test]
    fn locks_with_and_without_a_session_wake_different_waiters() {
        let (a, b) = (SessionId::random(), SessionId::random());
        let topics = [None, Some(a), Some(b)].map(|session| LockKey::new(session, "x").unwrap().topic());
        assert!(topics[0] != topics[1] && topics[1] != topics[2] && topics[0] != topics[2]);
        assert_ne!(topics[0], LockKey::new(None, "y").unwrap().topic());
    }
}
