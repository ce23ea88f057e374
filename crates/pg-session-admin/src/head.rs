//! [`Head`]: a browser's request as `pg-session-web` looks at it.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::HOST;
use pg_session_web::{RequestHead, host_of};

pub(crate) struct Head<'a>(pub(crate) &'a Request);

impl RequestHead for Head<'_> {
    fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0.headers().get_all(name).iter().map(|value| value.as_bytes())
    }

    fn peer(&self) -> Option<IpAddr> {
        None
    }

    fn host(&self) -> Option<&str> {
        self.authority().map(host_of)
    }

    /// Nothing if there are two: the next server may read the other one.
    fn authority(&self) -> Option<&str> {
        let mut hosts = self.0.headers().get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok(),
            (Some(_), Some(_)) => None,
            // HTTP/2 has it in the address.
            (None, _) => self.0.uri().authority().map(axum::http::uri::Authority::as_str),
        }
    }

    fn method(&self) -> &str {
        self.0.method().as_str()
    }

    fn path(&self) -> &str {
        self.0.uri().path()
    }
}
