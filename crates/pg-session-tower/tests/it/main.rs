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
mod warnings;

all_scenarios!(crate::edge::serve);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_is_finished_when_the_server_has_dropped_the_request() {
    let site = http::world::Site::new(edge::serve).await;
    http::hang_up::a_save_is_finished_when_the_server_has_dropped_the_request(&site).await;
}

#[tokio::test]
async fn the_example_keeps_a_cart_through_a_login() {
    http::example::fits_forty_lines(include_str!("../../examples/axum.rs"));
    http::example::the_shop_keeps_a_cart_through_a_login("axum").await;
}

/// This crate's front page has them in a program, which is compiled as a test.
#[test]
fn the_five_lines_of_the_front_page_are_those_that_are_compiled() {
    let block = |page: &'static str, fence| {
        let (_, rest) = page.split_once(fence).expect("it has one");
        let (block, _) = rest.split_once("\n```").expect("it ends");
        block.lines().map(str::trim).collect::<Vec<_>>()
    };
    let program = block(include_str!("../../README.md"), "```rust,no_run\n");
    let shown = block(include_str!("../../../../README.md"), "```rust,ignore\n");
    assert_eq!(shown.len(), 5, "{shown:#?}");
    assert!(program.windows(5).any(|lines| lines == shown), "{shown:#?}");
    assert!(shown[3].contains(".layer(SessionLayer::new(sessions, signer))"), "{shown:#?}");
}
