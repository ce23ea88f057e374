//! How the token travels: in a cookie, or in headers.

use std::time::SystemTime;

use pg_session::{SessionToken, Signer, Verified};

use crate::cookie::{CookiePolicy, Keep};
use crate::lost_cookies::LostCookies;
use crate::request_head::RequestHead;

/// The response header with the token that a bearer is to go on with; empty: to forget the one it has.
pub const SESSION_TOKEN_HEADER: &str = "session-token";

#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Cookie(CookiePolicy),
    Bearer,
}

/// Texts as long as a token that are verified for one request, at most. Browsers keep 180 cookies of one site.
/// Most servers take heads of 64 kB at most, which is room for 600. A text of another length is not verified.
const CANDIDATES_MAX: usize = 1_024;
/// Different sessions that one request may present, at most. Each costs a read. A browser presents one, or two after
/// another page planted a cookie.
const PRESENTED_MAX: usize = 16;

/// What a request brought along.
#[derive(Clone, Debug)]
pub(crate) enum Presented {
    Nothing,
    /// Nothing that is a token of ours.
    Invalid,
    Token(Verified),
    /// Authentic tokens of different sessions. Another page has planted all but one of them, and nothing tells which.
    Several(Several),
}

/// The tokens of a request that presents several sessions.
#[derive(Clone, Debug)]
pub(crate) struct Several {
    pub(crate) tokens: Vec<Verified>,
    /// False if a bound was reached. Then there may be more sessions, and any of them may be the user's.
    pub(crate) complete: bool,
}

impl Transport {
    /// The tokens of the request that are authentic, one for each session. Costs no query.
    pub(crate) fn presented(&self, head: &impl RequestHead, signer: &Signer) -> Presented {
        match self {
            Self::Cookie(cookie) => verified(cookie.values(head.headers("cookie")), signer),
            Self::Bearer => verified(bearer(head.headers("authorization")), signer),
        }
    }

    /// The request header that the token was in: what a response that depends on it varies by.
    pub(crate) fn request_header(&self) -> &'static str {
        match self {
            Self::Cookie(_) => "cookie",
            Self::Bearer => "authorization",
        }
    }

    pub(crate) fn is_bearer(&self) -> bool {
        matches!(self, Self::Bearer)
    }

    /// Whether a browser may have kept back the token of a request that another site caused.
    pub(crate) fn withholds(&self, is_unsafe: bool) -> bool {
        match self {
            Self::Cookie(cookie) => cookie.withholds(is_unsafe),
            Self::Bearer => false,
        }
    }

    /// Whether a client has room for the token of one of both only.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cookie(one), Self::Cookie(other)) => one.name() == other.name(),
            (Self::Bearer, Self::Bearer) => true,
            (Self::Cookie(_), Self::Bearer) | (Self::Bearer, Self::Cookie(_)) => false,
        }
    }

    /// The response headers that remove cookies of our name that are not ours.
    pub(crate) fn remove_others(&self, head: &impl RequestHead) -> Vec<String> {
        match self {
            Self::Cookie(cookie) => {
                // Browsers compare a cookie's path with what they ask for, also inside of a nested router.
                let path = head.target().split('?').next().unwrap_or_default();
                cookie.remove_others(head.host(), path)
            }
            Self::Bearer => Vec::new(),
        }
    }

    /// The response header that tells the client to go on with `token`.
    pub(crate) fn issue(
        &self,
        token: &SessionToken,
        expires_at: SystemTime,
        now: SystemTime,
        keep: Option<Keep>,
    ) -> (&'static str, String) {
        match self {
            Self::Cookie(cookie) => ("set-cookie", cookie.issue(token.expose(), expires_at, now, keep)),
            Self::Bearer => (SESSION_TOKEN_HEADER, token.expose().to_owned()),
        }
    }

    /// A cookie was sent to a client that had none.
    pub(crate) fn warn_if_lost(&self, lost: &LostCookies) {
        if let Self::Cookie(cookie) = self
            && cookie.is_secure()
        {
            lost.issued();
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

fn bearer<'a>(headers: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    headers.filter_map(|header| {
        let (scheme, token) = header.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
    })
}

fn verified<'a>(texts: impl Iterator<Item = &'a [u8]>, signer: &Signer) -> Presented {
    let (mut any, mut candidates) = (false, 0);
    let mut several = Several { tokens: Vec::new(), complete: true };
    for text in texts {
        any = true;
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() == SessionToken::CHARS);
        let Some(text) = text else {
            tracing::debug!("session token rejected: it does not have the length of one");
            continue;
        };
        candidates += 1;
        if candidates > CANDIDATES_MAX {
            several.complete = false;
            break;
        }
        match signer.verify(text) {
            Ok(token) => several.add(token),
            Err(reason) => tracing::debug!(?reason, "session token rejected"),
        }
    }
    match several.tokens.as_slice() {
        [] if several.complete => {
            if any {
                Presented::Invalid
            } else {
                Presented::Nothing
            }
        }
        [token] if several.complete => Presented::Token(*token),
        _ => Presented::Several(several),
    }
}

