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
#[path = "../../../pg-session/tests/it/captured_logs.rs"]
mod captured_logs;
mod edge;
#[path = "../../../pg-session-web/tests/http/mod.rs"]
mod http;
#[path = "../../../pg-session-web/tests/http/live.rs"]
mod live;
mod many_sockets;
#[path = "../../../pg-session-web/tests/http/openid_connect.rs"]
mod openid_connect;
mod stuck_sockets;
mod warnings;

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

#[tokio::test]
async fn clients_that_send_all_the_time_are_closed() {
    live::clients_that_send_all_the_time_are_closed("actix_live").await;
}

#[tokio::test]
async fn a_client_that_does_not_read_keeps_no_connection() {
    stuck_sockets::a_client_that_does_not_read_keeps_no_connection().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_signs_in_at_an_openid_connect_provider() {
    // Each package has its own copy.
    assert_eq!(
        include_str!("../../examples/actix_openid_connect/provider.rs"),
        include_str!("../../../pg-session-tower/examples/openid_connect/provider.rs")
    );
    openid_connect::a_user_signs_in_at_an_openid_connect_provider("actix_openid_connect").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_at_the_provider_uses_the_flow_up() {
    openid_connect::a_refusal_at_the_provider_uses_the_flow_up("actix_openid_connect").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_sockets_close_beside_a_node_that_is_cut_off() {
    many_sockets::a_hundred_sockets_close_beside_a_node_that_is_cut_off().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute, and a machine of its own"]
async fn a_thousand_sockets_close_under_every_fault() {
    many_sockets::a_thousand_sockets_close_under_every_fault().await;
}
