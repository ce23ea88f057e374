//! A live feed on actix-web, over a WebSocket. It closes with its session, on any node, with the reason.
//!
//! `DATABASE_URL=postgres://… cargo run --example actix_live`.

use std::{env, time::Duration};

use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, web};
use actix_ws::CloseReason;
use futures_util::{Stream, StreamExt as _, stream};
use pg_session_actix::prelude::*;

/// What the application has to say: here, the number of the message.
fn news() -> impl Stream<Item = String> {
    stream::unfold(0, |n| async move {
        actix_web::rt::time::sleep(Duration::from_millis(250)).await;
        Some((format!("news {n}"), n + 1))
    })
}

async fn socket(session: Session, request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Error> {
    let Some(mut news) = session.guard(news()).await.map_err(SessionError::from)? else {
        return Ok(HttpResponse::Unauthorized().finish());
    };
    let (response, mut socket, mut messages) = actix_ws::handle(&request, body)?;
    actix_web::rt::spawn(async move {
        // What the client says ends nothing here, and neither does a frame that is malformed.
        actix_web::rt::spawn(async move { while messages.next().await.is_some() {} });
        let pin = news.pin().clone();
        // Dropped soon after the session if the client does not read.
        let sending = pin.limit(async move {
            while let Some(item) = news.next().await {
                match item {
                    Ok(text) => socket.text(text).await?, // an error if the client has gone
                    Err(closed) => {
                        let (code, description) = (closed.close_code().into(), Some(closed.to_string()));
                        return socket.close(Some(CloseReason { code, description })).await;
                    }
                }
            }
            Ok(())
        });
        sending.await
    });
    Ok(response)
}

async fn login(session: Session, name: web::Path<String>) -> Result<&'static str, SessionError> {
    session.login(UserId::named(&name)).await?; // after you have looked at a password
    Ok("signed in")
}

async fn logout(session: Session) -> Result<String, SessionError> {
    Ok(format!("{} logged out", session.logout_everywhere().await?))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let manager = SessionManager::connect(&env::var("DATABASE_URL")?, config).await?;
    let sessions = SessionMiddleware::from(SessionConfig::from_env(manager)?);
    let app = move || {
        App::new()
            .wrap(sessions.clone()) // made once: workers share it
            .route("/socket", web::get().to(socket))
            .route("/login/{name}", web::post().to(login))
            .route("/logout-everywhere", web::post().to(logout))
    };
    let server = HttpServer::new(app).bind(env::var("ADDRESS").unwrap_or("127.0.0.1:3000".into()))?;
    println!("http://{}", server.addrs()[0]);
    Ok(server.run().await?)
}
