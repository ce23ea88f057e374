//! No sessions: what axum itself costs.

use axum::Router;
use axum::routing::{get, post};

pub(crate) fn router() -> Router {
    Router::new()
        .route("/login/{user}", post(async || ()))
        .route("/", get(async || crate::page(1, crate::THEME)))
        .route("/count", post(async || "1").get(async || "1"))
}
