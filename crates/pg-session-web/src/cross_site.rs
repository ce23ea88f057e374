//! Requests that another site caused: which they are, and which of them are refused.
//!
//! Browsers say with `Sec-Fetch-Site` where a request comes from, over HTTPS and on localhost; otherwise `Origin` is
//! compared with the host. A request with neither comes from no browser, or from one that sends neither because it is old.

use crate::error::Error;
use crate::request_head::{RequestHead, is_below};

/// Origins of [`trusted_origins`](crate::SessionConfig::trusted_origins), at most.
const ORIGINS_MAX: usize = 64;

/// Which requests of other sites are accepted.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrossSite {
    pub(crate) accept_all: bool,
    pub(crate) paths: Vec<String>,
    pub(crate) origins: Vec<String>,
}

/// Whether a page of another site has caused a request that may change something. For pages that have no
/// [`SessionConfig`](crate::SessionConfig): no origin and no path is an exception.
#[must_use]
pub fn is_from_another_site(head: &impl RequestHead) -> bool {
    !CrossSite::default().accepts(head)
}

/// Where the page is from that caused a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Site {
    /// This origin, or the user alone, or no browser.
    Own,
    /// Another host of the same site. Browsers send `SameSite` cookies along.
    Sibling,
    Other,
}

impl CrossSite {
    pub(crate) fn accepts(&self, head: &impl RequestHead) -> bool {
        self.accept_all
            || !is_unsafe(head)
            || Site::of(head) == Site::Own
            || self.paths.iter().any(|path| is_below(head.path(), path))
            || self.trusts(head)
    }

    fn trusts(&self, head: &impl RequestHead) -> bool {
        let mut origins = head.headers("origin");
        let Some(Ok(origin)) = origins.next().map(std::str::from_utf8) else { return false };
        let origin = without_default_port(&origin.to_ascii_lowercase());
        origins.next().is_none() && self.origins.contains(&origin)
    }
}

impl Site {
    pub(crate) fn of(head: &impl RequestHead) -> Self {
        let mut found = None;
        for site in head.headers("sec-fetch-site") {
            let site = match site {
                b"same-origin" | b"none" => Self::Own,
                b"same-site" => Self::Sibling,
                _ => Self::Other,
            };
            // Of several, the worst counts.
            if found.is_none_or(|known| known == Self::Own || site == Self::Other) {
                found = Some(site);
            }
        }
        found.unwrap_or_else(|| {
            if head.headers("origin").all(|origin| is_own(origin, head)) { Self::Own } else { Self::Other }
        })
    }
}

