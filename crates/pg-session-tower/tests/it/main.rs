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
