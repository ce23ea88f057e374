//! Why a token was turned away.

use std::fmt;

/// Why a token or a message was turned away. Nothing of what it claims can be used.
///
/// For metrics and logs. **Answer the client alike in every case**, as if it had sent nothing: it has no use for the
/// reason. None of the texts repeats any part of the input.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TokenError {
    /// The length, an encoding or the format is not what this library issues. Nothing was computed over it.
    Malformed,
    /// It names a key that is not in the ring: one that was removed, or never was. Many of these after a rotation: a
    /// key was removed too early, or a node does not know the new one.
    UnknownKey,
    /// The signature does not belong to it: it was changed, signed for another purpose, or made up.
    BadSignature,
    /// It is authentic, and its time is over. Only messages have an end of their own; a session's is in the database.
    Expired,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is malformed; treat the client as one without a token",
            Self::UnknownKey => {
                "the token names a key that is not in the key ring; treat the client as one without a token"
            }
            Self::BadSignature => "the token's signature is wrong; treat the client as one without a token",
            Self::Expired => "the message has expired; issue a new one",
        })
    }
}

impl std::error::Error for TokenError {}
