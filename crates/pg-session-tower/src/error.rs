//! [`SessionError`]: an error of a session as a response.

use std::fmt;
use std::ops::Deref;

use axum_core::response::{IntoResponse, Response};
use pg_session_web::Error;

/// What a handler returns when its session fails: the client gets the status and a sentence, the log gets the rest.
///
/// ```
/// # use pg_session_tower::{Session, SessionError};
/// async fn greet(session: Session) -> Result<String, SessionError> {
///     let name: Option<String> = session.get("name").await?;
///     Ok(format!("hello {}", name.unwrap_or_default()))
/// }
/// ```
#[derive(Debug)]
pub struct SessionError(Error);

impl Deref for SessionError {
    type Target = Error;

    fn deref(&self) -> &Error {
        &self.0
    }
}

impl From<Error> for SessionError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<pg_session::Error> for SessionError {
    fn from(error: pg_session::Error) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SessionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The [refusal](Error::refusal): the status, and one sentence as plain text.
impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        self.0.log();
        crate::refuse::respond((&self.0).into())
    }
}
