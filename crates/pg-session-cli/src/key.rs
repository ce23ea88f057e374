//! `pg-session key`: makes a signing key.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use pg_session::SigningKey;

use crate::failure::{Failure, exit};

/// Make a new signing key, and print it in base64.
///
/// Keep it with the application's other secrets, for example as SESSION_KEY: a reader of it can log in as any user.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Print one JSON object, with the key's id.
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
pub(crate) fn run(Options { json }: Options) -> ExitCode {
    exit("key", print(json))
}

fn print(json: bool) -> Result<(), Failure> {
    let key = SigningKey::generate()?;
    if json {
        let line = serde_json::json!({ "id": key.id().to_string(), "key": *key.expose_base64() });
        return Ok(writeln!(io::stdout(), "{line}")?);
    }
    Ok(writeln!(io::stdout(), "{}", key.expose_base64())?)
}
