//! Putting another address into a connection URL, and leaving the rest as it is.

use std::net::SocketAddr;

/// `scheme://user:password@host:port/database?parameters` with `addr` for its host and port.
pub(super) fn with_addr(url: &str, addr: SocketAddr) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // A mistake of the test's author, with nothing sensible to go on with. The URL may hold a password.
        panic!("Proxy::url_for takes a URL of the form postgres://user@host:port/database");
    };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    match authority.rsplit_once('@') {
        Some((user, _)) => format!("{scheme}://{user}@{addr}{tail}"),
        None => format!("{scheme}://{addr}{tail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_changes() {
        let through = |url| with_addr(url, SocketAddr::from(([127, 0, 0, 1], 9)));
        assert_eq!(through("postgres://me@db:5432/app?a=b"), "postgres://me@127.0.0.1:9/app?a=b");
        assert_eq!(through("postgres://a%40b:p@ss@db/app"), "postgres://a%40b:p@ss@127.0.0.1:9/app");
        assert_eq!(through("postgresql://db1:1,db2:2?x=@"), "postgresql://127.0.0.1:9?x=@");
        assert_eq!(through("postgres://me@[::1]:5432"), "postgres://me@127.0.0.1:9");
    }
}
