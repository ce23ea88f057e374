//! Signing in with the admin token. The browser gets a cookie of its own; the token is not kept there.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::sign_ins::{COOKIE_NAME, LIFETIME};
use super::{pages, to};
use crate::serve::Server;

fn cookie(headers: &HeaderMap, key: &str, seconds: u64) -> String {
    // Over plain HTTP a browser would drop a secure cookie, except on this machine.
    let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let secure = if is_https { "; Secure" } else { "" };
    format!("{COOKIE_NAME}={key}; Path=/console; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
}

/// Lets a signed-in browser pass, and sends another one to the sign-in.
pub(super) async fn require(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    match server.signed_in(request.headers()) {
        Some(sign_in) => {
            request.extensions_mut().insert(sign_in);
            next.run(request).await
        }
        None if request.method().is_safe() && request.uri().path() != "/console/stream" => {
            to("/console/sign-in")
        }
        None => (StatusCode::UNAUTHORIZED, "sign in first\n").into_response(),
    }
}

#[derive(Deserialize)]
pub(super) struct Entry {
    token: String,
}

pub(super) async fn page() -> Markup {
    form(None)
}

fn form(error: Option<&str>) -> Markup {
    pages::bare(
        "Sign in",
        &html! {
            form method="post" action="/console/sign-in" class="sign-in" {
                @if let Some(error) = error { p role="alert" class="bad" { (error) } }
                label for="token" { "Admin token" }
                input id="token" name="token" type="password" autocomplete="off" required autofocus;
                button type="submit" { "Sign in" }
            }
        },
    )
}

pub(super) async fn sign_in(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    entry: Result<Form<Entry>, FormRejection>,
) -> Response {
    let token = entry.as_ref().map_or("", |Form(entry)| entry.token.trim());
    let (Some(console), Some(known)) = (&server.console, &server.admin_token) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if !known.is(token.as_bytes()) {
        tracing::warn!("a sign-in at the console failed");
        return (StatusCode::UNAUTHORIZED, form(Some("This is not the admin token."))).into_response();
    }
    let key = console.sign_ins.add();
    ([(SET_COOKIE, cookie(&headers, &key, LIFETIME.as_secs()))], to("/console/cluster")).into_response()
}

pub(super) async fn sign_out(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    if let Some(console) = &server.console {
        console.sign_ins.remove(&headers);
    }
    ([(SET_COOKIE, cookie(&headers, "", 0))], to("/console/sign-in")).into_response()
}
