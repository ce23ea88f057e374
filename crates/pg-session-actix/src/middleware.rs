//! [`SessionMiddleware`]: begins a session with each request, and closes it before the response's head leaves.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpMessage as _;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, VARY};
use pg_session::{SessionManager, Signer};
use pg_session_web::{CacheScope, ResponseChanges, Session, SessionConfig, is_cache_header};

use crate::head::Head;
use crate::refuse::{customize, refuse};

/// Puts a [`Session`](crate::Session) into each request, and saves it after the handler.
///
/// ```no_run
/// # fn f(manager: pg_session::SessionManager, signer: pg_session::Signer) {
/// use actix_web::App;
/// use pg_session_actix::SessionMiddleware;
///
/// let sessions = SessionMiddleware::new(manager, signer); // once, outside the factory
/// let app = move || App::new().wrap(sessions.clone());
/// # }
/// ```
///
/// A middleware inside of another one (of a scope) goes on with its session, if both use the same cookie. The settings of the
/// outer one hold then.
///
/// Settings are made on [`SessionConfig`], from which a middleware is [made](SessionMiddleware::from), too. If another middleware
/// between this one and the handler fails with an error instead of a response, nothing is saved.
#[derive(Clone, Debug)]
pub struct SessionMiddleware(SessionConfig);

impl SessionMiddleware {
    /// A middleware with secure defaults.
    #[must_use]
    pub fn new(manager: SessionManager, signer: Signer) -> Self {
        SessionConfig::new(manager, signer).into()
    }

    /// A middleware with secure defaults, and the key in the environment variable `SESSION_KEY`; see
    /// [`SessionConfig::from_env`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a key that is missing or wrong; the message names the variable.
    pub fn from_env(manager: SessionManager) -> Result<Self, pg_session_web::Error> {
        SessionConfig::from_env(manager).map(Self)
    }
}

impl From<SessionConfig> for SessionMiddleware {
    fn from(sessions: SessionConfig) -> Self {
        Self(sessions)
    }
}

impl<S, B> Transform<S, ServiceRequest> for SessionMiddleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Transform = SessionService<S>;
    type InitError = ();
    type Future = Ready<Result<SessionService<S>, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(SessionService { sessions: self.0.clone(), inner }))
    }
}

/// A service with sessions; made by [`SessionMiddleware`].
#[derive(Debug)]
pub struct SessionService<S> {
    sessions: SessionConfig,
    inner: S,
}

impl<S, B> Service<ServiceRequest> for SessionService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
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
        let continues =
            request.extensions().get().is_some_and(|outer: &Session| self.sessions.continues(outer));
        if continues {
            let handling = self.inner.call(request);
            return Box::pin(async move { Ok(handling.await?.map_into_left_body()) });
        }
        if let Some(refusal) = self.sessions.refuse(&Head(&request)) {
            return Box::pin(ready(Ok(request.into_response(refuse(refusal).map_into_right_body()))));
        }
        let session = self.sessions.begin(&Head(&request));
        request.extensions_mut().insert(session.clone());
        let handling = self.inner.call(request);
        Box::pin(async move {
            let response = customize(handling.await?, session.sessions());
            let headers = response.headers().iter();
            let scope = CacheScope::from_cache_control(
                headers.map(|(name, value)| (name.as_str(), value.as_bytes())),
            );
            let closing = session.close(response.status().as_u16(), scope).await;
            Ok(answer(response, closing))
        })
    }
}

fn answer<B: MessageBody>(
    response: ServiceResponse<EitherBody<B>>,
    closing: ResponseChanges,
) -> ServiceResponse<EitherBody<B>> {
    let mut response = match closing.refuse {
        None => response,
        Some(refusal) => response.into_response(refuse(refusal).map_into_right_body()),
    };
    let headers = response.headers_mut();
    for (name, value) in closing.headers {
        append(headers, HeaderName::from_static(name), &value);
    }
    if let Some(value) = closing.cache_control {
        let replaced = headers.iter();
        let replaced = replaced.filter(|(name, value)| is_cache_header(name.as_str(), value.as_bytes()));
        let replaced: Vec<_> = replaced.map(|(name, _)| name.clone()).collect();
        for name in replaced {
            headers.remove(name);
        }
        headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
    }
    if let Some(name) = closing.vary {
        vary(headers, name);
    }
    response
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(mut value) => {
            // Keeps it out of logs and of the compression state of HTTP/2.
            value.set_sensitive(true);
            headers.append(name, value);
        }
        // Names, domains and tokens have only visible ASCII; see `CookiePolicy`.
        Err(_) => tracing::error!(%name, "a header of the session could not be written"),
    }
}

fn vary(headers: &mut HeaderMap, name: &'static str) {
    let varies = headers.get_all(VARY).filter_map(|value| value.to_str().ok());
    let mut names = varies.flat_map(|value| value.split(',')).map(str::trim);
    if !names.any(|known| known == "*" || known.eq_ignore_ascii_case(name)) {
        headers.append(VARY, HeaderValue::from_static(name));
    }
}
