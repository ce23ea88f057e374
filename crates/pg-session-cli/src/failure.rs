//! [`Failure`]: why a command failed, in words for a person, from any error and its causes.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::signals::Caught;

/// Why something did not work. Not an [`Error`] itself, so that every error converts into it with `?`.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    code: u8,
}

/// The exit code of what did not work.
const FAILED: u8 = 1;
/// The exit code for wrong usage, as clap's.
pub(crate) const USAGE: u8 = 2;

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: FAILED }
    }

    /// The command line lacks something, or contradicts itself.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: USAGE }
    }

    /// A signal ended the command early.
    pub(crate) fn interrupted(by: Caught, text: impl Into<String>) -> Self {
        Self { text: text.into(), code: by.exit_code() }
    }
}

impl<E: Error> From<E> for Failure {
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
        Self::new(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Fails with `message` unless `held`.
pub(crate) fn ensure(held: bool, message: impl FnOnce() -> String) -> Result<(), Failure> {
    if held { Ok(()) } else { Err(Failure::new(message())) }
}

/// The exit code of a command. A failure is printed to stderr.
pub(crate) fn exit(command: &str, outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    // If stderr is closed as well, only the exit code is left.
    let _ = writeln!(io::stderr(), "pg-session {command}: {failure}");
    ExitCode::from(failure.code)
}
