//! Errors of the command line. Those of the parser repeat an argument that it does not expect, which may be a connection
//! string with a password: the option before it was forgotten.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::failure::USAGE;

/// What is printed in place of a connection string.
const HIDDEN: &str = "[a connection string]";

/// Prints an error of the parser, or what `--help` asks for, and returns the exit code.
pub(crate) fn exit(error: &clap::Error) -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let hidden: Vec<&str> = arguments.iter().filter_map(|argument| connection_string(argument)).collect();
    // If the output is closed, only the exit code is left.
    if hidden.is_empty() || !error.use_stderr() {
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
    }
    let text = hidden.iter().fold(error.to_string(), |text, value| text.replace(*value, HIDDEN));
    let _ = write!(io::stderr(), "{text}");
    ExitCode::from(USAGE)
}

/// The argument, or the value in it, if it looks like a connection string.
fn connection_string(argument: &str) -> Option<&str> {
    let value = match argument.strip_prefix("--") {
        Some(option) => option.split_once('=')?.1,
        None => argument,
    };
    (value.contains("://") || value.contains("password=")).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_found_among_arguments() {
        for (argument, expected) in [
            ("postgres://me:hunter2@h/d", Some("postgres://me:hunter2@h/d")),
            ("--listen=postgres://me:hunter2@h/d", Some("postgres://me:hunter2@h/d")),
            ("host=h password=hunter2", Some("host=h password=hunter2")),
            ("--schema", None),
            ("--schema=app", None),
            ("127.0.0.1:80", None),
        ] {
            assert_eq!(connection_string(argument), expected, "{argument}");
        }
    }
}
