//! The store under tower-sessions: its own test suite, unchanged; what the store promises beyond it; and axum-login on top.
//!
//! `upstream.rs.txt` is the file `tests/common/mod.rs` of tower-sessions 0.14.0, unchanged (MIT, Copyright
//! (c) 2022 Max Countryman).

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test binary has no API and may panic"
)]

mod axum_login;
#[macro_use]
#[path = "upstream.rs.txt"]
#[rustfmt::skip]
mod common;
#[path = "../../../pg-session-web/tests/http/mod.rs"]
mod http_tests;
mod moving;
mod store;
mod suite;

/// Whatever formats or edits the repository.
#[test]
fn the_suite_is_the_one_that_tower_sessions_publishes() {
    use sha2::{Digest, Sha256};

    let published = "4d42e96596311e827e842d87a27af0e058715d7526bc90a4592d4c128b7fd467";
    let here = Sha256::digest(include_bytes!("upstream.rs.txt"));
    assert_eq!(here.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), published);
}
