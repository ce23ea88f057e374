//! `pg-session key`: makes a signing key.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use pg_session::SigningKey;

use crate::failure::Failure;

/// Make a new signing key, and print it in base64.
///
/// Keep it with the application's other secrets, for example as SESSION_KEY: a reader of it can log in as any user.
#[derive(Args, Debug)]
pub(crate) struct Options {}

/// Carries the command out; what went wrong is said on stderr.
pub(crate) fn run(Options {}: Options) -> ExitCode {
    let Err(failure) = print() else { return ExitCode::SUCCESS };
    // If stderr is closed as well, the exit code has to do.
    let _ = writeln!(io::stderr(), "pg-session key: {failure}");
    ExitCode::FAILURE
}

fn print() -> Result<(), Failure> {
    let key = SigningKey::generate()?;
    Ok(writeln!(io::stdout(), "{}", key.expose_base64())?)
}
