//! [`Secret`]: a text that a caller has to know.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::Path;

use subtle::ConstantTimeEq;

/// The shortest secret. As 64 hexadecimal digits or 43 of base64 it has 256 bits.
const CHARS_MIN: usize = 32;
const CHARS_MAX: usize = 1_024;

/// Compared in constant time. Never shown.
pub(super) struct Secret(String);

impl Secret {
    /// The first line of a file or the value of a variable. The file wins. `None` if neither is there.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub(super) fn read(file: Option<&Path>, option: &str, variable: &str) -> Result<Option<Self>, String> {
        let (text, source) = match (file, std::env::var_os(variable)) {
            (Some(path), _) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| format!("{option} {}: {error}", path.display()))?;
                (text, option)
            }
            (None, Some(value)) => {
                let text = OsString::into_string(value).map_err(|_| format!("{variable} is not text"))?;
                (text, variable)
            }
            (None, None) => return Ok(None),
        };
        Self::new(text.trim()).map(Some).map_err(|why| format!("{source}: {why}"))
    }

    /// A text that this program has made.
    pub(super) fn known(text: String) -> Self {
        Self(text)
    }

    pub(super) fn new(text: &str) -> Result<Self, String> {
        if !(CHARS_MIN..=CHARS_MAX).contains(&text.len()) {
            return Err(format!(
                "a secret has {CHARS_MIN} to {CHARS_MAX} characters; make one with: openssl rand -hex 32"
            ));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a secret has visible ASCII characters only, without spaces".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// The text, for a form.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// Takes the same time for each text of the right length.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(text).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_unprintable_secrets_are_refused() {
        let good = "x".repeat(CHARS_MIN);
        let secret = Secret::new(&good).unwrap();
        assert!(secret.is(good.as_bytes()) && !secret.is(b"") && !secret.is(&[b'x'; CHARS_MIN + 1]));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        for wrong in ["", &"x".repeat(CHARS_MIN - 1), &"x".repeat(CHARS_MAX + 1), &"x y".repeat(CHARS_MIN)] {
            assert!(Secret::new(wrong).is_err(), "{wrong:?}");
        }
    }
}
