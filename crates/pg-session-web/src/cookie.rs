//! [`CookiePolicy`]: the cookie's name and attributes. Reads the one from a request, writes the one of a response.
//!
//! Never weaker than its name says: each setting that gives up a protection has a name that says which.

use std::time::{Duration, SystemTime};

use ::cookie::{Cookie, SameSite};
use pg_session::SessionToken;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What RFC 6265bis lets a cookie's name and value have together. Browsers drop what is longer, without a word.
pub const COOKIE_BYTES_MAX: usize = 4096;
/// The longest name, so that name, token and `=` always fit, with most of the room left to the application's cookies.
const NAME_BYTES_MAX: usize = 128;
const _: () = assert!(NAME_BYTES_MAX + 1 + SessionToken::CHARS <= COOKIE_BYTES_MAX);

/// `Set-Cookie` headers that remove foreign cookies from one browser, at most: some proxies take heads of 4 kB only.
pub(crate) const REMOVALS_MAX: usize = 16;
/// Domains and paths whose cookies are removed, at most.
const DOMAINS_MAX: usize = 4;
const PATHS_MAX: usize = 8;

/// How the session's cookie looks.
///
/// By default `__Host-session`, `Secure`, `HttpOnly`, `SameSite=Lax`, `Path=/`, without `Domain`,
/// and kept by the browser for as long as the session can live. A browser takes a `__Host-` cookie
/// only over TLS and only from the host itself. So neither a sibling domain nor a page without TLS
/// can plant one.
///
/// **Two applications on one host overwrite each other's cookie if both use the default name.**
/// They do so also on different ports and paths, because cookies have no port. Give each a name of
/// its own with [`named`](Self::named).
///
/// ```
/// use pg_session_web::CookiePolicy;
///
/// let cookie = CookiePolicy::named("shop")?.same_site_strict();
/// assert_eq!(cookie.name(), "__Host-shop");
/// # Ok::<(), pg_session_web::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CookiePolicy {
    name: String,
    base: String,
    same_site: SameSite,
    secure: bool,
    domain: Option<String>,
    keep: Keep,
}

/// The attribute in which a login records how long the browser keeps its cookie, if it has decided.
pub(crate) const KEEP_KEY: &str = "pg-session/cookie";

/// How long a browser keeps the cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Keep {
    #[serde(rename = "persistent")]
    WhileTheSessionCanLive,
    #[serde(rename = "browser")]
    UntilTheBrowserCloses,
}

impl Keep {
    /// What the session's login has decided. `None`: the policy decides.
    pub(crate) fn of(session: &pg_session::Session) -> Option<Self> {
        // Another version's word is none of ours: then the policy decides, too.
        session.get(KEEP_KEY).ok().flatten()
    }
}

impl Default for CookiePolicy {
    fn default() -> Self {
        let base = "session".to_owned();
        let mut policy = Self {
            name: String::new(),
            base,
            same_site: SameSite::Lax,
            secure: true,
            domain: None,
            keep: Keep::WhileTheSessionCanLive,
        };
        policy.rename();
        policy
    }
}

impl CookiePolicy {
    /// The default, under another name. The prefix (`__Host-`) is put before it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the name has other characters than letters, digits, `-`, `_` and
    /// `.`, or none, or more than 100.
    pub fn named(name: &str) -> Result<Self, Error> {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 100 || !name.bytes().all(fine) {
            return Err(Error::config(
                "a cookie's name must have 1 to 100 characters of letters, digits, `-`, `_` and `.`",
            ));
        }
        let mut policy = Self { base: name.to_owned(), ..Self::default() };
        policy.rename();
        Ok(policy)
    }

    /// The whole name, prefix included.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether browsers refuse to keep the cookie.
    pub(crate) fn is_dropped_by_browsers(&self) -> bool {
        self.same_site == SameSite::None && !self.secure
    }

    /// Whether a browser keeps the cookie back from a request that another site caused.
    pub(crate) fn withholds(&self, is_unsafe: bool) -> bool {
        match self.same_site {
            SameSite::Strict => true,
            SameSite::Lax => is_unsafe,
            SameSite::None => false,
        }
    }

