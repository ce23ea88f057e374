//! The store under tower-sessions 0.15, with only the store line of its example changed.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{Request, Response};
use axum::routing::get;
use pg_session::SessionManager;
use pg_session_tower::PgSessionStore;
use tower::ServiceExt;
use tower_sessions::{Expiry, Session, SessionManagerLayer};

use crate::http_tests::world;

/// A node on a schema of its own.
pub async fn node() -> SessionManager {
    world::Site::new(|_, _| panic!("it serves nothing")).await.node
}

async fn count(session: Session) -> String {
    let visits: u32 = session.get("visits").await.unwrap().unwrap_or_default();
    session.insert("visits", visits + 1).await.unwrap();
    (visits + 1).to_string()
}

async fn call(app: &Router, path: &str, cookie: &str) -> Response<Body> {
    let request = Request::get(path).header(COOKIE, cookie).body(Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

async fn body(response: Response<Body>) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1_000).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn the_store_serves_tower_sessions_0_15() {
    let node = node().await;
    let layer = SessionManagerLayer::new(PgSessionStore::new(node.clone()))
        .with_expiry(Expiry::OnInactivity(time::Duration::hours(1)));
    let app = Router::new()
        .route("/", get(count))
        .route("/flush", get(async |session: Session| session.flush().await.unwrap()))
        .layer(layer);
    let first = call(&app, "/", "").await;
    let cookie = first.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(body(first).await, "1");
    for visit in ["2", "3"] {
        assert_eq!(body(call(&app, "/", &cookie).await).await, visit);
    }
    assert_eq!(node.status().cache.sessions, 1, "it is in memory");
    call(&app, "/flush", &cookie).await;
    assert_eq!(body(call(&app, "/", &cookie).await).await, "1", "it has ended");
}
