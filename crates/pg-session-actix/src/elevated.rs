//! [`Elevated`]: lets through only sessions that have stepped up.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use pg_session_web::{Denied, Privilege};

use crate::{StepUp, head};

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
            session.map_err(Denied::from)?.require_elevation(P::NAME).await?;
            Ok(Self(PhantomData))
        })
    }
}

impl<P> fmt::Debug for Elevated<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Elevated")
    }
}
