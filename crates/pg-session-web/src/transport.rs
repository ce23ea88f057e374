//! How the token travels: in a cookie, or in headers.

use std::time::SystemTime;

use pg_session::{SessionToken, Signer, Verified};

use crate::client::RequestHead;
use crate::cookie::CookiePolicy;

/// The response header with the token that a bearer is to go on with; empty: to forget the one it has.
pub const SESSION_TOKEN_HEADER: &str = "session-token";

#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Cookie(CookiePolicy),
    Bearer,
}

/// Different sessions that one request may present, before the others are ignored. A browser presents one, or two after
/// another page planted a cookie.
const PRESENTED_MAX: usize = 8;

/// What a request brought along.
#[derive(Clone, Debug)]
pub(crate) enum Presented {
    Nothing,
    /// Nothing that is a token of ours.
    Rejected,
    Token(Verified),
    /// Authentic tokens of different sessions. Another page has planted all but one of them, and nothing tells which.
    Several(Vec<Verified>),
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

fn bearer<'a>(headers: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    headers.filter_map(|header| {
        let (scheme, token) = header.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
    })
}

/// Of two tokens of one session, the newer counts.
fn verified<'a>(texts: impl Iterator<Item = &'a [u8]>, signer: &Signer) -> Presented {
    let mut presented = Presented::Nothing;
    for text in texts {
        let token = match signer.verify(&String::from_utf8_lossy(text)) {
            Ok(token) => token,
            Err(reason) => {
                tracing::debug!(?reason, "session token rejected");
                if matches!(presented, Presented::Nothing) {
                    presented = Presented::Rejected;
                }
                continue;
            }
        };
        presented = match presented {
            Presented::Nothing | Presented::Rejected => Presented::Token(token),
            Presented::Token(other) if other.id == token.id => Presented::Token(newer(other, token)),
            Presented::Token(other) => Presented::Several(vec![other, token]),
            Presented::Several(mut tokens) => {
                match tokens.iter().position(|other| other.id == token.id) {
                    Some(at) => tokens[at] = newer(tokens[at], token),
                    None if tokens.len() < PRESENTED_MAX => tokens.push(token),
                    None => tracing::warn!("a request presented too many sessions, the others are ignored"),
                }
                Presented::Several(tokens)
            }
        };
    }
    presented
}

fn newer(a: Verified, b: Verified) -> Verified {
    if b.version > a.version { b } else { a }
}

#[cfg(test)]
mod tests {
    use pg_session::{KeyRing, SessionId, SigningKey, Version};

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
            assert!(matches!(of(&[wrong]), Presented::Rejected));
            for texts in [[wrong, &first], [&first, wrong]] {
                assert!(matches!(of(&texts.map(String::as_str)), Presented::Token(token) if token.id == one));
            }
        }
        assert!(matches!(of(&[&first, &first]), Presented::Token(token) if token.id == one));
        assert!(matches!(of(&[&first, &second, &first]), Presented::Several(tokens) if tokens.len() == 2));
        let many: Vec<String> = (0..PRESENTED_MAX * 2).map(|_| issue(&signer, id())).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(matches!(of(&many), Presented::Several(tokens) if tokens.len() == PRESENTED_MAX));
    }
}
