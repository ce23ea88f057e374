//! The readers of untrusted headers, for the fuzz targets in `crates/pg-session/fuzz`. Not part of the interface.

use std::net::IpAddr;

use pg_session::{SessionId, Signer};

use crate::address::{AddressSource, PROXIES_MAX, Trust};
use crate::cookie::CookiePolicy;
use crate::cross_site::Site;
use crate::error::Error;
use crate::flow_cookie::FlowCookie;
use crate::lost_cookies::is_https;
use crate::request_head::RequestHead;
use crate::this_machine::is_local;
use crate::transport::{Presented, Transport};

/// A request with one header in several lines.
struct Lines<'a> {
    name: &'a str,
    lines: &'a [&'a [u8]],
    peer: Option<IpAddr>,
}

impl RequestHead for Lines<'_> {
    fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().copied().filter(move |_| name == self.name)
    }

    fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    fn host(&self) -> Option<&str> {
        Some("localhost")
    }

    fn authority(&self) -> Option<&str> {
        Some("localhost:3000")
    }

    fn method(&self) -> &str {
        "POST"
    }

    fn path(&self) -> &str {
        "/"
    }
}

/// The sessions whose tokens a `cookie` header brings, under the default policy. Reads the cookies of flows as well.
#[must_use]
pub fn sessions_in_cookie(header: &[u8], signer: &Signer) -> Vec<SessionId> {
    let head = Lines { name: "cookie", lines: &[header], peer: None };
    let policy = CookiePolicy::default();
    let flows = FlowCookie::all(&policy, head.headers("cookie"));
    assert!(flows.iter().all(|flow| flow.name.starts_with("__Host-session.flow.")), "{flows:?}");
    match Transport::Cookie(policy).presented(&head, signer) {
        Presented::Nothing | Presented::Invalid => Vec::new(),
        Presented::Token(token) => vec![token.id],
        Presented::Several(several) => several.tokens.iter().map(|token| token.id).collect(),
    }
}

/// The client's address, if this many proxies have appended to the header `name`. Reads the lines as every other header of
/// a proxy as well.
#[must_use]
pub fn address_behind_proxies(name: &str, lines: &[&[u8]], proxies: usize) -> Option<IpAddr> {
    for other in ["x-forwarded-proto", "x-forwarded-host", "x-forwarded-ssl", "forwarded", "origin"] {
        let head = Lines { name: other, lines, peer: None };
        let _ = (is_https(&head), Site::of(&head), is_local(&head));
    }
    let source =
        AddressSource { header: Some(name.to_owned()), trust: Trust::Count(proxies.clamp(1, PROXIES_MAX)) };
    source.address(&Lines { name, lines, peer: None })
}

/// The client's address, if the proxies are those of `network`, and the request comes from `peer`.
///
/// # Errors
/// For what is no network.
pub fn address_behind_network(
    name: &str,
    lines: &[&[u8]],
    network: &str,
    peer: IpAddr,
) -> Result<Option<IpAddr>, Error> {
    let trust = Trust::Networks(vec![network.parse()?]);
    let source = AddressSource { header: Some(name.to_owned()), trust };
    Ok(source.address(&Lines { name, lines, peer: Some(peer) }))
}
