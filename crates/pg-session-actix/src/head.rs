//! A request's head as `pg-session-web` looks at it.

use std::net::IpAddr;

use actix_web::dev::ServiceRequest;
use actix_web::http::header::HOST;
use actix_web::{HttpMessage as _, HttpRequest};
use pg_session_web::{RequestHead, host_of};

pub(crate) struct Head<'a>(pub(crate) &'a ServiceRequest);

impl RequestHead for Head<'_> {
    fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0.headers().get_all(name).map(|value| value.as_bytes())
    }

    fn peer(&self) -> Option<IpAddr> {
        self.0.peer_addr().map(|address| address.ip())
    }

    fn host(&self) -> Option<&str> {
        let header = self.0.headers().get(HOST).and_then(|value| value.to_str().ok());
        // HTTP/2 has it in the address.
        self.0.uri().host().or(header.map(host_of))
    }

    fn authority(&self) -> Option<&str> {
        let header = self.0.headers().get(HOST).and_then(|value| value.to_str().ok());
        self.0.uri().authority().map(actix_web::http::uri::Authority::as_str).or(header)
    }

    fn method(&self) -> &str {
        self.0.method().as_str()
    }

    fn path(&self) -> &str {
        self.0.uri().path()
    }

    fn target(&self) -> &str {
        self.0.uri().path_and_query().map_or("/", actix_web::http::uri::PathAndQuery::as_str)
    }
}

/// The session that the middleware has put there.
pub(crate) fn session(request: &HttpRequest) -> Result<pg_session_web::Session, pg_session_web::Error> {
    request.extensions().get().cloned().ok_or_else(pg_session_web::Error::no_layer)
}
