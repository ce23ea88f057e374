//! [`ApiError`]: what an operation could not do, as JSON with the member `error`.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pg_session::Error;
use serde_json::json;

use crate::revoke::{NoTarget, status_of};

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
        Self::new(status_of(&error), error.to_string())
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
        let text = rejection.body_text();
        let message = match &rejection {
            JsonRejection::MissingJsonContentType(_) => {
                "send the header content-type: application/json, and a JSON object".to_owned()
            }
            JsonRejection::JsonSyntaxError(_) => {
                format!("the body is not JSON: {}; send a JSON object as in openapi.json", cause(&text))
            }
            JsonRejection::JsonDataError(_) => {
                format!("the body does not fit: {}; send a JSON object as in openapi.json", cause(&text))
            }
            _ => text,
        };
        Self::new(rejection.status(), message)
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        let text = rejection.body_text();
        let message = format!("the path cannot be read: {}; send one as in openapi.json", cause(&text));
        Self::new(rejection.status(), message)
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        let message = format!("the query does not fit: {}; send parameters as in openapi.json", cause(&text));
        Self::new(rejection.status(), message)
    }
}

/// What is wrong, without the words of axum that name a type of this program.
fn cause(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, cause)| cause)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}
