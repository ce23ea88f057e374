//! The shop on axum: routes, and nothing else.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use futures_util::future::join;
use pg_session_tower::{Elevated, Session, SessionError, SessionLayer};
use pg_session_web::SessionConfig;

use super::shop::{self, Action, Billing, DeviceView, PAGE, Shop, View};
use crate::failure::Failure;

/// Serves until it is dropped.
pub(super) async fn serve(
    listener: TcpListener,
    sessions: SessionConfig,
    shop: Arc<Shop>,
) -> Result<(), Failure> {
    let app = Router::new()
        .route("/", get(async || ([(CACHE_CONTROL, "no-store")], Html(PAGE))))
        .route("/api/site", get(site))
        .route("/api/status", get(status))
        .route("/api/view", get(view))
        .route("/api/devices", get(devices))
        .route("/api/act", post(act))
        .route("/api/billing", get(billing))
        .route("/api/feed", get(feed))
        .layer(SessionLayer::from(sessions))
        .with_state(shop)
        .into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await?)
}

async fn site(State(shop): State<Arc<Shop>>) -> Response {
    Json(shop.site()).into_response()
}

/// For the pages of the other nodes as well.
async fn status(State(shop): State<Arc<Shop>>) -> Response {
    ([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], Json(shop.status())).into_response()
}

async fn view(session: Session) -> Result<Json<View>, SessionError> {
    Ok(Json(shop::view(&session).await?))
}

async fn devices(session: Session) -> Result<Json<Vec<DeviceView>>, SessionError> {
    Ok(Json(shop::devices(&session).await?))
}

/// Takes JSON only, which another site cannot make a browser send without asking first.
async fn act(
    session: Session,
    State(shop): State<Arc<Shop>>,
    Json(action): Json<Action>,
) -> Result<Json<View>, SessionError> {
    Ok(Json(shop.act(&session, action).await?))
}

async fn billing(_: Elevated<Billing>, session: Session) -> Result<String, SessionError> {
    Ok(shop::invoice(&session).await?)
}

/// Closes with the session, on any node, with the reason.
async fn feed(
    session: Session,
    State(shop): State<Arc<Shop>>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, SessionError> {
    let Some(messages) = session.guard(shop.feed()).await? else {
        return Ok(StatusCode::UNAUTHORIZED.into_response());
    };
    let pin = messages.pin().clone();
    let messages = messages.map(|item| match item {
        Ok(text) => Message::text(text),
        Err(closed) => {
            let (code, reason) = (closed.close_code(), closed.to_string().into());
            Message::Close(Some(CloseFrame { code, reason }))
        }
    });
    Ok(upgrade.on_upgrade(async move |socket| {
        let (sender, receiver) = socket.split();
        // The browser says nothing, but its frames are to be read: its answer to the close frame comes last.
        let receiving = receiver.for_each(async |_| ());
        // Dropped soon after the session if the browser does not read or has gone.
        drop(pin.limit(join(messages.map(Ok).forward(sender), receiving)).await);
    }))
}
