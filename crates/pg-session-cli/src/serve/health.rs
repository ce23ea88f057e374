//! Health and metrics: whether the process lives, can answer, and may answer from memory.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use pg_session::{Metrics, SessionId};
use serde_json::json;
use uuid::Uuid;

use super::Server;

/// How long the database may take to answer. Orchestrators give up after one to ten seconds.
const DATABASE_WAIT: Duration = Duration::from_secs(2);
const NO_STORE: (axum::http::HeaderName, &str) = (CACHE_CONTROL, "no-store");

/// The process answers: do not restart it.
pub(super) async fn live() -> Response {
    plain(StatusCode::OK, "live\n")
}

/// Requests can be answered: from memory, or because the database answers.
pub(super) async fn ready(State(server): State<Arc<Server>>) -> Response {
    let manager = server.manager();
    if server.stop.is_cancelled() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    }
    if manager.status().trusted_for.is_some() {
        return plain(StatusCode::OK, "ready: in sync\n");
    }
    // No session has this id, so the statement finds nothing.
    let read = manager.get(SessionId::from_uuid(Uuid::new_v4())).bypass_cache().no_touch();
    match tokio::time::timeout(DATABASE_WAIT, read).await {
        Ok(Ok(_)) => plain(StatusCode::OK, "ready: the database answers\n"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            plain(StatusCode::SERVICE_UNAVAILABLE, "not in sync, and the database does not answer\n")
        }
        Err(_) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "not in sync, and the database does not answer in time\n")
        }
    }
}

/// Whether this node may answer from memory, and until when. The cause may name hosts and
/// roles: only a caller with the secret sees it, if there is one.
pub(super) async fn trust(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    let status = server.manager().status();
    let trusted = status.trusted_for.is_some();
    let code = if trusted { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "trusted": trusted,
        "trusted_for_seconds": status.trusted_for.map(|left| left.as_secs_f64()),
        "error": status.trust_error.filter(|_| server.proxies.admits(&headers)),
    });
    (code, [NO_STORE], Json(body)).into_response()
}

/// For Prometheus.
pub(super) async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let text = server.manager().metrics().to_string();
    ([(CONTENT_TYPE, Metrics::CONTENT_TYPE), NO_STORE], text).into_response()
}

fn plain(status: StatusCode, body: &'static str) -> Response {
    (status, [NO_STORE], body).into_response()
}
