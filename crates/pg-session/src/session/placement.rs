//! Where the database keeps an attribute: in the session's row, or in a row of its own.
//!
//! A change of an attribute in the session's row changes one row, not two. That is less work for the server.
//! But it writes the row's other attributes again, so there is a bound. An attribute that is large, or would
//! make the row large, has a row of its own.

use crate::clock::DbTime;

/// Bytes of one value in the session's row.
pub(crate) const INLINE_VALUE_BYTES_MAX: usize = 512;
/// Bytes of the text. With the row's other columns it stays below 2 000 bytes. From there on,
/// PostgreSQL compresses columns and moves them out of line (documentation of TOAST). So several
/// versions of the row share a page.
pub(crate) const BYTES_MAX: usize = 1_536;
/// What an attribute takes beside key and value: four quotes and brackets, a colon, two commas, and a version.
const FRAME_BYTES_MAX: usize = 7 + 19;
/// And if it expires: a comma, and microseconds since 1970 as far as [`DbTime`] goes, which may be negative.
const EXPIRY_BYTES_MAX: usize = 1 + 17;

/// Where the database keeps an attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Placement {
    /// In the session's row.
    Inline,
    /// In a row of its own.
    Overflow,
}

/// The room that is left in a session's row.
pub(crate) struct InlineBudget(usize);

impl InlineBudget {
    /// What is left beside these keys and texts with their expiry.
    pub(crate) fn beside<'a>(inline: impl IntoIterator<Item = (&'a str, &'a str, DbTime)>) -> Self {
        let taken: usize =
            inline.into_iter().map(|(key, text, expires_at)| bytes_max(key, text, expires_at)).sum();
        // For the braces.
        Self(BYTES_MAX.saturating_sub(2 + taken))
    }

    /// Where the attribute goes. If it fits, its room is taken.
    pub(crate) fn place(&mut self, key: &str, text: &str, expires_at: DbTime) -> Placement {
        let bytes = bytes_max(key, text, expires_at);
        let fits = text.len() <= INLINE_VALUE_BYTES_MAX && bytes <= self.0;
        // So that a key is in the text as it is, and is borrowed from it.
        let plain = !key.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\');
        if fits && plain {
            self.0 -= bytes;
            Placement::Inline
        } else {
            Placement::Overflow
        }
    }
}

fn bytes_max(key: &str, text: &str, expires_at: DbTime) -> usize {
    let expiry = if expires_at == DbTime::NEVER { 0 } else { EXPIRY_BYTES_MAX };
    key.len() + text.len() + FRAME_BYTES_MAX + expiry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_or_has_a_key_to_escape_goes_apart() {
        let place = |key: &str, text: &str| InlineBudget::beside([]).place(key, text, DbTime::NEVER);
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert_eq!(place("key", &text(INLINE_VALUE_BYTES_MAX)), Placement::Inline);
        assert_eq!(place("key", &text(INLINE_VALUE_BYTES_MAX + 1)), Placement::Overflow);
        for key in ["a\"b", "a\\b", "a\nb", "\u{1f}", "\""] {
            assert_eq!(place(key, "1"), Placement::Overflow, "{key:?}");
        }
        for key in [" ", "\u{7f}", "ü", "\u{2028}", "\u{1f600}", "/", "'"] {
            assert_eq!(place(key, "1"), Placement::Inline, "{key:?}");
        }
        let expiring =
            InlineBudget::beside([]).place("key", "1", DbTime::EPOCH.plus(std::time::Duration::from_secs(1)));
        assert_eq!(expiring, Placement::Inline);
    }

    #[test]
    fn attributes_beyond_inline_budget_overflow_smaller_ones_fit() {
        let text = format!("\"{}\"", "x".repeat(450));
        let mut room = InlineBudget::beside([]);
        let places = [0; 4].map(|_| room.place("key", &text, DbTime::NEVER));
        assert_eq!(places, [Placement::Inline, Placement::Inline, Placement::Inline, Placement::Overflow]);
        assert_eq!(room.place("key", "1", DbTime::NEVER), Placement::Inline);

        let there = ["a", "b", "c"].map(|key| (key, text.as_str(), DbTime::NEVER));
        let beside = |there: &[(&str, &str, DbTime)]| {
            InlineBudget::beside(there.iter().copied()).place("key", &text, DbTime::NEVER)
        };
        assert_eq!((beside(&there), beside(&there[1..])), (Placement::Overflow, Placement::Inline));
    }
}
