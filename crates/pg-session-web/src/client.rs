//! Who is calling: the address and the user agent, as they are recorded at login. Bounded, and shortened if so configured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::address::AddressSource;
use crate::request_head::RequestHead;

/// The part of a user agent that is kept, in bytes.
pub const USER_AGENT_BYTES_MAX: usize = 256;

/// How much of an address is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum AddressDetail {
    #[default]
    Whole,
    Network,
}

/// One request's client, and what a login records of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) address: Option<IpAddr>,
    pub(crate) user_agent: Option<String>,
}

impl Client {
    pub(crate) fn of(head: &impl RequestHead, source: &AddressSource, detail: AddressDetail) -> Self {
        let address = source.address(head);
        let address = match detail {
            AddressDetail::Whole => address,
            AddressDetail::Network => address.map(network),
        };
        Self { address, user_agent: head.headers("user-agent").next().and_then(user_agent) }
    }
}

/// The /24 of an IPv4 address, the /48 of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

/// ASCII that can be shown, as user agents are; anything else is left out.
fn user_agent(header: &[u8]) -> Option<String> {
    let is_shown = |byte: &&u8| (b' '..=b'~').contains(*byte);
    let start = header.get(..USER_AGENT_BYTES_MAX).unwrap_or(header);
    let text = match std::str::from_utf8(start) {
        // As nearly all are: one copy.
        Ok(text) if start.iter().all(|byte| is_shown(&byte)) => text.to_owned(),
        _ => {
            header.iter().filter(is_shown).take(USER_AGENT_BYTES_MAX).map(|&byte| char::from(byte)).collect()
        }
    };
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_head::TestHead;

    type Headers = &'static [(&'static str, &'static [u8])];

    fn from_header(name: &str) -> AddressSource {
        AddressSource { header: Some(name.to_owned()), ..AddressSource::default() }
    }

    fn address(headers: Headers, source: &AddressSource, detail: AddressDetail) -> Option<String> {
        let head = TestHead { peer: "::ffff:192.0.2.7".parse().ok(), ..TestHead::new(headers) };
        Client::of(&head, source, detail).address.map(|address| address.to_string())
    }

    #[test]
    fn only_trusted_header_counts_and_its_last_address() {
        let headers: Headers =
            &[("x-forwarded-for", b"6.6.6.6"), ("x-forwarded-for", b"7.7.7.7, 203.0.113.9")];
        let (peer, header) = (AddressSource::default(), from_header("x-forwarded-for"));
        assert_eq!(address(headers, &peer, AddressDetail::Whole).as_deref(), Some("192.0.2.7"));
        assert_eq!(address(headers, &header, AddressDetail::Whole).as_deref(), Some("203.0.113.9"));
        assert_eq!(address(&[], &header, AddressDetail::Whole), None);
        let hostile: Headers = &[("x-forwarded-for", b"1.2.3.4, <script>\xff")];
        assert_eq!(address(hostile, &header, AddressDetail::Whole), None);
    }

    #[test]
    fn a_shortened_address_is_a_network() {
        let source = from_header("x");
        assert_eq!(
            address(&[], &AddressSource::default(), AddressDetail::Network).as_deref(),
            Some("192.0.2.0")
        );
        let six: Headers = &[("x", b"2001:db8:1:2:3:4:5:6")];
        assert_eq!(address(six, &source, AddressDetail::Network).as_deref(), Some("2001:db8:1::"));
    }

    #[test]
    fn a_user_agent_is_short_and_can_be_shown() {
        assert_eq!(user_agent(b"Mo\xffzi\x00lla/5.0\r\n").as_deref(), Some("Mozilla/5.0"));
        assert_eq!(user_agent(&[b'x'; 10_000]).map(|text| text.len()), Some(USER_AGENT_BYTES_MAX));
        assert_eq!(user_agent(b"\xff"), None);
    }
}