impl Several {
    /// Of two tokens of one session, the newer counts.
    fn add(&mut self, token: Verified) {
        match self.tokens.iter().position(|known| known.id == token.id) {
            Some(at) => {
                let known = &mut self.tokens[at];
                if (known.version, known.issued_at) < (token.version, token.issued_at) {
                    *known = token;
                }
            }
            None if self.tokens.len() < PRESENTED_MAX => self.tokens.push(token),
            None => self.complete = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use pg_session::{KeyRing, SessionId, SigningKey, Version};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bearer_presents_its_token() {
        let find = |headers: &[&'static str]| -> Vec<&[u8]> {
            bearer(headers.iter().map(|header| header.as_bytes())).collect()
        };
        assert_eq!(find(&["Bearer abc"]), [b"abc"]);
        assert_eq!(find(&["bearer  abc "]), [b"abc"]);
        assert!(find(&["Basic abc", "Bear", ""]).is_empty());
        assert_eq!(find(&["Bearer a", "Bearer b"]), [b"a", b"b"]);
    }

    #[test]
    fn only_authentic_tokens_count() {
        let signer = Signer::new(KeyRing::new(&SigningKey::generate().unwrap()));
        let foreign = Signer::new(KeyRing::new(&SigningKey::generate().unwrap()));
        let mut numbers = 0_u32..;
        let mut id = || -> SessionId {
            format!("00000000-0000-4000-8000-{:012}", numbers.next().unwrap()).parse().unwrap()
        };
        let issue = |signer: &Signer, id| signer.issue(id, Version::FIRST).expose().to_owned();
        let (one, two) = (id(), id());
        let (first, second) = (issue(&signer, one), issue(&signer, two));
        let wrong =
            [String::new(), "x".to_owned(), issue(&foreign, one), "A".repeat(4_000), format!("{first}A")];
        let of = |texts: &[&str]| verified(texts.iter().map(|text| text.as_bytes()), &signer);

        assert!(matches!(of(&[]), Presented::Nothing));
        for wrong in &wrong {
            assert!(matches!(of(&[wrong]), Presented::Invalid));
            for texts in [[wrong, &first], [&first, wrong]] {
                assert!(matches!(of(&texts.map(String::as_str)), Presented::Token(token) if token.id == one));
            }
        }
        assert!(matches!(of(&[&first, &first]), Presented::Token(token) if token.id == one));
        let Presented::Several(several) = of(&[&first, &second, &first]) else { panic!("two sessions") };
        assert!(several.tokens.len() == 2 && several.complete);
        let many: Vec<String> = (0..PRESENTED_MAX * 2).map(|_| issue(&signer, id())).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let Presented::Several(several) = of(&many) else { panic!("many sessions") };
        assert!(several.tokens.len() == PRESENTED_MAX && !several.complete);

        let wrong = "A".repeat(SessionToken::CHARS);
        let mut flood = vec![wrong.as_str(); CANDIDATES_MAX - 1];
        flood.push(&first);
        assert!(matches!(of(&flood), Presented::Token(token) if token.id == one));
        flood.insert(0, &wrong);
        let Presented::Several(several) = of(&flood) else { panic!("too many candidates") };
        assert!(several.tokens.is_empty() && !several.complete);
    }

    /// Bytes of which a cookie header is made, and any others.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(b";".to_vec()),
            Just(b"=".to_vec()),
            Just(b"\"".to_vec()),
            Just(b" ".to_vec()),
            Just(b"__Host-session".to_vec()),
            Just(b"__Host-session=".to_vec()),
            Just(vec![b'A'; SessionToken::CHARS]),
            proptest::collection::vec(any::<u8>(), 0..8),
        ];
        proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_other_cookie_hides_or_forges_a_token(before in hostile(), after in hostile()) {
            let key = SigningKey::from_bytes(&[7; 32]).unwrap();
            let signer = Signer::new(KeyRing::new(&key));
            let id: SessionId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
            let token = signer.issue(id, Version::FIRST).expose().to_owned();
            let cookie = CookiePolicy::default();
            let of = |header: &[u8]| verified(cookie.values(std::iter::once(header)), &signer);
            let own = format!("; __Host-session={token}; ").into_bytes();
            let found = of(&[before.clone(), own, after.clone()].concat());
            prop_assert!(matches!(found, Presented::Token(found) if found.id == id));
            let forged = of(&[before, after].concat());
            prop_assert!(matches!(forged, Presented::Nothing | Presented::Invalid));
        }
    }
}
