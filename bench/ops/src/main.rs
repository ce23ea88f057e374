//! The costs of a hit, an update, a create and a delete in two builds of the library, in turns.
//!
//! `pg-session-ops OLD NEW [ROUNDS]` starts two programs of this kind, each built with another commit. They take turns, forth and
//! then back, and the ratios are taken round by round. Without arguments it is such a program: with a server of its own, it does
//! what each line of its input says.
//!
//! Exit codes: 0 no operation takes more than 5 % longer, 1 one does, or something went wrong.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock; nothing here expires by it")]

mod compare;
mod node;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [] => node::run().map(|()| true),
        [old, new] => compare::run(old, new, compare::ROUNDS),
        [old, new, rounds] => {
            rounds.parse().map_err(Into::into).and_then(|rounds| compare::run(old, new, rounds))
        }
        _ => Err(anyhow::anyhow!("usage: pg-session-ops OLD NEW [ROUNDS]")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pg-session-ops: {error:#}");
            ExitCode::FAILURE
        }
    }
}
