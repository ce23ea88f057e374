//! A live feed on axum, over a WebSocket and as server-sent events. It closes with its session, on any node, with the reason.
//!
//! `DATABASE_URL=postgres://… cargo run --example axum_live`.

use std::{convert::Infallible, env, error::Error, net::SocketAddr, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response, Sse, sse::Event};
use axum::{Router, extract::Path, http::StatusCode, routing::get, routing::post};
use futures_util::{Stream, StreamExt as _, future::join, stream};
use pg_session_tower::prelude::*;

/// What the application has to say: here, the number of the message.
fn news() -> impl Stream<Item = String> + Send {
    stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_millis(250)).await;
        Some((format!("news {n}"), n + 1))
    })
}

async fn socket(session: Session, upgrade: WebSocketUpgrade) -> Result<Response, SessionError> {
    let Some(out) = session.guard(news()).await? else { return Ok(StatusCode::UNAUTHORIZED.into_response()) };
    let pin = out.pin().clone();
    let messages = out.map(|item| match item {
        Ok(text) => Message::text(text),
        Err(closed) => {
            let (code, reason) = (closed.close_code(), closed.to_string().into());
            Message::Close(Some(CloseFrame { code, reason }))
        }
    });
    Ok(upgrade.on_upgrade(async move |socket| {
        let (sender, receiver) = socket.split();
        // What the client says ends nothing here. Its answer to the close frame comes last.
        let receiving = receiver.for_each(async |_| ());
        // Dropped soon after the session if the client does not read or has gone.
        drop(pin.limit(join(messages.map(Ok).forward(sender), receiving)).await);
    }))
}

async fn events(session: Session) -> Result<Response, SessionError> {
    let Some(out) = session.guard(news()).await? else { return Ok(StatusCode::UNAUTHORIZED.into_response()) };
    let events = out.map(|item| match item {
        Ok(text) => Event::default().data(text),
        Err(closed) => Event::default().event("closed").data(closed.to_string()),
    });
    Ok(Sse::new(events.map(Ok::<_, Infallible>)).into_response())
}

async fn login(session: Session, Path(name): Path<String>) -> Result<&'static str, SessionError> {
    session.login(UserId::named(&name)).await?; // after you have looked at a password
    Ok("signed in")
}

async fn logout(session: Session) -> Result<String, SessionError> {
    Ok(format!("{} logged out", session.logout_everywhere().await?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let sessions =
        SessionConfig::from_env(SessionManager::connect(&env::var("DATABASE_URL")?, config).await?)?;
    let app = Router::new()
        .route("/socket", get(socket))
        .route("/events", get(events))
        .route("/login/{name}", post(login))
        .route("/logout-everywhere", post(logout))
        .layer(SessionLayer::from(sessions));
    let listener = tokio::net::TcpListener::bind(env::var("ADDRESS").unwrap_or("[::1]:3000".into())).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?)
}
