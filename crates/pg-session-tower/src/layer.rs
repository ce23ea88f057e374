//! [`SessionLayer`]: begins a session with each request, and closes it before the response's head leaves.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{CACHE_CONTROL, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use pg_session::{SessionManager, Signer};
use pg_session_web::{CacheScope, Error, ResponseChanges, Session, SessionConfig, is_cache_header};
use tower_layer::Layer;
use tower_service::Service;

use crate::head::Head;
use crate::refuse::{customize, refuse};

/// Puts a [`Session`](crate::Session) into each request, and saves it after the handler.
///
/// ```no_run
/// # fn f(manager: pg_session::SessionManager, signer: pg_session::Signer) {
/// use pg_session_tower::SessionLayer;
///
/// let app: axum::Router = axum::Router::new().layer(SessionLayer::new(manager, signer));
/// # }
/// ```
///
/// A layer inside of another one goes on with its session, if both use the same cookie: nested routers can each have one. The
/// settings of the outer layer hold then.
///
/// Put it around whatever uses sessions, and inside of what changes response headers (compression, CORS). Settings are made on
/// [`SessionConfig`], from which a layer is [made](SessionLayer::from), too.
#[derive(Clone, Debug)]
pub struct SessionLayer(SessionConfig);

impl SessionLayer {
    /// A layer with secure defaults.
    #[must_use]
    pub fn new(manager: SessionManager, signer: Signer) -> Self {
        SessionConfig::new(manager, signer).into()
    }

    /// A layer with secure defaults, and the key in the environment variable `SESSION_KEY`; see [`SessionConfig::from_env`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a key that is missing or wrong; the message names the variable.
    pub fn from_env(manager: SessionManager) -> Result<Self, Error> {
        SessionConfig::from_env(manager).map(Self)
    }
}

impl From<SessionConfig> for SessionLayer {
    fn from(sessions: SessionConfig) -> Self {
        Self(sessions)
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService { sessions: self.0.clone(), inner }
    }
}

/// A service with sessions; made by [`SessionLayer`].
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    sessions: SessionConfig,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for SessionService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<R, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.extensions().get().is_some_and(|outer: &Session| self.sessions.continues(outer)) {
            return ResponseFuture::new(self.inner.call(request));
        }
        if let Some(refusal) = self.sessions.refuse(&Head::of(&request)) {
            return ResponseFuture::new(async move { Ok(refuse(refusal)) });
        }
        let session = self.sessions.begin(&Head::of(&request));
        request.extensions_mut().insert(session.clone());
        ResponseFuture::new(respond(self.inner.call(request), session))
    }
}

/// The response of a [`SessionService`], or of a [`RequireLoginService`](crate::RequireLoginService).
pub struct ResponseFuture<R, E>(Pin<Box<dyn Future<Output = Result<Response<R>, E>> + Send>>);

impl<R, E> ResponseFuture<R, E> {
    pub(crate) fn new(response: impl Future<Output = Result<Response<R>, E>> + Send + 'static) -> Self {
        Self(Box::pin(response))
    }
}

impl<R, E> Future for ResponseFuture<R, E> {
    type Output = Result<Response<R>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<R, E> fmt::Debug for ResponseFuture<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

async fn respond<F, R, E>(handling: F, session: Session) -> Result<Response<R>, E>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default + 'static,
{
    // A service that fails has no response that could tell anything, and nothing is saved.
    let mut response = handling.await?;
    customize(&mut response, session.sessions());
    let headers = response.headers().iter();
    let scope =
        CacheScope::from_cache_control(headers.map(|(name, value)| (name.as_str(), value.as_bytes())));
    let closing = session.close(response.status().as_u16(), scope).await;
    Ok(answer(response, closing))
}

fn answer<R: Default + 'static>(response: Response<R>, closing: ResponseChanges) -> Response<R> {
    let mut response = match closing.refuse {
        None => response,
        Some(refusal) => refuse(refusal),
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
    let varies = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    let mut names = varies.flat_map(|value| value.split(',')).map(str::trim);
    if !names.any(|known| known == "*" || known.eq_ignore_ascii_case(name)) {
        headers.append(VARY, HeaderValue::from_static(name));
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::Ready;

    use axum_core::body::Body;

    use super::*;

    type Handling = Ready<Result<Response<Body>, Infallible>>;

    /// Each request allocates it. What only some requests need is in a box of its own.
    #[test]
    fn the_future_of_a_response_is_small() {
        fn bytes<A, B, F>(_: fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        let own = bytes(respond::<Handling, Body, Infallible>) - size_of::<Handling>();
        assert!(own <= 640, "{own} bytes beside the handler's");
    }
}
