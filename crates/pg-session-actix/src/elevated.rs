//! [`Elevated`]: lets through only sessions that have stepped up.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError};
use pg_session_web::{Denied, Privilege};

use crate::head;
use crate::refuse::{respond, status_of};

/// A session with a privilege, as an extractor.
///
/// ```
/// use pg_session_actix::{Elevated, Privilege};
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

/// Fails with [`StepUp`].
impl<P: Privilege> FromRequest for Elevated<P> {
    type Error = StepUp;
    type Future = Pin<Box<dyn Future<Output = Result<Self, StepUp>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let session = head::session(request);
        Box::pin(async move {
            let demanded = match session {
                Ok(session) => session.require_elevation(P::NAME).await,
                Err(error) => Err(Denied::Failed(error)),
            };
            demanded.map(|()| Self(PhantomData)).map_err(StepUp)
        })
    }
}

impl<P> fmt::Debug for Elevated<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Elevated")
    }
}

/// The error of [`Elevated`]: status 403 with the header [`STEP_UP_HEADER`](crate::STEP_UP_HEADER), or, for a browser that asks for
/// a page, 303 to [`step_up_page`](crate::SessionConfig::step_up_page).
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

impl ResponseError for StepUp {
    fn status_code(&self) -> StatusCode {
        status_of(&(&self.0).into())
    }

    fn error_response(&self) -> HttpResponse {
        if let Some(error) = self.0.error() {
            error.log();
        }
        respond((&self.0).into())
    }
}