    /// `SameSite=Strict`: not sent even when the user follows a link from another site, who then looks logged out.
    pub fn same_site_strict(mut self) -> Self {
        self.same_site = SameSite::Strict;
        self
    }

    /// No `Max-Age`: the browser forgets the cookie when it is closed (if it does not restore its tabs). The session itself
    /// ends by its own limits. [`Login::remember`](crate::Login::remember) decides otherwise for one session.
    ///
    /// ```
    /// # fn f(sessions: pg_session_web::SessionConfig) {
    /// use pg_session_web::CookiePolicy;
    ///
    /// let sessions = sessions.cookie(CookiePolicy::default().session_cookie());
    /// # }
    /// ```
    pub fn session_cookie(mut self) -> Self {
        self.keep = Keep::UntilTheBrowserCloses;
        self
    }

    /// **Without `Secure` and without the `__Host-` prefix**: the cookie travels over plain HTTP, where each host on the way
    /// reads it. For development. Chromium and Firefox keep `Secure` cookies of `http://localhost` and need this for other hosts
    /// only. **Safari drops `Secure` cookies over plain HTTP, on `localhost` as well**, and each request looks like a first visit.
    /// Not together with [`insecure_cross_site`](Self::insecure_cross_site).
    pub fn insecure_without_tls(mut self) -> Self {
        self.secure = false;
        self.rename();
        self
    }

    /// **Sent to every host below `domain`, and every one of them can overwrite it**: the prefix becomes `__Secure-`.
    ///
    /// Upper case and one dot in front change nothing: `.Shop.Example` is `shop.example`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `domain` is not the name of a host: labels of letters, digits and `-`,
    /// with one dot between two of them, and 253 characters at most.
    pub fn insecure_for_all_hosts_of(mut self, domain: &str) -> Result<Self, Error> {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        // Browsers ignore that dot and compare without case (RFC 6265, 5.2.3).
        let domain = domain.strip_prefix('.').unwrap_or(domain).to_ascii_lowercase();
        if domain.len() > 253 || domain.split('.').any(|label| label.is_empty() || !label.bytes().all(fine)) {
            return Err(Error::config(
                "a cookie's domain must be the name of a host; write it like `shop.example`, with letters, digits, `-` and \
                 single dots",
            ));
        }
        self.domain = Some(domain);
        self.rename();
        Ok(self)
    }

    /// **`SameSite=None`: sent with requests that other sites cause.** For applications in a frame of another site. Protect
    /// every change against cross-site request forgery then. Browsers take such a cookie only with `Secure`, so this does not
    /// go together with [`insecure_without_tls`](Self::insecure_without_tls).
    ///
    /// ```
    /// # fn f(sessions: pg_session_web::SessionConfig) -> Result<(), pg_session_web::Error> {
    /// use pg_session_web::CookiePolicy;
    ///
    /// // The pages of the portal show this application in a frame, and send forms to it.
    /// let cookie = CookiePolicy::named("widget")?.insecure_cross_site();
    /// let sessions = sessions.cookie(cookie).trusted_origins(["https://portal.example"])?;
    /// # Ok(()) }
    /// ```
    pub fn insecure_cross_site(mut self) -> Self {
        self.same_site = SameSite::None;
        self
    }

    /// A prefix is a promise that browsers check, so the name follows the attributes.
    fn rename(&mut self) {
        let prefix = match (self.secure, &self.domain) {
            (true, None) => "__Host-",
            (true, Some(_)) => "__Secure-",
            (false, _) => "",
        };
        self.name = format!("{prefix}{}", self.base);
    }