/// Whether the request may change something: by its method, or as the beginning of a WebSocket. A proxy that asks for
/// another one does not send `Upgrade`, which belongs to its own connection.
pub(crate) fn is_unsafe(head: &impl RequestHead) -> bool {
    !matches!(head.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE")
        || head.headers("upgrade").any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        || head.headers("sec-websocket-key").next().is_some()
}

/// Whether an `Origin` names the host that the client asked for. A proxy may have put another one into `host`; what it has
/// put into `x-forwarded-host` no page can write.
fn is_own(origin: &[u8], head: &impl RequestHead) -> bool {
    let Ok(origin) = std::str::from_utf8(origin) else { return false };
    let origin = without_default_port(&origin.to_ascii_lowercase());
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let matches = |host: &str| {
        let own = format!("{scheme}://{}", host.trim().to_ascii_lowercase());
        without_default_port(&own) == origin && !authority.is_empty()
    };
    let forwarded = head.headers("x-forwarded-host").filter_map(|value| std::str::from_utf8(value).ok());
    head.authority().is_some_and(matches) || forwarded.flat_map(|value| value.split(',')).any(matches)
}

fn without_default_port(origin: &str) -> String {
    let port = if origin.starts_with("https:") { ":443" } else { ":80" };
    origin.strip_suffix(port).unwrap_or(origin).to_owned()
}

/// Origins as browsers write them, in lower case and without a default port.
pub(crate) fn origins<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>, Error> {
    let wrong =
        || Error::config("a trusted origin must have a scheme and a host, like `https://app.example`");
    let mut origins = Vec::new();
    for text in texts {
        let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
        if !matches!(scheme, "http" | "https") || authority.is_empty() || !authority.bytes().all(fine) {
            return Err(wrong());
        }
        if origins.len() == ORIGINS_MAX {
            return Err(Error::config("trusted_origins must name at most 64 origins"));
        }
        origins.push(without_default_port(&text.to_ascii_lowercase()));
    }
    Ok(origins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_head::TestHead;

    type Headers = &'static [(&'static str, &'static str)];

    fn head(method: &'static str, headers: Headers) -> TestHead {
        TestHead { method, authority: Some("shop.example:8443"), ..TestHead::new(headers) }
    }

    fn site(headers: Headers) -> Site {
        Site::of(&head("POST", headers))
    }

    #[test]
    fn the_browser_says_where_a_request_is_from() {
        for (headers, expected) in [
            (&[][..], Site::Own),
            (&[("sec-fetch-site", "same-origin")], Site::Own),
            (&[("sec-fetch-site", "none")], Site::Own),
            (&[("sec-fetch-site", "same-site")], Site::Sibling),
            (&[("sec-fetch-site", "cross-site")], Site::Other),
            (&[("sec-fetch-site", "")], Site::Other),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], Site::Other),
            (&[("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-origin")], Site::Other),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")], Site::Own),
            (&[("origin", "https://shop.example:8443")], Site::Own),
            (&[("origin", "HTTPS://Shop.Example:8443")], Site::Own),
            (&[("origin", "https://shop.example")], Site::Other),
            (&[("origin", "https://shop.example"), ("x-forwarded-host", "shop.example")], Site::Own),
            (
                &[("origin", "https://shop.example"), ("x-forwarded-host", "shop.example:443, proxy")],
                Site::Own,
            ),
            (&[("origin", "http://shop.example"), ("x-forwarded-host", "shop.example:80")], Site::Own),
            (&[("origin", "https://evil.example"), ("x-forwarded-host", "shop.example")], Site::Other),
            (&[("origin", "null")], Site::Other),
            (&[("origin", "")], Site::Other),
            (&[("origin", "https://"), ("x-forwarded-host", "")], Site::Other),
            (&[("origin", "https://shop.example:8443.evil.example")], Site::Other),
        ] {
            assert_eq!(site(headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn methods_and_websockets_that_change_something_are_unsafe() {
        for method in ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "post", ""] {
            assert!(is_unsafe(&head(method, &[])), "{method}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(!is_unsafe(&head(method, &[("upgrade", "h2c")])), "{method}");
            assert!(is_unsafe(&head(method, &[("upgrade", "WebSocket")])), "{method}");
            assert!(is_unsafe(&head(method, &[("sec-websocket-key", "x")])), "{method}");
        }
    }

    #[test]
    fn trusted_origins_are_checked() {
        for wrong in ["", "shop.example", "https://", "ftp://a", "https://a/b", "https://*.a", "null"] {
            assert!(origins([wrong]).is_err(), "{wrong}");
        }
        let many = vec!["https://a"; ORIGINS_MAX + 1];
        assert!(origins(many).is_err());
        let trusted = origins(["https://App.example:443", "http://[::1]:8080"]).unwrap();
        assert_eq!(trusted, ["https://app.example", "http://[::1]:8080"]);
        let cross_site = CrossSite { origins: trusted, ..CrossSite::default() };
        let accepts = |headers| cross_site.accepts(&head("POST", headers));
        assert!(accepts(&[("sec-fetch-site", "same-site"), ("origin", "https://app.example")]));
        assert!(!accepts(&[("sec-fetch-site", "same-site"), ("origin", "https://app.example.evil")]));
        assert!(!accepts(&[("sec-fetch-site", "cross-site")]));
        assert!(!accepts(&[("origin", "https://app.example"), ("origin", "https://evil")]));
    }
}
