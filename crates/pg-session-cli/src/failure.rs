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
        Self::new(for_operators(text))
    }
}

/// What the library's errors name, and what an operator gives instead.
const IN_PLACE: [(&str, &str); 6] = [
    ("set `migrations = \"apply\"` once", "run `pg-session migrate`"),
    ("`Migrations::sql`", "`pg-session migrate --print`"),
    ("`listen_on_url`", "--listen-url"),
    ("`listen_on`", "--listen-url"),
    ("`schema`", "--schema"),
    ("`table_prefix`", "--prefix"),
];

/// The text without items of Rust.
fn for_operators(mut text: String) -> String {
    // The program upgrades tables of any version.
    if let Some((begin, rest)) = text.split_once(", or run the SQL that `Migrations::sql_after` prints for ")
    {
        text = format!("{begin}{}", rest.trim_start_matches(|char: char| char.is_ascii_digit()));
    }
    IN_PLACE.iter().fold(text, |text, (name, option)| text.replace(name, option))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_reads_of_commands_and_not_of_rust() {
        for (text, expected) in [
            (
                "set `migrations = \"apply\"` once, or run the SQL that `Migrations::sql` prints",
                "run `pg-session migrate`, or run the SQL that `pg-session migrate --print` prints",
            ),
            (
                "set `migrations = \"apply\"` once, or run the SQL that `Migrations::sql_after` prints for 12",
                "run `pg-session migrate`",
            ),
            (
                "set `schema` or `table_prefix`; correct `listen_on`",
                "set --schema or --prefix; correct --listen-url",
            ),
        ] {
            assert_eq!(Failure::from(io::Error::other(text)).to_string(), expected);
        }
    }
}
