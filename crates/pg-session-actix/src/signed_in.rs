//! [`SignedIn`]: lets through only requests of a user who is signed in.

use std::fmt;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError};
use pg_session::UserId;

use crate::head;
use crate::refuse::{redirect, refused};

/// The user who is signed in, as an extractor.
///
/// A visitor gets status 401. With [`login_page`](crate::SessionConfig::login_page), a browser that asks for a page is sent
/// there instead. `Option<SignedIn>` lets visitors through. If the session cannot be read, actix hands that option `None`,
/// **and the middleware replaces the response with status 503**.
///
/// ```
/// use pg_session_actix::SignedIn;
///
/// async fn account(SignedIn(user): SignedIn) -> String {
///     format!("the account of {user}")
/// }
///
/// async fn home(user: Option<SignedIn>) -> &'static str {
///     if user.is_some() { "welcome back" } else { "hello" }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignedIn(pub UserId);

impl FromRequest for SignedIn {
    type Error = LoginRequired;
    type Future = Pin<Box<dyn Future<Output = Result<Self, LoginRequired>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let session = head::session(request);
        Box::pin(async move {
            let session = session.map_err(pg_session_web::LoginRequired::from)?;
            Ok(Self(session.require_login().await?))
        })
    }
}

/// The error of [`SignedIn`] and of [`require_login`](crate::require_login): status 401 and a sentence, or 303 to the login
/// page.
#[derive(Debug)]
pub struct LoginRequired(pg_session_web::LoginRequired);

impl From<pg_session_web::LoginRequired> for LoginRequired {
    fn from(required: pg_session_web::LoginRequired) -> Self {
        Self(required)
    }
}

impl fmt::Display for LoginRequired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for LoginRequired {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl ResponseError for LoginRequired {
    fn status_code(&self) -> StatusCode {
        match self.0.location() {
            Some(_) => StatusCode::SEE_OTHER,
            None => {
                StatusCode::from_u16(self.0.refusal().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    fn error_response(&self) -> HttpResponse {
        if let Some(error) = self.0.error() {
            error.log();
        }
        match self.0.location() {
            Some(page) => redirect(page),
            None => refused(self.0.refusal()),
        }
    }
}
