//! The middleware over real HTTP: the scenarios of every edge, and users who are served by both. One binary, one private
//! PostgreSQL.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test binary has no API and may panic"
)]

mod both_edges;
mod edge;
#[path = "../../../pg-session-web/tests/http/mod.rs"]
mod http;
#[path = "../../../pg-session-web/tests/http/live.rs"]
mod live;

all_scenarios!(crate::edge::serve);

#[tokio::test]
async fn a_missing_middleware_is_reported() {
    http::outcomes::a_missing_layer_is_reported(edge::serve_without_middleware()).await;
}

#[tokio::test]
async fn the_example_keeps_a_cart_through_a_login() {
    http::example::fits_forty_lines(include_str!("../../examples/actix.rs"));
    http::example::the_shop_keeps_a_cart_through_a_login("actix").await;
}

#[tokio::test]
async fn sockets_close_with_the_session_on_every_node() {
    live::fits_sixty_lines(include_str!("../../examples/actix_live.rs"));
    live::sockets_close_with_the_session_on_every_node("actix_live").await;
}
