//! The head of a request, as an edge shows it, and the parts of it that several files compare.

use std::net::IpAddr;

/// What an edge shows of a request's head.
pub trait RequestHead {
    /// The values of all headers of this name (lower case), in order.
    fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]>;

    /// The address at the other end of the connection, if the server knows it.
    fn peer(&self) -> Option<IpAddr>;

    /// The host that the client asked for, without a port.
    fn host(&self) -> Option<&str>;

    /// The host that the client asked for, with its port if there is one.
    fn authority(&self) -> Option<&str>;

    /// The method, as it came.
    fn method(&self) -> &str;

    /// The path that the client asked for, without a query.
    fn path(&self) -> &str;

    /// The path and the query that the client asked for, also inside of a nested router. Default: the path.
    fn target(&self) -> &str {
        self.path()
    }
}

/// The host of an authority or a `host` header, without its port. For edges.
#[must_use]
pub fn host_of(authority: &str) -> &str {
    let end = if authority.starts_with('[') {
        authority.find(']').map(|bracket| bracket + 1)
    } else {
        authority.find(':')
    };
    &authority[..end.unwrap_or(authority.len())]
}

/// Whether `path` is `above` or lies below it. What does not begin with `/` is above nothing: an empty setting does not stand
/// for all paths.
pub(crate) fn is_below(path: &str, above: &str) -> bool {
    let stem = above.trim_end_matches('/');
    above.starts_with('/')
        && path.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a browser asks for a page: as it says itself in `sec-fetch-mode`, or by the types that it accepts.
pub(crate) fn wants_page(head: &impl RequestHead, mode: Option<&[u8]>) -> bool {
    if !matches!(head.method(), "GET" | "HEAD") {
        return false;
    }
    match mode {
        Some(mode) => mode == b"navigate",
        None => head.headers("accept").any(|types| types.windows(9).any(|part| part == b"text/html")),
    }
}

/// A head for the tests of several files.
#[cfg(test)]
pub(crate) struct TestHead {
    pub(crate) method: &'static str,
    pub(crate) authority: Option<&'static str>,
    pub(crate) peer: Option<IpAddr>,
    /// The name `*` is for all names.
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
}

#[cfg(test)]
impl TestHead {
    pub(crate) fn new<V: AsRef<[u8]>>(headers: &[(&'static str, V)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_ref().to_vec())).collect();
        Self { method: "GET", authority: None, peer: None, headers }
    }
}

#[cfg(test)]
impl RequestHead for TestHead {
    fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let named = self.headers.iter().filter(move |header| header.0 == name || header.0 == "*");
        named.map(|header| header.1.as_slice())
    }

    fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    fn host(&self) -> Option<&str> {
        self.authority.map(host_of)
    }

    fn authority(&self) -> Option<&str> {
        self.authority
    }

    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        "/"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_covers_itself_and_paths_below() {
        for (path, above, expected) in [
            ("/poll", "/poll", true),
            ("/poll/x", "/poll", true),
            ("/poll", "/poll/", true),
            ("/polling", "/poll", false),
            ("/x/poll", "/poll", false),
            ("/anything", "/", true),
            ("/anything", "", false),
            ("poll", "poll", false),
        ] {
            assert_eq!(is_below(path, above), expected, "{path} {above}");
        }
    }
}
