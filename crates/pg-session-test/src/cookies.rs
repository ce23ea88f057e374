//! The cookies of a browser, as far as sessions need them (RFC 6265).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cookie::{Cookie, Expiration};

/// Cookies of one origin, whose requests count as HTTPS.
#[derive(Clone, Debug)]
pub(crate) struct CookieJar {
    kept: Vec<Kept>,
    began: Instant,
    /// Microseconds that a test has let pass.
    pub(crate) passed: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
struct Kept {
    name: String,
    value: String,
    path: String,
    /// After the jar was made. `None` for a cookie that ends with the browser.
    ends: Option<Duration>,
}

impl CookieJar {
    pub(crate) fn new() -> Self {
        Self { kept: Vec::new(), began: Instant::now(), passed: Arc::default() }
    }

    /// Since the jar was made, with what the test has let pass.
    fn now(&self) -> Duration {
        self.began.elapsed() + Duration::from_micros(self.passed.load(Ordering::Relaxed))
    }

    /// Keeps or removes what a `Set-Cookie` header of the response to `request_path` says.
    pub(crate) fn receive(&mut self, header: &str, request_path: &str) {
        let Ok(cookie) = Cookie::parse(header.to_owned()) else { return };
        let secure = cookie.secure().unwrap_or(false);
        let path = match cookie.path() {
            Some(path) if path.starts_with('/') => path.to_owned(),
            _ => default_path(request_path).to_owned(),
        };
        let host_rules = secure && cookie.domain().is_none() && path == "/";
        // Browsers refuse these, and so a test should see it.
        if (cookie.name().starts_with("__Host-") && !host_rules)
            || (cookie.name().starts_with("__Secure-") && !secure)
        {
            return;
        }
        let now = self.now();
        let ends = match (cookie.max_age(), cookie.expires()) {
            (Some(age), _) => Some(now + Duration::try_from(age).unwrap_or(Duration::ZERO)),
            (None, Some(Expiration::DateTime(time))) => {
                let left = std::time::SystemTime::from(time).duration_since(std::time::SystemTime::now());
                Some(now + left.unwrap_or(Duration::ZERO))
            }
            (None, Some(Expiration::Session) | None) => None,
        };
        self.kept.retain(|kept| kept.name != cookie.name() || kept.path != path);
        if ends.is_none_or(|ends| ends > now) {
            let (name, value) = (cookie.name().to_owned(), cookie.value().to_owned());
            self.kept.push(Kept { name, value, path, ends });
        }
    }

    /// The `Cookie` header of a request, the cookies with longer paths first.
    pub(crate) fn header(&self, path: &str) -> Option<String> {
        let mut sent: Vec<&Kept> = self.current().filter(|kept| covers(&kept.path, path)).collect();
        sent.sort_by_key(|kept| std::cmp::Reverse(kept.path.len()));
        let pairs: Vec<String> = sent.iter().map(|kept| format!("{}={}", kept.name, kept.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.current().find(|kept| kept.name == name).map(|kept| kept.value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        let (name, value) = (name.to_owned(), value.to_owned());
        self.kept.push(Kept { name, value, path: "/".to_owned(), ends: None });
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.kept.retain(|kept| kept.name != name);
    }

    /// Ends what ends with the browser.
    pub(crate) fn restart(&mut self) {
        self.kept.retain(|kept| kept.ends.is_some());
    }

    fn current(&self) -> impl Iterator<Item = &Kept> {
        let now = self.now();
        self.kept.iter().filter(move |kept| kept.ends.is_none_or(|ends| ends > now))
    }
}

/// RFC 6265, 5.1.4.
fn default_path(request_path: &str) -> &str {
    match request_path.rfind('/') {
        None | Some(0) => "/",
        Some(end) => &request_path[..end],
    }
}

/// RFC 6265, 5.1.4: whether a cookie of `path` is sent to `request_path`.
fn covers(path: &str, request_path: &str) -> bool {
    request_path
        .strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || path.ends_with('/') || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_that_a_browser_refuses_are_not_kept() {
        let mut jar = CookieJar::new();
        jar.receive("__Host-a=1; Path=/; Secure; Domain=example.com", "/");
        jar.receive("__Host-b=1; Path=/x; Secure", "/");
        jar.receive("__Host-c=1; Path=/", "/");
        assert_eq!(jar.header("/"), None);
        jar.receive("__Host-e=1; Path=/; Secure", "/");
        assert_eq!(jar.header("/").as_deref(), Some("__Host-e=1"));
    }

    #[test]
    fn a_cookie_is_sent_below_its_path_only() {
        let mut jar = CookieJar::new();
        jar.receive("a=1; Path=/shop", "/");
        jar.receive("b=2", "/shop/cart");
        assert_eq!(jar.header("/shop/x").as_deref(), Some("a=1; b=2"));
        assert_eq!(jar.header("/shopping"), None);
        assert_eq!(jar.header("/"), None);
    }

    #[test]
    fn a_cookie_ends_with_its_age_or_with_the_browser() {
        let mut jar = CookieJar::new();
        jar.receive("short=1; Max-Age=60", "/");
        jar.receive("browser=2", "/");
        jar.passed.store(59_000_000, Ordering::Relaxed);
        assert!(jar.get("short").is_some());
        jar.passed.store(60_000_000, Ordering::Relaxed);
        assert!(jar.get("short").is_none() && jar.get("browser").is_some());
        jar.restart();
        assert!(jar.get("browser").is_none());
        jar.receive("gone=1; Max-Age=100", "/");
        jar.receive("gone=; Max-Age=0", "/");
        assert!(jar.get("gone").is_none());
    }
}
