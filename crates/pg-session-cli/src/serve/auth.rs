//! Forward authentication: who is signed in, for nginx `auth_request`, Traefik, Caddy and Envoy's HTTP `ext_authz`.
//!
//! | answer | meaning |
//! |---|---|
//! | 200 | signed in; the headers say who |
//! | 401 | no session, or one without a user |
//! | 403 | a change that another site has caused, or a proxy without the secret |
//! | 503 | the state cannot be proved: the node is not in sync, and the database does not answer |
//!
//! An answer of 200 has **every** identity header, if need be with an empty value. Proxies replace what a client has sent in a
//! header only if the answer has that header.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pg_session::Session;
use pg_session_admin::Secret;
use pg_session_web::CacheScope;
use serde_json::Value;

use super::Server;
use super::auth_head::AuthHead;

/// The user: a number, or a UUID.
pub(super) const USER_HEADER: &str = "x-session-user";
/// The public name of the session.
pub(super) const HANDLE_HEADER: &str = "x-session-handle";
/// What only the proxy knows.
pub(super) const SECRET_HEADER: &str = "x-pg-session-secret";

/// Bytes of an attribute in a header, at most. Proxies take heads of 4 to 8 kB.
const VALUE_BYTES_MAX: usize = 1_024;

/// Which proxies may ask, and what the answer has.
#[derive(Debug)]
pub(super) struct ProxyAccess {
    secret: Option<Secret>,
    attributes: Vec<AttributeHeader>,
}

/// An attribute, and the header that it is sent in.
#[derive(Clone, Debug)]
pub(super) struct AttributeHeader {
    pub(super) key: String,
    pub(super) name: HeaderName,
}

impl ProxyAccess {
    pub(super) fn new(secret: Option<Secret>, attributes: Vec<AttributeHeader>) -> Self {
        Self { secret, attributes }
    }

    /// Whether the request has the secret, or none is needed.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = &self.secret else { return true };
        let mut sent = headers.get_all(SECRET_HEADER).iter();
        // Two of them: a client has added one, and the proxy does not replace it.
        sent.next().is_some_and(|value| secret.is(value.as_bytes())) && sent.next().is_none()
    }
}

/// Answers a proxy.
pub(super) async fn authenticate(State(server): State<Arc<Server>>, request: Request) -> Response {
    if !server.proxies.admits(request.headers()) {
        tracing::warn!("a request for authentication was refused: it does not have the proxy's secret");
        let message = format!("the header {SECRET_HEADER} does not have the proxy's secret\n");
        return answer(StatusCode::FORBIDDEN, message);
    }
    let session = {
        let head = AuthHead::of(&request);
        if let Some(refusal) = server.sessions.refuse(&head) {
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::FORBIDDEN);
            return answer(status, refusal.body);
        }
        server.sessions.begin(&head)
    };
    let outcome = session.snapshot().await;
    // Counts the access. What it says about cookies is for the application, which sets them.
    let _ = session.close(StatusCode::OK.as_u16(), CacheScope::Never).await;
    match outcome {
        Ok(Some(session)) => match session.user_id() {
            Some(user) => {
                let mut response = answer(StatusCode::OK, "signed in\n".to_owned());
                identify(response.headers_mut(), &session, &user.to_string(), &server.proxies.attributes);
                response
            }
            None => answer(StatusCode::UNAUTHORIZED, "no user is signed in\n".to_owned()),
        },
        Ok(None) => answer(StatusCode::UNAUTHORIZED, "no session\n".to_owned()),
        Err(error) => {
            tracing::warn!(%error, "a session could not be proved");
            answer(StatusCode::SERVICE_UNAVAILABLE, "the state of the session cannot be proved\n".to_owned())
        }
    }
}

fn answer(status: StatusCode, body: String) -> Response {
    ([(CACHE_CONTROL, "no-store"), (VARY, "cookie")], (status, body)).into_response()
}

fn identify(headers: &mut HeaderMap, session: &Session, user: &str, attributes: &[AttributeHeader]) {
    let mut set = |name: HeaderName, text: &str| {
        headers.insert(name, header_value(text));
    };
    set(HeaderName::from_static(USER_HEADER), user);
    set(HeaderName::from_static(HANDLE_HEADER), &session.id().handle().to_string());
    for AttributeHeader { key, name } in attributes {
        set(name.clone(), &session.get_raw(key).map(text_of).unwrap_or_default());
    }
}

/// A JSON text without its quotes; nothing for `null`; anything else as JSON.
fn text_of(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(Value::String(text)) => text,
        Ok(Value::Null) => String::new(),
        Ok(_) | Err(_) => json.to_owned(),
    }
}

/// Empty for a text that a header cannot carry unchanged: other characters than visible ASCII and spaces within, or too long.
fn header_value(text: &str) -> HeaderValue {
    let is_safe = text.len() <= VALUE_BYTES_MAX
        && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && text.trim() == text;
    if !is_safe {
        tracing::debug!("an attribute is not sent: a header cannot carry it");
    }
    let safe = HeaderValue::from_str(text).ok().filter(|_| is_safe);
    safe.unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_header_safe_values_are_sent() {
        for (json, expected) in [
            (r#""admin""#, "admin"),
            (r#""two words""#, "two words"),
            ("42", "42"),
            ("true", "true"),
            (r#"["a","b"]"#, r#"["a","b"]"#),
            ("null", ""),
            (r#""""#, ""),
            (r#"" padded""#, ""),
            (r#""a\r\nx-session-user: 1""#, ""),
            (r#""tab\t""#, ""),
            (r#""Zoë""#, ""),
            (r#""\u0000""#, ""),
        ] {
            assert_eq!(header_value(&text_of(json)), expected, "{json}");
        }
        let longest = "x".repeat(VALUE_BYTES_MAX);
        assert_eq!(header_value(&longest), longest);
        assert_eq!(header_value(&format!("{longest}x")), "");
    }
}
