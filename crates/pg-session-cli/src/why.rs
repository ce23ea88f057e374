//! [`Why`]: the reason of a failure, in words for a person, from any error and its causes.

use std::error::Error;
use std::fmt;

/// Why something did not work. Not an [`Error`] itself, so that every error converts into it with `?`.
#[derive(Debug)]
pub(crate) struct Why(String);

impl Why {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl<E: Error> From<E> for Why {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            // Some errors repeat their causes in their own words.
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        Self(text)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Fails with `why` unless `held`.
pub(crate) fn ensure(held: bool, why: impl FnOnce() -> String) -> Result<(), Why> {
    if held { Ok(()) } else { Err(Why(why())) }
}