    /// The values of all cookies of this name, in the order of the request. A page on another path or a sibling domain may
    /// have planted some of them, so the caller uses only those that verify.
    ///
    /// By hand and over bytes, not with the `cookie` crate, which trims all of Unicode's white
    /// space. Then a sibling domain's `U+2000 __Host-session` would be read as a `__Host-` cookie.
    /// Browsers do not take it for one.
    pub(crate) fn values<'a>(
        &self,
        headers: impl Iterator<Item = &'a [u8]>,
    ) -> impl Iterator<Item = &'a [u8]> {
        headers
            .flat_map(|header| header.split(|&byte| byte == b';'))
            .filter_map(|pair| pair.trim_ascii().strip_prefix(self.name.as_bytes())?.strip_prefix(b"="))
    }

    /// The cookie's name of one flow.
    pub(crate) fn flow_name(&self, provider: &str, suffix: &str) -> String {
        format!("{}.flow.{provider}.{suffix}", self.name)
    }

    /// Names and values of the cookies of flows.
    pub(crate) fn flow_cookies<'a>(
        &self,
        headers: impl Iterator<Item = &'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        headers.flat_map(|header| header.split(|&byte| byte == b';')).filter_map(|pair| {
            let pair = pair.trim_ascii();
            pair.strip_prefix(self.name.as_bytes())?.strip_prefix(b".flow.")?;
            let equals = pair.iter().position(|&byte| byte == b'=')?;
            Some((&pair[..equals], &pair[equals + 1..]))
        })
    }

    /// The value of a `Set-Cookie` header with a flow. Never `Strict`: the callback comes from another site.
    pub(crate) fn issue_flow(&self, name: &str, value: &str, lifetime: Duration, form_post: bool) -> String {
        let mut cookie = self.flow_cookie(name, value, form_post);
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        cookie.set_max_age(::cookie::time::Duration::seconds(seconds));
        cookie.to_string()
    }

    /// The value of a `Set-Cookie` header that removes a flow.
    pub(crate) fn remove_flow(&self, name: &str, form_post: bool) -> String {
        let mut cookie = self.flow_cookie(name, "", form_post);
        cookie.set_max_age(::cookie::time::Duration::ZERO);
        cookie.set_expires(::cookie::time::OffsetDateTime::UNIX_EPOCH);
        cookie.to_string()
    }

    fn flow_cookie<'a>(&'a self, name: &'a str, value: &'a str, form_post: bool) -> Cookie<'a> {
        let mut cookie = self.cookie(value);
        cookie.set_name(name);
        cookie.set_same_site(if form_post { SameSite::None } else { SameSite::Lax });
        cookie
    }

    /// The value of a `Set-Cookie` header with this token.
    ///
    /// `keep` is what the login has decided.
    pub(crate) fn issue(
        &self,
        token: &str,
        expires_at: SystemTime,
        now: SystemTime,
        keep: Option<Keep>,
    ) -> String {
        let mut cookie = self.cookie(token);
        if let Keep::WhileTheSessionCanLive = keep.unwrap_or(self.keep) {
            let left = expires_at.duration_since(now).unwrap_or(Duration::ZERO);
            // Rounded up: zero would remove the cookie. At most ten years: `Session`s do not live longer.
            let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
            cookie.set_max_age(::cookie::time::Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX)));
        }
        cookie.to_string()
    }

    /// The values of `Set-Cookie` headers that remove cookies of this name which this policy does
    /// not set, but browsers send beside ours. They are for other domains that contain `host`, and
    /// for paths that contain `path`. **Not our own**: a login in parallel may just have replaced
    /// it. At most [`REMOVALS_MAX`].
    pub(crate) fn remove_others(&self, host: Option<&str>, path: &str) -> Vec<String> {
        let domains = domains_of(host);
        let mut removals = Vec::new();
        for path in paths_of(path) {
            for domain in std::iter::once(None).chain(domains.iter().map(|domain| Some(*domain))) {
                let own = path == "/" && domain.map(str::to_ascii_lowercase) == self.domain;
                if !own && removals.len() < REMOVALS_MAX {
                    removals.push(self.removal(path, domain));
                }
            }
        }
        removals
    }

    /// The value of a `Set-Cookie` header that makes the browser forget the cookie.
    pub(crate) fn remove(&self) -> String {
        self.removal("/", self.domain.as_deref())
    }

    fn removal(&self, path: &str, domain: Option<&str>) -> String {
        let mut cookie = self.cookie("");
        cookie.set_path(path);
        match domain {
            Some(domain) => cookie.set_domain(domain),
            None => cookie.unset_domain(),
        }
        cookie.set_max_age(::cookie::time::Duration::ZERO);
        // For what does not know Max-Age.
        cookie.set_expires(::cookie::time::OffsetDateTime::UNIX_EPOCH);
        cookie.to_string()
    }

    fn cookie<'a>(&'a self, value: &'a str) -> Cookie<'a> {
        let mut cookie = Cookie::new(&*self.name, value);
        cookie.set_path("/");
        cookie.set_http_only(true);
        cookie.set_same_site(self.same_site);
        cookie.set_secure(self.secure);
        if let Some(domain) = &self.domain {
            cookie.set_domain(&**domain);
        }
        cookie
    }
}

