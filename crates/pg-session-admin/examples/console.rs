//! An axum application with the console below `/ops/sessions`, for users of its own with the role `operator`.
//!
//! `DATABASE_URL=postgres://localhost/app cargo run -p pg-session-admin --example console`, and then open
//! <http://localhost:3000/login>.

use std::error::Error;

use axum::Router;
use axum::extract::{Form, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use pg_session_admin::{Admin, Operator};
use pg_session_tower::prelude::*;
use serde::Deserialize;
use tokio::net::TcpListener;

/// Where the application has the console.
const CONSOLE: &str = "/ops/sessions";

/// The application, with all its routes.
pub(crate) fn application(sessions: SessionConfig) -> Router {
    let admin = Admin::builder(sessions.manager().clone()).build();
    Router::new()
        .route("/", get(async || "hello\n"))
        .route("/login", get(form).post(login))
        .nest(CONSOLE, admin.console().layer(middleware::from_fn(operators_only)))
        .layer(SessionLayer::from(sessions))
}

/// Lets operators pass, and names them to the console.
async fn operators_only(
    session: Session,
    mut request: Request,
    next: Next,
) -> Result<Response, SessionError> {
    let Some(user) = session.user_id().await? else { return Ok(Redirect::to("/login").into_response()) };
    if session.get::<String>("role").await?.as_deref() != Some("operator") {
        return Ok(StatusCode::FORBIDDEN.into_response());
    }
    request.extensions_mut().insert(Operator::named(user.to_string()).allow_changes());
    Ok(next.run(request).await)
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
}

/// The users of this example. An application asks its own table, for a hash.
fn user_of(credentials: &Credentials) -> Option<(i64, &'static str)> {
    match (credentials.name.as_str(), credentials.password.as_str()) {
        ("ann", "correct horse") => Some((1, "operator")),
        ("bob", "battery staple") => Some((2, "customer")),
        _ => None,
    }
}

async fn form() -> Html<&'static str> {
    Html(
        "<!DOCTYPE html><title>Log in</title><form method=post><input name=name autofocus>\
         <input name=password type=password><button>Log in</button></form>",
    )
}

async fn login(session: Session, Form(credentials): Form<Credentials>) -> Result<Response, SessionError> {
    let Some((user, role)) = user_of(&credentials) else {
        return Ok((StatusCode::UNAUTHORIZED, form().await).into_response());
    };
    session.login(user).await?;
    session.set("role", role).await?;
    Ok(Redirect::to(CONSOLE).into_response())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let sessions = SessionManager::connect(&url, config).await?;
    let app = application(SessionConfig::from_env(sessions)?);
    println!("open http://localhost:3000/login, and log in as ann with the password: correct horse");
    axum::serve(TcpListener::bind("127.0.0.1:3000").await?, app).await?;
    Ok(())
}
