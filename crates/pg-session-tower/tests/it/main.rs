//! The layer over real HTTP, served by axum. One binary, one private PostgreSQL.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test binary has no API and may panic"
)]

mod backchannel;
#[path = "../../../pg-session/tests/it/captured_logs.rs"]
mod captured_logs;
mod corpus;
mod edge;
#[path = "../../../pg-session-web/tests/http/mod.rs"]
mod http;
#[path = "../../../pg-session-web/tests/http/live.rs"]
mod live;
mod live_events;
#[path = "../../../pg-session-web/tests/http/openid_connect.rs"]
mod openid_connect;
mod secrets;
mod stuck_sockets;
mod templates;
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

/// `cargo test --doc` compiles the program of this crate's front page.
#[test]
fn the_readme_shows_the_program_that_is_compiled() {
    let program = |page: &'static str| {
        let (_, rest) = page.split_once("```rust,no_run\n").expect("a program");
        rest.split_once("\n```").expect("its end").0
    };
    let compiled = program(include_str!("../../README.md"));
    assert_eq!(program(include_str!("../../../../README.md")), compiled);
    assert!(compiled.contains("#[tokio::main]"), "{compiled}");
}

#[tokio::test]
async fn sockets_close_with_the_session_on_every_node() {
    live::fits_sixty_lines(include_str!("../../examples/axum_live.rs"));
    live::sockets_close_with_the_session_on_every_node("axum_live").await;
}

#[tokio::test]
async fn a_stream_of_events_says_why_it_ends() {
    live_events::a_stream_of_events_says_why_it_ends("axum_live").await;
}

#[tokio::test]
async fn a_client_that_does_not_read_keeps_no_socket() {
    stuck_sockets::a_client_that_does_not_read_keeps_no_socket().await;
}

#[tokio::test]
async fn a_client_that_has_gone_keeps_no_socket() {
    stuck_sockets::a_client_that_has_gone_keeps_no_socket().await;
}

#[tokio::test]
async fn clients_that_send_all_the_time_are_closed() {
    live::clients_that_send_all_the_time_are_closed("axum_live").await;
}

#[tokio::test]
async fn a_client_that_does_not_read_keeps_no_stream_of_events() {
    stuck_sockets::a_client_that_does_not_read_keeps_no_stream_of_events().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_signs_in_at_an_openid_connect_provider() {
    openid_connect::a_user_signs_in_at_an_openid_connect_provider("openid_connect").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_at_the_provider_uses_the_flow_up() {
    openid_connect::a_refusal_at_the_provider_uses_the_flow_up("openid_connect").await;
}
