//! A request's head as `pg-session-web` looks at it.

use std::net::IpAddr;

use http::header::{ACCEPT, AUTHORIZATION, COOKIE, HOST, UPGRADE, USER_AGENT};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use pg_session_web::{RequestHead, host_of};

/// The address at the other end of the connection, put into a request's extensions by a server other than axum's: there, use
/// `into_make_service_with_connect_info::<SocketAddr>()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer(pub IpAddr);

static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(crate) struct Head<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> Head<'a> {
    pub(crate) fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl RequestHead for Head<'_> {
    fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        // Those that each request is asked for need no parsing.
        let values = match name {
            "accept" => self.headers.get_all(ACCEPT),
            "authorization" => self.headers.get_all(AUTHORIZATION),
            "cookie" => self.headers.get_all(COOKIE),
            "sec-fetch-mode" => self.headers.get_all(&SEC_FETCH_MODE),
            "sec-fetch-site" => self.headers.get_all(&SEC_FETCH_SITE),
            "upgrade" => self.headers.get_all(UPGRADE),
            "user-agent" => self.headers.get_all(USER_AGENT),
            _ => self.headers.get_all(name),
        };
        values.iter().map(HeaderValue::as_bytes)
    }

    fn peer(&self) -> Option<IpAddr> {
        if let Some(Peer(address)) = self.extensions.get() {
            return Some(*address);
        }
        connect_info(self.extensions)
    }

    fn host(&self) -> Option<&str> {
        let header = self.headers.get(HOST).and_then(|value| value.to_str().ok());
        // HTTP/2 has it in the address.
        self.uri.host().or(header.map(host_of))
    }

    fn authority(&self) -> Option<&str> {
        let header = self.headers.get(HOST).and_then(|value| value.to_str().ok());
        self.uri.authority().map(http::uri::Authority::as_str).or(header)
    }

    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn path(&self) -> &str {
        self.uri.path()
    }

    fn target(&self) -> &str {
        let uri = original_uri(self.extensions).unwrap_or(self.uri);
        uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }
}

/// Inside of a nested router, axum takes its prefix off the path.
#[cfg(feature = "axum")]
fn original_uri(extensions: &Extensions) -> Option<&Uri> {
    extensions.get().map(|axum::extract::OriginalUri(uri)| uri)
}

#[cfg(not(feature = "axum"))]
fn original_uri(_: &Extensions) -> Option<&Uri> {
    None
}

#[cfg(feature = "axum")]
fn connect_info(extensions: &Extensions) -> Option<IpAddr> {
    use std::net::SocketAddr;

    use axum::extract::ConnectInfo;

    extensions.get().map(|ConnectInfo(address): &ConnectInfo<SocketAddr>| address.ip())
}

#[cfg(not(feature = "axum"))]
fn connect_info(_: &Extensions) -> Option<IpAddr> {
    None
}

/// The session that the layer has put there.
pub(crate) fn session(parts: &Parts) -> Result<pg_session_web::Session, pg_session_web::Error> {
    parts.extensions.get().cloned().ok_or_else(pg_session_web::Error::no_layer)
}
