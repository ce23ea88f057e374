//! The cookies of the console: only for its own paths, never for scripts, never from another site.

use axum::http::HeaderMap;
use axum::http::header::COOKIE;

/// The values of all cookies of this name.
pub(super) fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Without `seconds`, the cookie ends with the browser.
pub(super) fn set_cookie(
    headers: &HeaderMap,
    name: &str,
    value: &str,
    base: &str,
    seconds: Option<u64>,
) -> String {
    // Over plain HTTP a browser would drop a secure cookie, except on this machine.
    let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let secure = if is_https { "; Secure" } else { "" };
    let path = if base.is_empty() { "/" } else { base };
    let max_age = seconds.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
    format!("{name}={value}; Path={path}; HttpOnly; SameSite=Strict{max_age}{secure}")
}
