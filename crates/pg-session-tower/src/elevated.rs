//! [`Elevated`]: lets through only sessions that have stepped up.

use std::fmt;
use std::marker::PhantomData;

use axum_core::extract::FromRequestParts;
use http::request::Parts;
use pg_session_web::{Denied, Privilege};

use crate::{StepUp, head};

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
        let session = head::session(parts).map_err(Denied::from)?;
        session.require_elevation(P::NAME).await?;
        Ok(Self(PhantomData))
    }
}

impl<P> fmt::Debug for Elevated<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Elevated")
    }
}
