//! The layer over real HTTP, served by axum. One binary, one private PostgreSQL.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test binary has no API and may panic"
)]

mod edge;
#[path = "../../../pg-session-web/tests/http/mod.rs"]
mod http;
mod secrets;
#[path = "../../../pg-session/tests/it/told.rs"]
mod told;

all_scenarios!(crate::edge::serve);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_is_finished_when_the_server_has_dropped_the_request() {
    let site = http::world::Site::new(edge::serve).await;
    http::hang_up::a_save_is_finished_when_the_server_has_dropped_the_request(&site).await;
}

#[tokio::test]
async fn the_example_keeps_a_cart_through_a_login() {
    http::example::the_shop_keeps_a_cart_through_a_login("axum").await;
}

/// The block in this crate's front page is compiled as a test; the repository's front page shows the same one.
#[test]
fn the_quick_start_of_the_front_page_is_the_one_that_is_compiled() {
    let block = |page: &'static str, fence| {
        page.split_once(fence).and_then(|(_, rest)| rest.split_once("\n```")).map(|(block, _)| block)
    };
    let compiled = block(include_str!("../../README.md"), "```rust,no_run\n").expect("it has one");
    assert!(compiled.contains("SessionLayer::new(sessions, signer)"));
    assert_eq!(block(include_str!("../../../../README.md"), "```rust,ignore\n"), Some(compiled));
}
