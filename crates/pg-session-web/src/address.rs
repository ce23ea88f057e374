//! The client's address: from the connection, or from what trusted proxies wrote into a header.
//!
//! Each proxy appends the address of the one that it got the request from. So a header is read from
//! its right end. The entries to the left of those of trusted proxies were written by the client,
//! which can write anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::Error;
use crate::request_head::RequestHead;

/// Proxies between a client and this server, at most. Entries of a header further to the left are not looked at.
pub(crate) const PROXIES_MAX: usize = 32;
/// Trusted networks, at most.
pub(crate) const TRUSTED_NETWORKS_MAX: usize = 256;

/// Where a client's address is taken from.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressSource {
    /// The header, in lower case; none for the address of the connection.
    pub(crate) header: Option<String>,
    pub(crate) trust: Trust,
}

/// Whose entries in the header count.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Those of this many proxies.
    Count(usize),
    /// Those of proxies with an address in one of these networks.
    Networks(Vec<Network>),
}

impl Default for Trust {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl AddressSource {
    /// The client's address. `None` if it is not known: a header that is missing, or an entry that hides the address.
    pub(crate) fn address(&self, head: &impl RequestHead) -> Option<IpAddr> {
        let peer = head.peer().map(|address| address.to_canonical());
        let Some(name) = &self.header else { return peer };
        let lines: Vec<&[u8]> = head.headers(name).collect();
        let forwarded = name == "forwarded";
        let entries = lines.iter().rev().flat_map(|line| Entries { rest: Some(line), quotes: forwarded });
        let mut addresses =
            entries.take(PROXIES_MAX).map(|entry| if forwarded { for_of(entry) } else { node(entry) });
        match &self.trust {
            // With fewer entries than proxies, the request took a shorter way: the leftmost is a proxy's, too.
            Trust::Count(proxies) => addresses.by_ref().take(*proxies).last().flatten(),
            Trust::Networks(networks) => {
                let mut address = peer?;
                while networks.iter().any(|network| network.contains(address)) {
                    match addresses.next() {
                        Some(Some(next)) => address = next,
                        // A trusted proxy says that it does not know.
                        Some(None) => return None,
                        None => break,
                    }
                }
                Some(address)
            }
        }
    }
}

/// The elements of one header line, from the right, without the empty ones.
struct Entries<'a> {
    rest: Option<&'a [u8]>,
    /// Whether a comma inside of quotes does not separate.
    quotes: bool,
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let rest = self.rest?;
            let entry = match last_comma(rest, self.quotes) {
                Some(comma) => {
                    self.rest = Some(&rest[..comma]);
                    &rest[comma + 1..]
                }
                None => {
                    self.rest = None;
                    rest
                }
            };
            if !entry.trim_ascii().is_empty() {
                return Some(entry.trim_ascii());
            }
        }
    }
}

/// Also from the right: a quote that the client left open must not hide what a proxy appended.
fn last_comma(line: &[u8], quotes: bool) -> Option<usize> {
    let mut quoted = false;
    for (at, &byte) in line.iter().enumerate().rev() {
        match byte {
            b'"' if quotes => {
                let escapes = line[..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
                // The closing quote is never escaped; an opening one is preceded by `=`.
                quoted = !quoted || escapes % 2 == 1;
            }
            b',' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// The `for` of an element of `Forwarded` (RFC 7239). `None` if there is none, or two.
fn for_of(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in pairs(std::str::from_utf8(element).ok()?) {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") {
            if found.is_some() {
                return None;
            }
            found = Some(node(value.as_bytes())?);
        }
    }
    found
}

/// The pairs of an element: separated by semicolons, but not by those in quotes.
fn pairs(element: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let separates = move |char: char| {
        let was_escaped = escaped;
        escaped = quoted && char == '\\' && !was_escaped;
        if char == '"' && !was_escaped {
            quoted = !quoted;
        }
        char == ';' && !quoted
    };
    element.split(separates).map(str::trim).filter(|pair| !pair.is_empty())
}

/// An address as proxies write it: with or without quotes, brackets, a port and a zone. `None` for `unknown`, for an obfuscated
/// `_name`, and for everything else.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let text = match text.strip_prefix('"') {
        Some(text) => text.strip_suffix('"')?,
        None => text,
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return if port { six(address) } else { None };
    }
    // Of an IPv6 address without brackets, a port looks like its last group. Some proxies add one to the address
    // of an IPv4 client in IPv6 form.
    let (address, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let four = Ipv4Addr::from_str(address).ok().filter(|_| port.is_empty() || is_port(port));
    four.map(IpAddr::from).or_else(|| six(text))
}

fn six(text: &str) -> Option<IpAddr> {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    Some(IpAddr::from(Ipv6Addr::from_str(address).ok()?).to_canonical())
}

/// A number, or an obfuscated port (RFC 7239).
fn is_port(text: &str) -> bool {
    let is_number = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let obfuscated = text.strip_prefix('_').is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    });
    is_number || obfuscated
}

