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

mod upstream {
    use axum::Router;
    use pg_session_tower::PgSessionStore;
    use tower_sessions::SessionManagerLayer;

    use crate::common::build_app;

    async fn app(max_age: Option<Duration>, domain: Option<String>) -> Router {
        let store = PgSessionStore::new(crate::store::node().await);
        build_app(SessionManagerLayer::new(store).with_secure(true), max_age, domain)
    }

    route_tests!(app);
}
