//! [`require_login`]: a middleware that lets only signed-in users reach what it is around.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::HttpMessage as _;
use actix_web::ResponseError as _;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use pg_session_web::{Error, LoginRequired, NextPage, Session};

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
#[allow(clippy::panic, reason = "a wrong literal shows at the first start")]
pub fn require_login(page: &'static str) -> RequireLogin {
    let own = NextPage::new(page).as_str() == page && !page.contains(['?', '#']);
    assert!(own, "the login page must be a path on this site, like `/login`");
    RequireLogin { page }
}

/// The middleware of [`require_login`].
#[derive(Clone, Copy, Debug)]
pub struct RequireLogin {
    page: &'static str,
}

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
        ready(Ok(RequireLoginService { page: self.page, inner: Rc::new(inner) }))
    }
}

/// The service of [`require_login`].
#[derive(Debug)]
pub struct RequireLoginService<S> {
    page: &'static str,
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
        let (page, inner) = (self.page, Rc::clone(&self.inner));
        Box::pin(async move {
            let session = request.extensions().get().cloned();
            match admit(session, page).await {
                Ok(()) => Ok(inner.call(request).await?.map_into_left_body()),
                Err(required) => {
                    let response = crate::LoginRequired::from(required).error_response();
                    Ok(request.into_response(response.map_into_right_body()))
                }
            }
        })
    }
}

async fn admit(session: Option<Session>, page: &str) -> Result<(), LoginRequired> {
    let session = session.ok_or_else(Error::no_layer)?;
    if !session.asks_for(page) {
        session.require_login_at(Some(page)).await?;
    }
    Ok(())
}
