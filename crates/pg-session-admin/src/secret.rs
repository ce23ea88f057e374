//! [`Secret`]: a text that a caller has to know.

use std::collections::BTreeSet;
use std::fmt;

use subtle::ConstantTimeEq;

/// The shortest secret. As 64 hexadecimal digits or 43 of base64 it has 256 bits.
const CHARS_MIN: usize = 32;
const CHARS_MAX: usize = 1_024;
/// Different characters, at least. 32 random hexadecimal digits have fewer in one of a million cases.
const DIFFERENT_MIN: usize = 8;

/// A text that a caller has to know. Compared in constant time. Never shown.
pub struct Secret(String);

/// A text that is too easy to guess, or that a header cannot carry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WeakSecret(String);

impl Secret {
    /// A random text, made with `openssl rand -hex 32` for example.
    ///
    /// # Errors
    /// A text that is not of 32 to 1,024 characters of visible ASCII, at least 8 of them different.
    pub fn new(text: &str) -> Result<Self, WeakSecret> {
        if !(CHARS_MIN..=CHARS_MAX).contains(&text.len()) {
            return Err(WeakSecret(format!(
                "a secret has {CHARS_MIN} to {CHARS_MAX} characters; make one with: openssl rand -hex 32"
            )));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(WeakSecret("a secret has visible ASCII characters only, without spaces".to_owned()));
        }
        if text.bytes().collect::<BTreeSet<_>>().len() < DIFFERENT_MIN {
            return Err(WeakSecret(
                "a secret is random, and this one repeats a few characters; make one with: openssl rand -hex 32".to_owned(),
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// A text that this program has made.
    pub(crate) fn known(text: String) -> Self {
        Self(text)
    }

    /// The text, for a form.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this is the text. Takes the same time for each text of the right length.
    #[must_use]
    pub fn is(&self, text: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(text).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for WeakSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WeakSecret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_repetitive_and_unprintable_secrets_are_refused() {
        let good = "0123456789abcdef".repeat(2);
        let secret = Secret::new(&good).unwrap();
        assert!(secret.is(good.as_bytes()) && !secret.is(b"") && !secret.is(&good.as_bytes()[1..]));
        assert!(!secret.is(format!("{good}0").as_bytes()));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        for wrong in ["", &good[1..], &"x".repeat(CHARS_MIN), &good.repeat(33), &good.replace('a', " ")] {
            assert!(Secret::new(wrong).is_err(), "{wrong:?}");
        }
    }
}
