//! [`SignedIn`] and [`CurrentUser`]: let through only requests of a user who is signed in.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use pg_session::UserId;

use crate::{LoginRequired, head};

/// The user who is signed in, as an extractor.
///
/// A visitor gets status 401. With [`login_page`](crate::SessionConfig::login_page), a browser that asks for a page is sent
/// there instead. `Option<SignedIn>` lets visitors through. If the session cannot be read, actix hands that option `None`,
/// **and the middleware replaces the response with status 503**.
///
/// **Without the middleware, that option is always `None`**: actix drops the error of an optional extractor, so the status
/// cannot be 500. Each such request is logged at ERROR. [`Session`](crate::Session) fails with status 500.
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

/// The user who is signed in, as [`load_user`](crate::SessionConfig::load_user) loads it, as an extractor. It is kept in memory
/// with the session, so most requests need no query.
///
/// A visitor, and a user whom that function does not find, is answered as by [`SignedIn`]. `Option<CurrentUser<T>>` lets both
/// through. If the user cannot be loaded, the status is 503. Without the middleware, that option is `None` as well.
///
/// ```
/// use pg_session_actix::CurrentUser;
///
/// struct User {
///     name: String,
/// }
///
/// async fn account(user: CurrentUser<User>) -> String {
///     format!("the account of {}", user.name)
/// }
/// ```
#[derive(Debug)]
pub struct CurrentUser<T>(pub Arc<T>);

impl<T> Clone for CurrentUser<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for CurrentUser<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Send + Sync + 'static> FromRequest for CurrentUser<T> {
    type Error = LoginRequired;
    type Future = Pin<Box<dyn Future<Output = Result<Self, LoginRequired>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let session = head::session(request);
        Box::pin(async move {
            let session = session.map_err(pg_session_web::LoginRequired::from)?;
            Ok(Self(session.require_user().await?))
        })
    }
}
