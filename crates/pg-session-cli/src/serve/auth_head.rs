//! [`AuthHead`]: the client's request as a proxy describes it.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::HOST;
use pg_session_web::{RequestHead, host_of};

/// Where proxies put the client's method: Traefik and Caddy in the first, nginx in the second as documented. Envoy sends the
/// method itself.
const METHOD_HEADERS: [&str; 2] = ["x-forwarded-method", "x-original-method"];

pub(super) struct AuthHead<'a> {
    headers: &'a HeaderMap,
    method: &'a str,
    path: &'a str,
}

impl<'a> AuthHead<'a> {
    pub(super) fn of(request: &'a Request) -> Self {
        let headers = request.headers();
        let mut methods = METHOD_HEADERS
            .iter()
            .flat_map(|name| headers.get_all(*name))
            .filter_map(|value| value.to_str().ok());
        let own = request.method().as_str();
        let is_safe = |method: &str| matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE");
        // A client can add a header, and cannot make an unsafe request look safe.
        let method = if is_safe(own) { methods.find(|method| !is_safe(method)).unwrap_or(own) } else { own };
        Self { headers, method, path: request.uri().path() }
    }
}

impl RequestHead for AuthHead<'_> {
    fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers.get_all(name).iter().map(|value| value.as_bytes())
    }

    /// The other end is the proxy.
    fn peer(&self) -> Option<IpAddr> {
        None
    }

    fn host(&self) -> Option<&str> {
        self.authority().map(host_of)
    }

    fn authority(&self) -> Option<&str> {
        self.headers.get(HOST).and_then(|value| value.to_str().ok())
    }

    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        self.path
    }
}
