//! The extractor [`Session`].

use std::ops::Deref;

use axum_core::extract::FromRequestParts;
use http::request::Parts;

use crate::error::SessionError;
use crate::head;

/// The session of a request, as an extractor. Everything it can do is on [`pg_session_web::Session`].
///
/// ```
/// use pg_session_tower::{Session, SessionError};
///
/// async fn visits(session: Session) -> Result<String, SessionError> {
///     let visits = session.modify("visits", |visits: Option<u32>| visits.unwrap_or(0) + 1).await?;
///     Ok(format!("visit number {visits}"))
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Session(pg_session_web::Session);

impl Deref for Session {
    type Target = pg_session_web::Session;

    fn deref(&self) -> &pg_session_web::Session {
        &self.0
    }
}

/// Rejects with status 500 if no [`SessionLayer`](crate::SessionLayer) is around the handler.
impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionError> {
        Ok(Self(head::session(parts)?))
    }
}
