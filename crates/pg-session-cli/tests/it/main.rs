//! The program as its users run it, on a real PostgreSQL: one test binary, one file per command.
#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    reason = "a test binary has no API, and fails where it cannot go on"
)]
#![allow(clippy::disallowed_methods, reason = "a deadline in real time")]

mod admin;
mod demo;
mod doctor;
mod documents;
mod key;
mod live;
mod migrate;
mod operator;
mod plan;
mod serve;
mod support;
mod terminal;
mod web;
