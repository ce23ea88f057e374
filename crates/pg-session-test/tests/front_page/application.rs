//! A small application: who is signed in, a login, and "log out the others".

use axum::Router;
use axum::routing::{get, post};
use pg_session_test::Node;
use pg_session_tower::{Session, SessionError, SessionLayer};

pub fn application(node: &Node) -> Router {
    Router::new()
        .route(
            "/me",
            get(async |session: Session| {
                Ok::<_, SessionError>(if session.user_id().await?.is_some() {
                    "signed in"
                } else {
                    "visitor"
                })
            }),
        )
        .route("/login", post(async |session: Session| Ok::<_, SessionError>(session.login(42).await?)))
        .route(
            "/logout-others",
            post(async |session: Session| Ok::<_, SessionError>(session.logout_others().await?.to_string())),
        )
        .layer(SessionLayer::from(node.web()))
}
