//! The extractor [`Session`].

use std::future::{Ready, ready};
use std::ops::Deref;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};

use crate::error::SessionError;
use crate::head;

/// The session of a request, as an extractor. Everything it can do is on [`pg_session_web::Session`].
///
/// ```
/// use pg_session_actix::{Session, SessionError};
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

/// Fails with status 500 if no [`SessionMiddleware`](crate::SessionMiddleware) is around the handler.
impl FromRequest for Session {
    type Error = SessionError;
    type Future = Ready<Result<Self, SessionError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(head::session(request).map(Self).map_err(SessionError::from))
    }
}
