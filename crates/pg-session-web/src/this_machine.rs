//! Whether a request comes from the machine that serves it.

use std::net::IpAddr;

use crate::request_head::RequestHead;

/// Whether a request comes from this machine, as far as it tells.
pub(crate) fn is_local(head: &impl RequestHead) -> bool {
    let forwarded = ["x-forwarded-for", "x-real-ip", "forwarded"];
    head.host().is_some_and(is_local_host)
        && head.peer().is_none_or(|peer| peer.to_canonical().is_loopback())
        && forwarded.iter().all(|name| head.headers(name).all(names_this_machine_only))
}

fn is_local_host(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || is_loopback(&name)
}

fn is_loopback(address: &str) -> bool {
    let address = address.trim_matches(['[', ']']);
    address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether each address in a header that proxies write is one of this machine. Anything that is no address is not.
fn names_this_machine_only(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    value.split([',', ';']).map(|part| part.trim().to_ascii_lowercase()).all(|part| {
        match part.split_once('=') {
            Some(("for", address)) => is_loopback(address.trim_matches('"')),
            Some(_) => true,
            None => is_loopback(&part),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_head::TestHead;

    #[test]
    fn only_requests_of_this_machine_are_local() {
        let local = |host: &'static str, peer: Option<&str>, headers: &[(&'static str, &str)]| {
            let authority = (!host.is_empty()).then_some(host);
            let peer = peer.map(|peer| peer.parse().unwrap());
            is_local(&TestHead { authority, peer, ..TestHead::new(headers) })
        };
        for host in
            ["localhost", "LOCALHOST", "localhost.", "shop.localhost", "127.0.0.1", "127.9.9.9", "[::1]"]
        {
            assert!(local(host, None, &[]), "{host}");
        }
        for host in [
            "",
            "shop.example",
            "localhost.example",
            "notlocalhost",
            "192.168.0.5",
            "0.0.0.0",
            "[::]",
            "[fe80::1]",
        ] {
            assert!(!local(host, None, &[]), "{host}");
        }
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(local("localhost", Some(peer), &[]), "{peer}");
        }
        for peer in ["172.17.0.1", "203.0.113.9", "::ffff:203.0.113.9"] {
            assert!(!local("localhost", Some(peer), &[]), "{peer}");
        }
        for headers in [
            &[("x-forwarded-for", "127.0.0.1, ::1")][..],
            &[("forwarded", "for=\"[::1]\";proto=https, for=127.0.0.1")],
            &[("x-real-ip", "127.0.0.1")],
        ] {
            assert!(local("localhost", None, headers), "{headers:?}");
        }
        for headers in [
            &[("x-forwarded-for", "203.0.113.9")][..],
            &[("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "203.0.113.9, 127.0.0.1")],
            &[("x-forwarded-for", "")],
            &[("x-real-ip", "unknown")],
            &[("forwarded", "proto=https; For=\"203.0.113.9\"")],
            &[("forwarded", "for=_hidden")],
        ] {
            assert!(!local("localhost", None, headers), "{headers:?}");
        }
    }
}
