//! A channel's name: validated once, quoted wherever it meets SQL.
//!
//! PostgreSQL silently cuts an identifier at 63 bytes in `LISTEN` but refuses it in `pg_notify`. So
//! a listener on a longer name would receive nothing. Here it is an error before anything is sent.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::error_kind::ErrorKind;

/// The longest name of a channel, in bytes (PostgreSQL's `NAMEDATALEN - 1`).
pub const CHANNEL_BYTES_MAX: usize = 63;

/// A valid name of a channel. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Channel(Arc<str>);

impl Channel {
    pub(crate) fn new(name: &str) -> Result<Self, Error> {
        let trouble = if name.is_empty() {
            "is empty; name the channel".to_owned()
        } else if name.len() > CHANNEL_BYTES_MAX {
            format!("has {} bytes; use at most {CHANNEL_BYTES_MAX}", name.len())
        } else if name.contains('\0') {
            "holds a NUL byte; postgres cannot store one in a name".to_owned()
        } else {
            return Ok(Self(name.into()));
        };
        Err(Error::new(ErrorKind::Channel, format!("channel name {trouble}")))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a quoted SQL identifier: case kept, quotes doubled, nothing left to interpret.
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_limits_are_refused_with_a_reason() {
        for (name, word) in
            [("", "empty"), (&*"x".repeat(64), "64 bytes"), ("a\0b", "NUL"), (&*"é".repeat(32), "64")]
        {
            let error = Channel::new(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Channel);
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(Channel::new(&"x".repeat(63)).is_ok());
    }

    #[test]
    fn quoting_leaves_nothing_to_interpret() {
        let name = Channel::new("a\"; DROP TABLE t; --").unwrap();
        assert_eq!(name.quoted(), "\"a\"\"; DROP TABLE t; --\"");
    }
}
