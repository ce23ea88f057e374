//! [`LostCookies`]: notices that no client sends its cookie back, and says once which setting that needs.
//!
//! Browsers drop `Secure` cookies that come over plain HTTP without a word. Then each request begins a session.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::request_head::RequestHead;

/// Cookies that are sent to clients without one before the warning, if none came back.
const ISSUED_MAX: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct LostCookies {
    issued: AtomicU32,
    /// One has come back, or the warning was given.
    settled: AtomicBool,
}

impl LostCookies {
    /// A request brought a cookie of ours.
    pub(crate) fn returned(&self) {
        // Most requests only read it.
        if !self.settled.load(Ordering::Relaxed) {
            self.settled.store(true, Ordering::Relaxed);
        }
    }

    /// A `Secure` cookie was sent to a client that had none, over what does not look like HTTPS.
    pub(crate) fn issued(&self) {
        if self.settled.load(Ordering::Relaxed) {
            return;
        }
        let issued = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        if issued >= ISSUED_MAX && !self.settled.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                issued,
                "no client has sent its session cookie back; browsers drop `Secure` cookies over plain HTTP: serve HTTPS, \
                 or during development set `CookiePolicy::insecure_without_tls`"
            );
        }
    }
}

/// Whether a proxy says that the client used HTTPS.
pub(crate) fn is_https(head: &impl RequestHead) -> bool {
    let says = |name: &str, part: &[u8]| {
        head.headers(name).any(|value| {
            let value = value.to_ascii_lowercase();
            value.windows(part.len()).any(|window| window == part)
        })
    };
    says("x-forwarded-proto", b"https") || says("forwarded", b"proto=https") || says("x-forwarded-ssl", b"on")
}
