//! How the token travels: in a cookie, or in headers.

use std::time::SystemTime;

use pg_session::{SessionToken, Verified};

use crate::client::RequestHead;
use crate::cookie::{CookiePolicy, Found};

/// The response header with the token that a bearer is to go on with; empty: to forget the one it has.
pub const SESSION_TOKEN_HEADER: &str = "session-token";

#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Cookie(CookiePolicy),
    Bearer,
}

/// What a request brought along.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Presented {
    Nothing,
    /// Something that is no token of ours, or more than one.
    Rejected,
    Token(Verified),
}

impl Transport {
    /// What stands where the token belongs: `None` for nothing, `Some(None)` for more than one thing.
    pub(crate) fn find<'a>(&self, head: &'a impl RequestHead) -> Option<Option<&'a [u8]>> {
        let found = match self {
            Self::Cookie(cookie) => cookie.find(head.headers("cookie")),
            Self::Bearer => bearer(head.headers("authorization")),
        };
        match found {
            Found::Nothing => None,
            Found::One(text) => Some(Some(text)),
            Found::Many => Some(None),
        }
    }

    /// The request header that the token was in: what a response that depends on it varies by.
    pub(crate) fn request_header(&self) -> &'static str {
        match self {
            Self::Cookie(_) => "cookie",
            Self::Bearer => "authorization",
        }
    }

    /// The response header that tells the client to go on with `token`.
    pub(crate) fn issue(
        &self,
        token: &SessionToken,
        expires_at: SystemTime,
        now: SystemTime,
    ) -> (&'static str, String) {
        match self {
            Self::Cookie(cookie) => ("set-cookie", cookie.issue(token.expose(), expires_at, now)),
            Self::Bearer => (SESSION_TOKEN_HEADER, token.expose().to_owned()),
        }
    }

    /// The response header that tells the client to forget its token.
    pub(crate) fn remove(&self) -> (&'static str, String) {
        match self {
            Self::Cookie(cookie) => ("set-cookie", cookie.remove()),
            Self::Bearer => (SESSION_TOKEN_HEADER, String::new()),
        }
    }
}

fn bearer<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Found<'a> {
    let mut found = Found::Nothing;
    for header in headers {
        let Some((scheme, token)) = header.split_at_checked(7) else { continue };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            continue;
        }
        found = match found {
            Found::Nothing => Found::One(token.trim_ascii()),
            Found::One(_) | Found::Many => Found::Many,
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_presents_one_token() {
        let find = |headers: &[&'static str]| bearer(headers.iter().map(|header| header.as_bytes()));
        assert_eq!(find(&["Bearer abc"]), Found::One(b"abc"));
        assert_eq!(find(&["bearer  abc "]), Found::One(b"abc"));
        assert_eq!(find(&["Basic abc", "Bear", ""]), Found::Nothing);
        assert_eq!(find(&["Bearer a", "Bearer a"]), Found::Many);
    }
}