/// The host itself and the domains above it, without the last label alone, which no browser takes. None for an address.
fn domains_of(host: Option<&str>) -> Vec<&str> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let Some(host) = host.filter(|host| host.len() <= 253 && host.bytes().all(fine)) else {
        return Vec::new();
    };
    let is_address =
        host.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if is_address {
        return Vec::new();
    }
    let above =
        host.match_indices('.').map(|(dot, _)| &host[dot + 1..]).filter(|domain| domain.contains('.'));
    std::iter::once(host).chain(above).take(DOMAINS_MAX).collect()
}

/// The paths whose cookies a browser sends with a request for `path`: `/`, and each folder with and without its slash.
fn paths_of(path: &str) -> Vec<&str> {
    let fine = |byte: u8| byte.is_ascii_graphic() && !b";\",\\".contains(&byte);
    let mut paths = vec!["/"];
    if !path.starts_with('/') || !path.bytes().all(fine) {
        return paths;
    }
    for (slash, _) in path.match_indices('/').skip(1) {
        paths.extend([&path[..slash], &path[..=slash]]);
    }
    if !path.ends_with('/') {
        paths.push(path);
    }
    paths.truncate(PATHS_MAX);
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<'a>(headers: &[&'a str]) -> Vec<&'a [u8]> {
        CookiePolicy::default().values(headers.iter().map(|header| header.as_bytes())).collect()
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        assert_eq!(values(&["a=1; __Host-session=abc ;b=2"]), [b"abc"]);
        assert_eq!(values(&["a=1", "__Host-session=abc"]), [b"abc"]);
        assert_eq!(values(&["__Host-session=a=b"]), [b"a=b"]);
        let others = values(&["__Host-session2=x; x__Host-session=y; __host-session=z; __Host-session"]);
        assert!(others.is_empty() && values(&[]).is_empty());
    }

    #[test]
    fn duplicate_cookies_are_all_found() {
        assert_eq!(values(&["__Host-session=a; __Host-session="]), [&b"a"[..], b""]);
        assert_eq!(values(&["__Host-session=a", "b=c; __Host-session=b"]), [b"a", b"b"]);
    }

    #[test]
    fn white_space_beyond_ascii_does_not_make_a_host_cookie() {
        for space in ['\u{2000}', '\u{85}', '\u{a0}', '\u{3000}'] {
            assert!(values(&[&format!("{space}__Host-session=evil")]).is_empty(), "{space:?}");
            let both = format!("__Host-session=good; {space}__Host-session=evil");
            assert_eq!(values(&[&both]), [b"good"], "{space:?}");
        }
    }

    #[test]
    fn a_cookie_that_is_not_text_does_not_hide_ours() {
        let header: &[u8] = b"x=\xff\xfe; __Host-session=abc";
        let values: Vec<_> = CookiePolicy::default().values(std::iter::once(header)).collect();
        assert_eq!(values, [b"abc"]);
    }

    #[test]
    fn cookies_of_other_domains_and_paths_are_removed() {
        let plain = CookiePolicy::default().insecure_without_tls();
        let scopes = |policy: &CookiePolicy, host, path| {
            let removals = policy.remove_others(host, path);
            assert!(removals.iter().all(|text| text.contains("Max-Age=0")), "{removals:?}");
            let part = |text: &str, name: &str| {
                let found = text.split("; ").find_map(|part| part.strip_prefix(name));
                found.unwrap_or("-").to_owned()
            };
            let scope = |text: &String| format!("{} {}", part(text, "Domain="), part(text, "Path="));
            removals.iter().map(scope).collect::<Vec<_>>()
        };
        assert_eq!(
            scopes(&plain, Some("app.shop.example"), "/a"),
            ["app.shop.example /", "shop.example /", "- /a", "app.shop.example /a", "shop.example /a"]
        );
        let wide = CookiePolicy::default().insecure_for_all_hosts_of("shop.example").unwrap();
        assert_eq!(scopes(&wide, Some("app.shop.example"), "/"), ["- /", "app.shop.example /"]);
        assert_eq!(scopes(&plain, Some("127.0.0.1"), "/a/b"), ["- /a", "- /a/", "- /a/b"]);
        assert_eq!(scopes(&plain, None, "/;evil"), Vec::<String>::new());
        assert_eq!(scopes(&plain, Some("a.b.c.d.e.f.g"), "/1/2/3/4/5/6/7").len(), REMOVALS_MAX);
        assert!(scopes(&plain, Some("a.b;c"), "/").is_empty());
    }

    #[test]
    fn the_default_is_the_strongest_that_works_everywhere() {
        let now = SystemTime::UNIX_EPOCH;
        let text = CookiePolicy::default().issue("token", now + Duration::from_secs(60), now, None);
        assert_eq!(text, "__Host-session=token; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=60");
        let removal = CookiePolicy::default().remove();
        assert_eq!(
            removal,
            "__Host-session=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0; \
             Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        );
    }

    #[test]
    fn a_weaker_cookie_has_a_weaker_name() {
        let now = SystemTime::UNIX_EPOCH;
        let plain = CookiePolicy::default().insecure_without_tls().session_cookie();
        assert_eq!(plain.issue("token", now, now, None), "session=token; HttpOnly; SameSite=Lax; Path=/");
        let wide = CookiePolicy::named("a").unwrap().insecure_for_all_hosts_of("example.com").unwrap();
        let wide = wide.insecure_cross_site().issue("token", now, now, None);
        assert_eq!(
            wide,
            "__Secure-a=token; HttpOnly; SameSite=None; Secure; Path=/; Domain=example.com; Max-Age=0"
        );
    }

    #[test]
    fn a_login_decides_whether_a_browser_keeps_its_cookie() {
        let now = SystemTime::UNIX_EPOCH;
        let has_age = |policy: &CookiePolicy, keep| {
            policy.issue("token", now + Duration::from_secs(60), now, keep).contains("Max-Age=60")
        };
        let (kept, forgotten) = (CookiePolicy::default(), CookiePolicy::default().session_cookie());
        assert!(has_age(&kept, None) && !has_age(&forgotten, None));
        for policy in [kept, forgotten] {
            assert!(has_age(&policy, Some(Keep::WhileTheSessionCanLive)), "{policy:?}");
            assert!(!has_age(&policy, Some(Keep::UntilTheBrowserCloses)), "{policy:?}");
        }
    }

    #[test]
    fn names_that_break_out_are_refused() {
        for name in ["", "a b", "a=b", "a;b", "a\r\nb", "ä", &"x".repeat(101)] {
            assert!(CookiePolicy::named(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_domain_has_one_spelling() {
        let now = SystemTime::UNIX_EPOCH;
        let wide = |domain: &str| CookiePolicy::default().insecure_for_all_hosts_of(domain);
        for domain in ["shop.example", ".shop.example", "Shop.EXAMPLE", ".SHOP.example"] {
            let policy = wide(domain).unwrap();
            for cookie in [policy.issue("token", now, now, None), policy.remove()] {
                assert!(cookie.contains("; Domain=shop.example;"), "{domain}: {cookie}");
            }
            // Its own cookie is not another one.
            let others = policy.remove_others(Some("SHOP.example"), "/");
            assert!(others.iter().all(|cookie| !cookie.contains("Domain=")), "{domain}: {others:?}");
        }
        for domain in ["", ".", "..", "..a", "a..b", "a.", "a b", "a;b", "a\nb", "ä", &"a".repeat(254)] {
            let error = wide(domain).expect_err(domain);
            assert_eq!(error.kind(), crate::error::ErrorKind::Config, "{domain:?}");
            assert!(error.to_string().contains("write it like `shop.example`"), "{domain:?}: {error}");
        }
    }
}
