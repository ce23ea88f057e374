//! [`Visit`]: a request of a signed-in operator, and who is let in.

use std::sync::Arc;

use axum::extract::{NestedPath, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::cookies::{cookies, set_cookie};
use super::sign_ins::random;
use super::tabs::is_address;
use super::{FIRST_PAGE, to};
use crate::secret::Secret;
use crate::{Admin, Operator};

/// Has the form token of an operator whom the host application has signed in. Only a page of this
/// site can send the same text in a form.
const FORM_COOKIE: &str = "pg-session-console-form";

/// What a page is rendered for.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// The path below which the pages are.
    pub(super) base: Arc<str>,
    /// In each form of a page, where another site cannot read it.
    pub(super) form_token: Arc<Secret>,
    pub(super) may_change: bool,
    /// `None` after a sign-in with the token.
    pub(super) operator: Option<String>,
}

/// The path below which the pages are, without a slash at the end.
pub(super) fn base(path: &NestedPath) -> &str {
    path.as_str().trim_end_matches('/')
}

/// Lets a signed-in browser pass, and sends another one to the sign-in.
pub(super) async fn require(
    State(admin): State<Admin>,
    path: NestedPath,
    mut request: Request,
    next: Next,
) -> Response {
    let base = base(&path);
    if let Some(operator) = request.extensions().get::<Operator>().cloned() {
        return as_operator(&operator, base, request, next).await;
    }
    let console = &admin.0.console;
    match console.sign_ins.find(request.headers()) {
        Some(sign_in) => {
            request.extensions_mut().insert(Visit {
                base: base.into(),
                form_token: sign_in.form_token,
                may_change: console.allow_changes,
                operator: None,
            });
            next.run(request).await
        }
        None if admin.0.token.is_some() && request.method().is_safe() && !is_stream(&request) => {
            to(base, &sign_in_for(request.uri()))
        }
        None => (StatusCode::UNAUTHORIZED, "sign in first\n").into_response(),
    }
}

/// The page of the sign-in, with the address to which it leads back.
fn sign_in_for(uri: &Uri) -> String {
    let wanted = uri.path_and_query().map_or("", |wanted| wanted.as_str());
    if !is_address(wanted) || wanted == FIRST_PAGE {
        return "/sign-in".to_owned();
    }
    let mut text = "/sign-in?to=".to_owned();
    for byte in wanted.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'/' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn is_stream(request: &Request) -> bool {
    request.uri().path() == "/stream"
}

async fn as_operator(operator: &Operator, base: &str, mut request: Request, next: Next) -> Response {
    let (token, is_new) = match form_cookie(request.headers()) {
        Some(token) => (token, false),
        None => (random(), true),
    };
    let cookie = is_new.then(|| set_cookie(request.headers(), FORM_COOKIE, &token, base, None));
    request.extensions_mut().insert(Visit {
        base: base.into(),
        form_token: Arc::new(Secret::known(token)),
        may_change: operator.may_change(),
        operator: Some(operator.name().to_owned()),
    });
    let mut response = next.run(request).await;
    if let Some(cookie) = cookie.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Only a text as this program makes it.
fn form_cookie(headers: &HeaderMap) -> Option<String> {
    let mut found = cookies(headers, FORM_COOKIE);
    let (Some(value), None) = (found.next(), found.next()) else { return None };
    let is_ours = value.len() == random().len() && value.iter().all(u8::is_ascii_hexdigit);
    is_ours.then(|| String::from_utf8_lossy(value).into_owned())
}
