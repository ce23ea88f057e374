//! Signing in with the admin token. The browser gets a cookie of its own; the token is not kept there.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Request, State};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::{pages, to};
use crate::serve::Server;
use crate::serve::secret::Secret;

const COOKIE_NAME: &str = "pg-session-console";
/// Sign-ins at one time. The oldest ends first.
const SIGN_INS_MAX: usize = 64;
/// A working day.
const LIFETIME: Duration = Duration::from_secs(8 * 3_600);

/// One browser. The form token is in each form of its pages, where another site cannot read it.
#[derive(Clone)]
pub(super) struct SignIn {
    key: Arc<Secret>,
    pub(super) form_token: Arc<Secret>,
    until: Instant,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("until", &self.until).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(super) struct SignIns(Mutex<VecDeque<SignIn>>);

impl SignIns {
    /// Returns the new key.
    fn add(&self) -> String {
        let [key, form_token] = [random(), random()];
        let sign_in = SignIn {
            key: Arc::new(Secret::known(key.clone())),
            form_token: Arc::new(Secret::known(form_token)),
            until: Instant::now() + LIFETIME,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == SIGN_INS_MAX {
            all.pop_front();
        }
        all.push_back(sign_in);
        key
    }

    fn find(&self, headers: &HeaderMap) -> Option<SignIn> {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|sign_in| now < sign_in.until);
        let is_sent = |sign_in: &&SignIn| keys(headers).any(|key| sign_in.key.is(key));
        all.iter().find(is_sent).cloned()
    }

    fn remove(&self, headers: &HeaderMap) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|sign_in| !keys(headers).any(|key| sign_in.key.is(key)));
    }
}

impl Server {
    /// The sign-in that the browser's cookie names.
    pub(super) fn signed_in(&self, headers: &HeaderMap) -> Option<SignIn> {
        self.console.as_ref()?.sign_ins.find(headers)
    }
}

/// 244 random bits.
fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn keys(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(COOKIE_NAME.as_bytes())?.strip_prefix(b"="))
}

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
