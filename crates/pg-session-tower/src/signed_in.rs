//! [`SignedIn`] and [`CurrentUser`]: let through only requests of a user who is signed in.

use std::ops::Deref;
use std::sync::Arc;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use pg_session::UserId;

use crate::{LoginRequired, head};

/// The user who is signed in, as an extractor.
///
/// A visitor gets status 401. With [`login_page`](crate::SessionConfig::login_page), a browser that asks for a page is sent
/// there instead. `Option<SignedIn>` lets visitors through. **If the session cannot be read, both reject with status 503.**
///
/// ```
/// use pg_session_tower::SignedIn;
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

impl<S: Send + Sync> FromRequestParts<S> for SignedIn {
    type Rejection = LoginRequired;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, LoginRequired> {
        let session = head::session(parts).map_err(pg_session_web::LoginRequired::from)?;
        Ok(Self(session.require_login().await?))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for SignedIn {
    type Rejection = LoginRequired;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, LoginRequired> {
        let session = head::session(parts).map_err(pg_session_web::LoginRequired::from)?;
        optional(session.require_login().await).map(|user| user.map(Self))
    }
}

/// The user who is signed in, as [`load_user`](crate::SessionConfig::load_user) loads it, as an extractor. It is kept in memory
/// with the session, so most requests need no query.
///
/// A visitor, and a user whom that function does not find, is answered as by [`SignedIn`]. `Option<CurrentUser<T>>` lets both
/// through. If the user cannot be loaded, both reject with status 503.
///
/// ```
/// use pg_session_tower::CurrentUser;
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

impl<T: Send + Sync + 'static, S: Send + Sync> FromRequestParts<S> for CurrentUser<T> {
    type Rejection = LoginRequired;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, LoginRequired> {
        let session = head::session(parts).map_err(pg_session_web::LoginRequired::from)?;
        Ok(Self(session.require_user().await?))
    }
}

impl<T: Send + Sync + 'static, S: Send + Sync> OptionalFromRequestParts<S> for CurrentUser<T> {
    type Rejection = LoginRequired;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, LoginRequired> {
        let session = head::session(parts).map_err(pg_session_web::LoginRequired::from)?;
        optional(session.require_user().await).map(|user| user.map(Self))
    }
}

/// A visitor is `None`. A session that cannot be read is still an error.
pub(crate) fn optional<T>(
    outcome: Result<T, pg_session_web::LoginRequired>,
) -> Result<Option<T>, LoginRequired> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(required) if required.error().is_none() => Ok(None),
        Err(failed) => Err(failed.into()),
    }
}
