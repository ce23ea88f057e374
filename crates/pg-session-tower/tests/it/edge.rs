//! The tests' application on axum.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use pg_session_tower::prelude::*;

use crate::http::app::{Account, Billing, Gate, act};
use crate::http::world::alone;

/// Serves on a free port for as long as the test's runtime lives.
pub fn serve(sessions: SessionConfig, gate: Arc<Gate>) -> SocketAddr {
    // A router that came with a layer of its own, and a middleware in between that uses the session, too.
    let inner = SessionLayer::from(sessions.clone().check_attributes());
    let nested = Router::new().fallback(everything).layer(inner).layer(from_fn(in_between));
    let alone = Router::new().fallback(everything).layer(SessionLayer::from(alone(sessions.clone())));
    let app = Router::new()
        .route("/pay", any(async |_: Elevated<Billing>| "paid"))
        .route("/account", any(async |SignedIn(user): SignedIn| user.to_string()))
        .route("//account", any(async |SignedIn(user): SignedIn| user.to_string()))
        .route("/maybe", any(maybe))
        .route("/name", any(async |user: CurrentUser<Account>| user.name.clone()))
        .route("/maybe-name", any(maybe_name))
        .nest("/nested", nested)
        .nest("/alone", alone)
        .nest("/inside", Router::new().fallback(everything).layer(require_login("/inside/login")))
        .fallback(everything)
        .layer(SessionLayer::from(sessions))
        .with_state(gate);
    listen(app)
}

async fn maybe(user: Option<SignedIn>) -> String {
    user.map_or_else(|| "nobody".to_owned(), |SignedIn(user)| user.to_string())
}

async fn maybe_name(user: Option<CurrentUser<Account>>) -> String {
    user.map_or_else(|| "nobody".to_owned(), |user| user.name.clone())
}

async fn in_between(session: Session, request: Request, next: Next) -> Result<Response, SessionError> {
    session.set("between", request.uri().path()).await?;
    Ok(next.run(request).await)
}

/// An application that forgot the layer.
pub fn serve_without_layer() -> SocketAddr {
    listen(Router::new().route("/user", any(async |_: Session| "served")))
}

/// Serves on a free port for as long as the test's runtime lives.
pub fn listen(app: Router) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let addr = listener.local_addr().expect("a port");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async { axum::serve(listener, app).await.expect("it serves for ever") });
    addr
}

async fn everything(
    session: Session,
    State(gate): State<Arc<Gate>>,
    uri: Uri,
) -> Result<Response, SessionError> {
    let answer = act(&session, &gate, uri.path()).await?;
    let status = StatusCode::from_u16(answer.status).expect("a status");
    let mut response = (status, answer.body).into_response();
    for (name, value) in answer.headers {
        response.headers_mut().append(name, HeaderValue::from_static(value));
    }
    Ok(response)
}
