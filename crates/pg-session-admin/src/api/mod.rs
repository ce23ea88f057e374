//! The admin API: what the console shows and does, for programs that have the token. JSON over HTTP; `openapi.json` describes it.
//!
//! It never answers with a session id, only with handles.

mod error;
mod events;
mod findings;
mod locks;
mod nodes;
mod object;
mod revocations;
mod sessions;

use axum::extract::{DefaultBodyLimit, NestedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::json;

use self::error::ApiError;
use crate::Admin;
use crate::secret::Secret;

/// The description that clients are generated from; a test compares it with the routes and with answers.
const OPENAPI: &str = include_str!("openapi.json");
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Method, path and handler of each operation.
fn routes() -> [(&'static str, &'static str, MethodRouter<Admin>); 9] {
    [
        ("get", "/openapi.json", get(openapi)),
        ("get", "/status", get(status)),
        ("get", "/nodes", get(nodes::list)),
        ("get", "/events", get(events::list)),
        ("get", "/locks", get(locks::list)),
        ("get", "/findings", get(findings::list)),
        ("get", "/sessions", get(sessions::list)),
        ("get", "/sessions/{handle}", get(sessions::show)),
        ("post", "/revocations", post(revocations::create)),
    ]
}

/// The operations, behind the token.
pub(super) fn router(admin: &Admin) -> Router {
    let add = |router: Router<Admin>, (_, path, handler): (&str, &str, MethodRouter<Admin>)| {
        router.route(path, handler)
    };
    routes()
        .into_iter()
        .fold(Router::new(), add)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .route_layer(middleware::from_fn_with_state(admin.clone(), authorize))
        .fallback(no_operation)
        .with_state(admin.clone())
}

async fn authorize(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let is_known = admin.0.token.as_ref().is_some_and(|token| has_token(request.headers(), token));
    let mut response = if is_known {
        next.run(request).await
    } else {
        tracing::warn!(
            path = request.uri().path(),
            "a request to the admin API was refused: its token is wrong"
        );
        let refusal = ApiError::new(
            StatusCode::UNAUTHORIZED,
            "send the header authorization: Bearer, and the admin token",
        );
        ([(WWW_AUTHENTICATE, "Bearer")], refusal).into_response()
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Another path.
async fn no_operation() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no operation has this path; see openapi.json")
}

/// Another method. axum adds the header `allow`.
async fn other_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path has no such method; see the header allow, or openapi.json",
    )
}

fn has_token(headers: &HeaderMap, token: &Secret) -> bool {
    let mut sent = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let (Some(value), None) = (sent.next(), sent.next()) else { return false };
    value
        .split_at_checked(7)
        .is_some_and(|(scheme, text)| scheme.eq_ignore_ascii_case(b"bearer ") && token.is(text))
}

/// Names the path at which the router is nested.
async fn openapi(base: NestedPath) -> Response {
    let text = OPENAPI.replacen("/api/v1", base.as_str(), 1);
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

async fn status(State(admin): State<Admin>) -> Response {
    let manager = &admin.0.manager;
    let status = manager.status();
    let metrics = manager.metrics();
    let values: serde_json::Map<_, _> =
        metrics.iter().map(|metric| (metric.name.to_owned(), metric.value.into())).collect();
    Json(json!({
        "trusted": status.trusted_for.is_some(),
        "trust_error": status.trust_error,
        "metrics": values,
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_the_routes_and_no_others() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
            })
            .collect();
        let served = routes().map(|(method, path, _)| (method.to_owned(), path.to_owned()));
        assert_eq!(documented, BTreeSet::from(served));
    }

    #[test]
    fn one_bearer_token_is_accepted() {
        let text = "0123456789abcdef0123456789abcdef";
        let token = Secret::new(text).unwrap();
        let has = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            has_token(&headers, &token)
        };
        let good = format!("Bearer {text}");
        assert!(has(&[&good]) && has(&[&good.replace("Bearer", "bearer")]));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            text,
            &format!("Basic {text}"),
            &format!("{good}0"),
            &good[..good.len() - 1],
        ] {
            assert!(!has(&[wrong]), "{wrong}");
        }
        assert!(!has(&[]) && !has(&[&good, &good]));
    }
}
