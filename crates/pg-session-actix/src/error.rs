//! [`SessionError`]: an error of a session as a response.

use std::fmt;
use std::ops::Deref;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use pg_session_web::Error;

/// What a handler returns when its session fails: the client gets the status and a sentence, the log gets the rest.
///
/// ```
/// # use pg_session_actix::{Session, SessionError};
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
impl ResponseError for SessionError {
    fn status_code(&self) -> StatusCode {
        crate::refuse::status_of(&(&self.0).into())
    }

    fn error_response(&self) -> HttpResponse {
        self.0.log();
        crate::refuse::respond((&self.0).into())
    }
}
