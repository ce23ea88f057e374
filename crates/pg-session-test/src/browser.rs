//! [`Browser`]: requests with cookies, as a browser sends them.

use std::fmt;
use std::net::SocketAddr;

use axum_core::body::Body;
use http::header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::{Service, ServiceExt};

use crate::cookies::CookieJar;
use crate::database::TestDatabase;
use crate::service::{Application, at, in_process};

/// The default name of the session's cookie.
const SESSION_COOKIE: &str = "__Host-session";
const HOST_NAME: &str = "localhost";

/// A browser at the application. It keeps cookies by the rules of browsers (path, `Secure`, `__Host-`, expiry) and
/// marks its requests as same-origin. It does not follow redirects.
///
/// Clones are other browsers with the same cookies.
#[derive(Clone)]
pub struct Browser {
    application: Application,
    jar: CookieJar,
    headers: HeaderMap,
}

impl Browser {
    /// A browser at a router of axum, or another tower service, in this process. Requests count as HTTPS.
    ///
    /// # Panics
    /// In each request, if the service returns an error.
    pub fn new<S, B>(router: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: fmt::Display,
        S::Future: Send,
        B: http_body_util::BodyExt<Data = Bytes> + Send,
        B::Error: fmt::Display,
    {
        Self::of(in_process(router))
    }

    /// A browser at a server that listens at `addr`, for example one of actix. It keeps `Secure` cookies, as browsers do for
    /// `localhost` or behind a proxy that ends TLS.
    #[must_use]
    pub fn at(addr: SocketAddr) -> Self {
        Self::of(at(addr))
    }

    fn of(application: Application) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(HOST_NAME));
        headers.insert(USER_AGENT, HeaderValue::from_static("pg-session-test"));
        headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        Self { application, jar: CookieJar::new(), headers }
    }

    /// Lets the cookies age with [`TestDatabase::let_pass`].
    #[must_use]
    pub fn with_time_of(mut self, database: &TestDatabase) -> Self {
        self.jar.passed = database.passed();
        self
    }

    /// The same browser, with the same cookies, at another node of the application.
    pub fn move_to<S, B>(&mut self, router: S)
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: fmt::Display,
        S::Future: Send,
        B: http_body_util::BodyExt<Data = Bytes> + Send,
        B::Error: fmt::Display,
    {
        self.application = in_process(router);
    }

    /// Sets a header of every later request, for example `X-Forwarded-For`.
    ///
    /// # Panics
    /// If it is no valid header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name =
            HeaderName::try_from(name).unwrap_or_else(|error| panic!("{name:?} is no header: {error}"));
        let value = HeaderValue::try_from(value).unwrap_or_else(|error| panic!("{value:?}: {error}"));
        self.headers.insert(name, value);
        self
    }

    /// Sends `GET path`.
    pub async fn get(&mut self, path: &str) -> Reply {
        self.send(Method::GET, path, None, Vec::new()).await
    }

    /// Sends `POST path` without a body.
    pub async fn post(&mut self, path: &str) -> Reply {
        self.send(Method::POST, path, None, Vec::new()).await
    }

    /// Sends `POST path` with a value as JSON.
    ///
    /// # Panics
    /// If `value` cannot be written as JSON.
    pub async fn post_json<T: Serialize + ?Sized>(&mut self, path: &str, value: &T) -> Reply {
        let body = serde_json::to_vec(value).unwrap_or_else(|error| panic!("the body is not JSON: {error}"));
        self.send(Method::POST, path, Some("application/json"), body).await
    }

    /// Sends `POST path` with the fields of a form.
    pub async fn post_form(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        self.send(Method::POST, path, Some("application/x-www-form-urlencoded"), body.join("&").into()).await
    }

    /// Sends a request with any method and body, with the cookies and headers of this browser.
    ///
    /// # Panics
    /// If `path` is no valid path, or the application does not respond within [`WAIT_MAX`](crate::WAIT_MAX).
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        body: Vec<u8>,
    ) -> Reply {
        let request = Request::builder().method(method).uri(path).body(Body::from(body));
        let mut request = request.unwrap_or_else(|error| panic!("{path:?} is no path: {error}"));
        request.headers_mut().clone_from(&self.headers);
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let request_path = request.uri().path().to_owned();
        if let Some(cookies) = self.jar.header(&request_path) {
            let cookies = HeaderValue::try_from(cookies).expect("cookies are made of valid text");
            request.headers_mut().insert(COOKIE, cookies);
        }
        let Ok(answer) = self.application.clone().oneshot(request).await;
        for cookie in answer.headers.get_all(SET_COOKIE) {
            if let Ok(cookie) = cookie.to_str() {
                self.jar.receive(cookie, &request_path);
            }
        }
        Reply { status: answer.status, headers: answer.headers, body: answer.body }
    }

    /// Closes and opens the browser: cookies without an age end.
    pub fn restart(&mut self) {
        self.jar.restart();
    }

    /// The value of a cookie.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.jar.get(name)
    }

    /// Sets a cookie, as an attacker or another program would.
    pub fn set_cookie(&mut self, name: &str, value: &str) {
        self.jar.set(name, value);
    }

    /// Removes a cookie.
    pub fn remove_cookie(&mut self, name: &str) {
        self.jar.remove(name);
    }

    /// The session's token, under the default name of its cookie.
    #[must_use]
    pub fn session_token(&self) -> Option<&str> {
        self.cookie(SESSION_COOKIE)
    }
}

/// Cookies hold secrets, so they are not shown.
impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").finish_non_exhaustive()
    }
}

/// A response with its whole body.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body, read as JSON.
    ///
    /// # Panics
    /// With the body, if it is not a `T`.
    #[must_use]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Where a redirect leads.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.headers.get(LOCATION)?.to_str().ok()
    }

    /// Returns the reply if its status is a success.
    ///
    /// # Panics
    /// With status and body, if it is not.
    #[track_caller]
    #[allow(clippy::must_use_candidate, reason = "often called for its check")]
    pub fn success(self) -> Self {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text());
        self
    }
}

/// Percent-encoding of a form's field.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => encoded.push(byte.into()),
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
