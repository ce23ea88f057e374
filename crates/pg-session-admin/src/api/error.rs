//! [`ApiError`]: what an operation could not do, as JSON with the member `error`.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pg_session::{Error, ErrorKind};
use serde_json::json;

use crate::revoke::NoTarget;

/// A status that is not a success, and a sentence.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidArgument | ErrorKind::Malformed | ErrorKind::LimitExceeded => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<NoTarget> for ApiError {
    fn from(why: NoTarget) -> Self {
        match why {
            NoTarget::Unclear => Self::bad("give exactly one of user, group, label, handle and all"),
            NoTarget::Empty(name) => Self::bad(format!("{name} is empty; give the text that names it")),
            NoTarget::Unknown => Self::new(StatusCode::NOT_FOUND, "no live session has this handle"),
            NoTarget::Ambiguous => Self::new(
                StatusCode::CONFLICT,
                "several sessions have handles that begin so; give more digits",
            ),
            NoTarget::Failed(error) => error.into(),
        }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}
