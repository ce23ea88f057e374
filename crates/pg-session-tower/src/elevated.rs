//! [`Elevated`]: lets through only sessions that have stepped up.

use std::fmt;
use std::marker::PhantomData;

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;
use pg_session_web::{Denied, Privilege};

use crate::head;
use crate::refuse::respond;

/// A session with a privilege, as an extractor: put it before the extractors that read the body.
///
/// ```
/// use pg_session_tower::{Elevated, Privilege};
///
/// struct Billing;
///
/// impl Privilege for Billing {
///     const NAME: &'static str = "billing";
/// }
///
/// async fn pay(_: Elevated<Billing>) -> &'static str {
///     "paid"
/// }
/// ```
pub struct Elevated<P>(PhantomData<fn() -> P>);

/// Rejects with [`StepUp`].
impl<P: Privilege, S: Send + Sync> FromRequestParts<S> for Elevated<P> {
    type Rejection = StepUp;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StepUp> {
        let session = head::session(parts).map_err(|error| StepUp(Denied::Failed(error)))?;
        session.require_elevation(P::NAME).await.map_err(StepUp)?;
        Ok(Self(PhantomData))
    }
}

impl<P> fmt::Debug for Elevated<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Elevated")
    }
}

/// The rejection of [`Elevated`]: status 403 with the header [`STEP_UP_HEADER`](crate::STEP_UP_HEADER), or, for a browser that asks
/// for a page, 303 to [`step_up_page`](crate::SessionConfig::step_up_page).
#[derive(Debug)]
pub struct StepUp(Denied);

impl fmt::Display for StepUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for StepUp {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl IntoResponse for StepUp {
    fn into_response(self) -> Response {
        if let Some(error) = self.0.error() {
            error.log();
        }
        respond((&self.0).into())
    }
}
