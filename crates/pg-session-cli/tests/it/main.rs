//! The program as its users run it, on a real PostgreSQL: one test binary, one file per command.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a deadline in real time")]

mod demo;
mod migrate;
pub mod support;
