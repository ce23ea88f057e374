//! [`FlowCookie`]: the cookies of flows that a request brings.

use crate::cookie::CookiePolicy;

/// Flow cookies of one request that are looked at, at most.
const COOKIES_MAX: usize = 32;

/// One cookie of a flow, as a request brought it.
#[derive(Clone, Debug)]
pub(crate) struct FlowCookie {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FlowCookie {
    /// All of a request.
    pub(crate) fn all<'a>(policy: &CookiePolicy, headers: impl Iterator<Item = &'a [u8]>) -> Vec<Self> {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        policy
            .flow_cookies(headers)
            .filter_map(|(name, value)| Some(Self { name: text(name)?, value: text(value)? }))
            .take(COOKIES_MAX)
            .collect()
    }
}
