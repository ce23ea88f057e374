//! An API for a single-page application or a phone, on axum: the token travels in headers, and no cookie is used.
//!
//! `DATABASE_URL=postgres://… cargo run --example axum_spa`, then open the address. Ann's password is `secret`.
//!
//! Prefer the cookie if the page comes from the API's own site: a script cannot read that. A script that runs on the page can
//! read this token.

use std::{env, error::Error, net::SocketAddr};

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use pg_session_tower::prelude::*;
use serde::Deserialize;

/// The page sends its token with each request, and keeps each new one that an answer brings.
const PAGE: &str = r##"<!doctype html><meta charset="utf-8"><title>Shop</title>
<button id="login">Log in as Ann</button> <button id="logout">Log out</button> <output></output>
<script>
    async function call(method, path, body) {
        const token = sessionStorage.getItem("token");
        const headers = token ? { authorization: "Bearer " + token } : {};
        const answer = await fetch(path, { method, headers, body });
        const next = answer.headers.get("session-token");
        if (next === "") sessionStorage.removeItem("token");
        else if (next !== null) sessionStorage.setItem("token", next);
        return answer.text();
    }
    const show = async () => { document.querySelector("output").textContent = await call("GET", "/api/me"); };
    document.querySelector("#login").onclick = async () => {
        await call("POST", "/api/login", new URLSearchParams({ name: "ann", password: "secret" }));
        await show();
    };
    document.querySelector("#logout").onclick = async () => { await call("POST", "/api/logout"); await show(); };
    show();
</script>"##;

#[derive(Deserialize)]
struct Login {
    name: String,
    password: String,
}

async fn login(session: Session, Form(login): Form<Login>) -> Result<Response, SessionError> {
    // In place of a comparison of password hashes.
    if (login.name.as_str(), login.password.as_str()) != ("ann", "secret") {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, "Name or password is wrong.\n").into_response());
    }
    session.login(1).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn logout(session: Session) -> Result<StatusCode, SessionError> {
    session.logout().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn me(SignedIn(user): SignedIn) -> String {
    format!("user {user}")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let url = env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let manager = SessionManager::connect(&url, config).await?;
    let api = Router::new()
        .route("/me", get(me))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .layer(SessionLayer::from(SessionConfig::from_env(manager)?.bearer_tokens()));
    let app = Router::new().route("/", get(async || Html(PAGE))).nest("/api", api);
    let address = env::var("ADDRESS").unwrap_or("127.0.0.1:3000".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?)
}
