//! The store under tower-sessions 0.15: its own test suite, which is that of 0.14, and one application.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test binary has no API and may panic"
)]

// The suite names its crate.
extern crate tower_sessions_0_15 as tower_sessions;

#[macro_use]
#[path = "../tower_sessions/upstream.rs.txt"]
#[rustfmt::skip]
mod common;
#[path = "../../../pg-session-web/tests/http/mod.rs"]
mod http_tests;
mod store;
#[path = "../tower_sessions/suite.rs"]
mod suite;
