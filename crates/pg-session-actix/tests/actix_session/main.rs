//! The store under actix-session: its own acceptance suite, unchanged, and what the store promises beyond it.
//!
//! `upstream.rs.txt` is the inside of `mod test_helpers` in `src/lib.rs` of actix-session 0.11.0, byte for byte (MIT or
//! Apache-2.0, Copyright (c) 2023 Actix team).

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "a test binary has no API and may panic"
)]

mod application;
#[path = "../../../pg-session-web/tests/http/mod.rs"]
mod http;
mod store;
#[path = "upstream.rs.txt"]
#[rustfmt::skip]
mod test_helpers;

/// What the suite finds in its own crate.
mod config {
    pub use actix_session::config::*;
}
mod storage {
    pub use actix_session::storage::*;
}
use actix_session::{Session, SessionExt, SessionMiddleware};

/// The suite begins servers with runtimes of their own, and the node outlives them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_acceptance_suite_of_actix_session_passes() {
    let store = pg_session_actix::PgSessionStore::new(store::node().await);
    let suite = std::thread::spawn(move || {
        let suite = test_helpers::acceptance_test_suite(move || store.clone(), true);
        actix_web::rt::System::new().block_on(suite);
    });
    let suite = tokio::task::spawn_blocking(move || suite.join());
    http::world::in_time("the suite ends", suite).await.expect("a thread").expect("it passes");
}

/// Whatever formats or edits the repository.
#[test]
fn the_suite_is_the_one_that_actix_session_publishes() {
    use sha2::{Digest, Sha256};

    let published = "89be18d007fa74a5b699e36f8d9ee934f534b6db9d15fc8785d623bfe62d2b9b";
    let here = Sha256::digest(include_bytes!("upstream.rs.txt"));
    assert_eq!(here.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), published);
}
