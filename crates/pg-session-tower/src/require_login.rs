//! [`require_login`]: a layer that lets only signed-in users reach the routes inside of it.

use std::task::{Context, Poll};

use axum_core::body::Body;
use axum_core::response::{IntoResponse, Response};
use http::Request;
use pg_session_web::LoginGuard;
use tower_layer::Layer;
use tower_service::Service;

use crate::layer::ResponseFuture;

/// Lets only signed-in users reach the routes inside of it. A browser that asks for a page is sent to `page?next=PAGE`;
/// everything else gets status 401. Requests for `page` itself pass.
///
/// ```no_run
/// # fn f(manager: pg_session::SessionManager, signer: pg_session::Signer) {
/// use axum::{Router, routing::get};
/// use pg_session_tower::{SessionLayer, require_login};
///
/// let app: Router = Router::new()
///     .route("/account", get("yours"))
///     .route_layer(require_login("/login")) // the routes above need a login
///     .route("/login", get("a form"))
///     .layer(SessionLayer::new(manager, signer)); // around it
/// # }
/// ```
///
/// # Panics
/// If `page` is not a path of this site, without a query, such as `/login`. Routers panic for a
/// wrong path as well. It is a mistake in the program that shows at the first start.
#[must_use]
pub fn require_login(page: &'static str) -> RequireLogin {
    RequireLogin(LoginGuard::new(page))
}

/// The layer of [`require_login`].
#[derive(Clone, Copy, Debug)]
pub struct RequireLogin(LoginGuard);

impl<S> Layer<S> for RequireLogin {
    type Service = RequireLoginService<S>;

    fn layer(&self, inner: S) -> RequireLoginService<S> {
        RequireLoginService { guard: self.0, inner }
    }
}

/// The service of [`require_login`].
#[derive(Clone, Debug)]
pub struct RequireLoginService<S> {
    guard: LoginGuard,
    inner: S,
}

impl<S, B> Service<Request<B>> for RequireLoginService<S>
where
    S: Service<Request<B>, Response = Response> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = ResponseFuture<Body, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let ready = self.inner.clone();
        // The one that was polled is ready; a clone may not be.
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let guard = self.guard;
        ResponseFuture::new(async move {
            match guard.admit(request.extensions().get().cloned()).await {
                Ok(()) => inner.call(request).await,
                Err(required) => Ok(crate::LoginRequired::from(required).into_response()),
            }
        })
    }
}
