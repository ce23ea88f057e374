//! [`require_login`]: a middleware that lets only signed-in users reach what it is around.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::HttpMessage as _;
use actix_web::ResponseError as _;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use pg_session_web::LoginGuard;

/// Lets only signed-in users reach the scope that it is around. A browser that asks for a page is sent to
/// `page?next=PAGE`; everything else gets status 401. Requests for `page` itself pass.
///
/// ```no_run
/// # fn f(sessions: pg_session_actix::SessionMiddleware) {
/// use actix_web::{App, web};
/// use pg_session_actix::require_login;
///
/// let app = App::new()
///     .wrap(sessions) // around it
///     .service(web::scope("/account").wrap(require_login("/login")).route("", web::get().to(async || "yours")))
///     .route("/login", web::get().to(async || "a form"));
/// # }
/// ```
///
/// # Panics
/// If `page` is not a path of this site, without a query, such as `/login`. It is a mistake in the program that shows at the
/// first start.
#[must_use]
pub fn require_login(page: &'static str) -> RequireLogin {
    RequireLogin(LoginGuard::new(page))
}

/// The middleware of [`require_login`].
#[derive(Clone, Copy, Debug)]
pub struct RequireLogin(LoginGuard);

impl<S, B> Transform<S, ServiceRequest> for RequireLogin
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Transform = RequireLoginService<S>;
    type InitError = ();
    type Future = Ready<Result<RequireLoginService<S>, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(RequireLoginService { guard: self.0, inner: Rc::new(inner) }))
    }
}

/// The service of [`require_login`].
#[derive(Debug)]
pub struct RequireLoginService<S> {
    guard: LoginGuard,
    inner: Rc<S>,
}

impl<S, B> Service<ServiceRequest> for RequireLoginService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, actix_web::Error>>>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), actix_web::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let (guard, inner) = (self.guard, Rc::clone(&self.inner));
        Box::pin(async move {
            let session = request.extensions().get().cloned();
            match guard.admit(session).await {
                Ok(()) => Ok(inner.call(request).await?.map_into_left_body()),
                Err(required) => {
                    let response = crate::LoginRequired::from(required).error_response();
                    Ok(request.into_response(response.map_into_right_body()))
                }
            }
        })
    }
}
