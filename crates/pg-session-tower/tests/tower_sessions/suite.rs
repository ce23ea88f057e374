//! The suite of tower-sessions on the store.

use axum::Router;
use pg_session_tower::PgSessionStore;
use tower_sessions::SessionManagerLayer;

use crate::common::build_app;

async fn app(max_age: Option<Duration>, domain: Option<String>) -> Router {
    let store = PgSessionStore::new(crate::store::node().await);
    build_app(SessionManagerLayer::new(store).with_secure(true), max_age, domain)
}

route_tests!(app);
