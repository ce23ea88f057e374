//! [`SessionError`], [`LoginRequired`] and [`StepUp`]: errors of a session as responses.

use std::ops::Deref;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use pg_session_web::{Denied, Error, wrapped_error};

use crate::refuse::{respond, status_of};

macro_rules! response_errors {
    ($($(#[$attribute:meta])* $name:ident($error:ty);)*) => {$(
        wrapped_error! { $(#[$attribute])* $name($error) }

        impl ResponseError for $name {
            fn status_code(&self) -> StatusCode {
                status_of(&(&self.0).into())
            }

            fn error_response(&self) -> HttpResponse {
                self.0.log();
                respond((&self.0).into())
            }
        }
    )*};
}

response_errors! {
    /// What a handler returns when its session fails. The client gets the
    /// [refusal](Error::refusal): the status and one sentence as plain text. The log gets the rest.
    ///
    /// ```
    /// # use pg_session_actix::{Session, SessionError};
    /// async fn greet(session: Session) -> Result<String, SessionError> {
    ///     let name: Option<String> = session.get("name").await?;
    ///     Ok(format!("hello {}", name.unwrap_or_default()))
    /// }
    /// ```
    SessionError(Error);

    /// The error of [`SignedIn`](crate::SignedIn), of [`CurrentUser`](crate::CurrentUser) and of
    /// [`require_login`](crate::require_login): status 401 and a sentence, or 303 to the login page. Status 503 if the
    /// session cannot be read.
    LoginRequired(pg_session_web::LoginRequired);

    /// The error of [`Elevated`](crate::Elevated): status 403 with the header [`STEP_UP_HEADER`](crate::STEP_UP_HEADER),
    /// or, for a browser that asks for a page, 303 to [`step_up_page`](crate::SessionConfig::step_up_page). Status 503
    /// if the session cannot be read.
    StepUp(Denied);
}

impl Deref for SessionError {
    type Target = Error;

    fn deref(&self) -> &Error {
        &self.0
    }
}

impl From<pg_session::Error> for SessionError {
    fn from(error: pg_session::Error) -> Self {
        Self(error.into())
    }
}
