//! Signing in with the admin token. The browser gets a cookie of its own; the token is not kept there.

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, NestedPath, Query, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::cookies::set_cookie;
use super::pages::bare;
use super::sign_ins::{COOKIE_NAME, LIFETIME};
use super::tabs::is_address;
use super::visit::base;
use super::{FIRST_PAGE, to};
use crate::Admin;

#[derive(Deserialize)]
pub(super) struct Entry {
    token: String,
    /// The page that was asked for.
    #[serde(default)]
    to: String,
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    to: String,
}

pub(super) async fn page(
    State(admin): State<Admin>,
    path: NestedPath,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let wanted = wanted.as_ref().map_or("", |Query(wanted)| wanted.to.as_str());
    match &admin.0.token {
        Some(_) => form(base(&path), wanted, None).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn form(base: &str, wanted: &str, error: Option<&str>) -> Markup {
    bare(
        base,
        "Sign in",
        &html! {
            form method="post" action={ (base) "/sign-in" } class="sign-in" {
                @if let Some(error) = error { p role="alert" class="bad" { (error) } }
                @if is_address(wanted) { input type="hidden" name="to" value=(wanted); }
                label for="token" { "Admin token" }
                input id="token" name="token" type="password" autocomplete="off" required autofocus;
                button type="submit" { "Sign in" }
            }
        },
    )
}

pub(super) async fn sign_in(
    State(admin): State<Admin>,
    path: NestedPath,
    headers: HeaderMap,
    entry: Result<Form<Entry>, FormRejection>,
) -> Response {
    let base = base(&path);
    let Some(known) = &admin.0.token else { return StatusCode::NOT_FOUND.into_response() };
    let token = entry.as_ref().map_or("", |Form(entry)| entry.token.trim());
    let wanted = entry.as_ref().map_or("", |Form(entry)| entry.to.as_str());
    if !known.is(token.as_bytes()) {
        tracing::warn!("a sign-in at the console failed");
        return (StatusCode::UNAUTHORIZED, form(base, wanted, Some("This is not the admin token.")))
            .into_response();
    }
    let key = admin.0.console.sign_ins.add();
    let cookie = set_cookie(&headers, COOKIE_NAME, &key, base, Some(LIFETIME.as_secs()));
    ([(SET_COOKIE, cookie)], to(base, if is_address(wanted) { wanted } else { FIRST_PAGE })).into_response()
}

pub(super) async fn sign_out(State(admin): State<Admin>, path: NestedPath, headers: HeaderMap) -> Response {
    let base = base(&path);
    admin.0.console.sign_ins.remove(&headers);
    ([(SET_COOKIE, set_cookie(&headers, COOKIE_NAME, "", base, Some(0)))], to(base, "/sign-in"))
        .into_response()
}