/// A network in CIDR notation, or one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Network {
    base: u128,
    bits: u32,
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let mask = if self.bits == 0 { 0 } else { u128::MAX << (128 - self.bits) };
        number(address) & mask == self.base & mask
    }
}

/// IPv4 addresses as the IPv6 addresses that stand for them.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::config(
                "a trusted network must be an address or a network in CIDR notation, like 10.0.0.0/8 or fd00::/8",
            )
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address = IpAddr::from_str(address.trim()).map_err(|_| wrong())?;
        let (bits_max, offset) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_| wrong())?
            }
            Some(_) => return Err(wrong()),
            None => bits_max,
        };
        if bits > bits_max {
            return Err(wrong());
        }
        Ok(Self { base: number(address), bits: bits + offset })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::request_head::TestHead;

    fn head<L: AsRef<[u8]>>(peer: &str, lines: &[L]) -> TestHead {
        let lines: Vec<_> = lines.iter().map(|line| ("*", line)).collect();
        TestHead { peer: peer.parse().ok(), ..TestHead::new(&lines) }
    }

    fn source(header: &str, trust: Trust) -> AddressSource {
        AddressSource { header: Some(header.to_owned()), trust }
    }

    fn counted(header: &str, proxies: usize, lines: &[&str]) -> String {
        let address = source(header, Trust::Count(proxies)).address(&head("10.0.0.1", lines));
        address.map_or_else(|| "?".to_owned(), |address| address.to_string())
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        for (text, expected) in [
            ("203.0.113.9", "203.0.113.9"),
            (" 203.0.113.9 ", "203.0.113.9"),
            ("203.0.113.9:8080", "203.0.113.9"),
            ("\"203.0.113.9:8080\"", "203.0.113.9"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("\"[2001:db8::1]:_port\"", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:80", "fe80::1"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("[::ffff:203.0.113.9]:80", "203.0.113.9"),
            ("203.0.113.9,", "203.0.113.9"),
            ("6.6.6.6, 203.0.113.9, ,", "203.0.113.9"),
            ("unknown", "?"),
            ("_hidden", "?"),
            ("1.2.3.4, <script>", "?"),
            ("203.0.113.9:", "203.0.113.9"),
            ("203.0.113.9:x", "?"),
            ("203.0.113.9:123456", "?"),
            ("203.0.113", "?"),
            ("0203.0.113.9", "?"),
            ("[203.0.113.9]", "?"),
            ("[2001:db8::1]x", "?"),
            ("[2001:db8::1", "?"),
            ("\"203.0.113.9", "?"),
            ("", "?"),
            (", ,", "?"),
        ] {
            assert_eq!(counted("x-forwarded-for", 1, &[text]), expected, "{text:?}");
        }
    }

    #[test]
    fn a_forwarded_header_is_read_as_rfc_7239_has_it() {
        for (text, expected) in [
            ("for=203.0.113.9", "203.0.113.9"),
            ("For=\"203.0.113.9:80\";proto=https;by=10.0.0.1", "203.0.113.9"),
            ("proto=https ; FOR = \"[2001:db8::1]:443\"", "2001:db8::1"),
            ("for=\"[2001:db8::1]\"", "2001:db8::1"),
            ("for=6.6.6.6, for=203.0.113.9;", "203.0.113.9"),
            ("for=203.0.113.9;host=\"a,b;for=6.6.6.6\"", "203.0.113.9"),
            ("for=203.0.113.9;host=\"a\\\",for=6.6.6.6\"", "203.0.113.9"),
            ("for=\"6.6.6.6, for=203.0.113.9", "203.0.113.9"),
            ("for=6.6.6.6;by=\", for=203.0.113.9", "203.0.113.9"),
            ("for=6.6.6.6;by=\", for=\"[2001:db8::1]:99\"", "2001:db8::1"),
            ("for=unknown", "?"),
            ("for=_hidden, for=_SEVKISEK", "?"),
            ("proto=https", "?"),
            ("for=203.0.113.9;for=6.6.6.6", "?"),
            ("203.0.113.9", "?"),
        ] {
            assert_eq!(counted("forwarded", 1, &[text]), expected, "{text:?}");
        }
    }

    #[test]
    fn entries_are_counted_from_the_right_over_all_lines() {
        let lines = ["6.6.6.6, 1.1.1.1", "2.2.2.2", "3.3.3.3, 4.4.4.4"];
        for (proxies, expected) in [(1, "4.4.4.4"), (2, "3.3.3.3"), (3, "2.2.2.2"), (4, "1.1.1.1")] {
            assert_eq!(counted("x-forwarded-for", proxies, &lines), expected);
        }
        assert_eq!(counted("x-forwarded-for", 9, &["1.1.1.1, 2.2.2.2"]), "1.1.1.1", "a shorter way");
        assert_eq!(counted("x-forwarded-for", 2, &["1.1.1.1, unknown, 2.2.2.2"]), "?");
        assert_eq!(counted("x-forwarded-for", 1, &[]), "?");
    }

    #[test]
    fn entries_of_trusted_networks_are_passed_over() {
        let networks = ["10.0.0.0/8", "192.0.2.1", "fd00::/8"].map(|text| text.parse().unwrap());
        let source = source("x-forwarded-for", Trust::Networks(networks.to_vec()));
        let address = |peer: &str, lines: &[&str]| {
            let head = head(peer, lines);
            source.address(&head).map_or_else(|| "?".to_owned(), |address| address.to_string())
        };
        assert_eq!(address("10.0.0.1", &["6.6.6.6, 203.0.113.9, 192.0.2.1", "fd00::7"]), "203.0.113.9");
        assert_eq!(address("::ffff:10.0.0.1", &["203.0.113.9:80"]), "203.0.113.9");
        assert_eq!(address("203.0.113.7", &["6.6.6.6"]), "203.0.113.7", "not through a proxy");
        assert_eq!(address("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "a client inside");
        assert_eq!(address("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(address("10.0.0.1", &["6.6.6.6, unknown"]), "?");
        assert_eq!(address("", &["6.6.6.6"]), "?", "the writer is unknown");
    }

    #[test]
    fn networks_are_checked() {
        for text in
            ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "a", "10.0.0.0/8/8"]
        {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(
            all.contains("203.0.113.9".parse().unwrap()) && !all.contains("2001:db8::1".parse().unwrap())
        );
        let all: Network = "::/0".parse().unwrap();
        assert!(all.contains("2001:db8::1".parse().unwrap()));
    }

    /// What a trusted proxy appends for this client.
    fn element(header: &str, address: IpAddr, shape: u8) -> String {
        let address = match (address, shape % 4) {
            (IpAddr::V4(address), 0) => format!("{address}"),
            (IpAddr::V4(address), _) => format!("\"{address}:8080\""),
            (IpAddr::V6(address), 0 | 1) => format!("\"[{address}]\""),
            (IpAddr::V6(address), _) => format!("\"[{address}]:8080\""),
        };
        match header {
            "forwarded" => format!("by=10.0.0.1;for={address};host=\"a\\\"b;c,d\""),
            _ => address,
        }
    }

    fn addresses() -> impl Strategy<Value = Vec<(IpAddr, u8, bool)>> {
        let address =
            prop_oneof![any::<Ipv4Addr>().prop_map(IpAddr::from), any::<Ipv6Addr>().prop_map(IpAddr::from)];
        prop::collection::vec((address, any::<u8>(), any::<bool>()), 1..5)
    }

    /// Bytes that parsers stumble over, more often than others.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![prop::sample::select(&b",;=\"\\[]:._ fortru10%"[..]), any::<u8>()];
        prop::collection::vec(byte, 0..60)
    }

    proptest! {
        #[test]
        fn a_client_cannot_choose_its_address(forged in hostile(), hops in addresses(), forwarded in any::<bool>()) {
            let header = if forwarded { "forwarded" } else { "x-forwarded-for" };
            let mut lines = vec![forged];
            for (address, shape, own_line) in &hops {
                let element = element(header, *address, *shape).into_bytes();
                match lines.last_mut() {
                    Some(line) if !own_line => {
                        line.extend_from_slice(b", ");
                        line.extend(element);
                    }
                    _ => lines.push(element),
                }
            }
            let source = source(header, Trust::Count(hops.len()));
            prop_assert_eq!(source.address(&head("", &lines)), Some(hops[0].0.to_canonical()));
        }

        #[test]
        fn empty_entries_change_nothing(lines in prop::collection::vec(hostile(), 1..4), proxies in 1..5_usize) {
            for header in ["forwarded", "x-forwarded-for"] {
                let source = source(header, Trust::Count(proxies));
                let address = |lines: &[Vec<u8>]| source.address(&head("", lines));
                let mut more = lines.clone();
                if let Some(line) = more.last_mut() {
                    line.extend_from_slice(b" ,, ,");
                }
                more.extend([Vec::new(), b" , ".to_vec()]);
                prop_assert_eq!(address(&more), address(&lines));
            }
        }
    }
}
