//! The end of a request: saves what was set, and says which headers the response needs.
//!
//! | at the end | response | sent to the client |
//! |---|---|---|
//! | not read, not written | as it is | nothing |
//! | only read | as it is | `Vary` |
//! | a flow was refused | as it is | `Vary` and `no-store` |
//! | saved | as it is | the new version's token |
//! | signed in, stepped up, logged out | as it is | the new token, or to forget it |
//! | ended before the request, its token older than any grace | as it is | to forget the token |
//! | ended, rotated or in conflict meanwhile | 409, or as it is with `ignore_save_conflicts` | nothing: a parallel response may have set a new session |
//! | the database does not answer | 503 | nothing |
//! | the handler answered 408, or 500 or above | as it is | what was committed already; nothing is saved |
//!
//! A cache must never store a token. What a response says about caches decides:
//!
//! | the handler's headers | a token that the client can do without | a new id, or a logout |
//! |---|---|---|
//! | none of these, `no-store` or `no-cache` | sent with `no-store` | sent with `no-store` |
//! | `private`, `max-age`, `Expires` | after a save: sent with `no-store`; after a key rotation: not sent | sent with `no-store` |
//! | `public`, `s-maxage`, or a header for a CDN | not sent, and a visitor gets no session | sent with `no-store` |
//!
//! Beside a token, all headers that tell a cache to store the response are removed. A response to a signed-in user that
//! read the session says `private, no-cache`, unless the handler has decided.

use std::time::{Duration, SystemTime};

use crate::cookie::Keep;
use crate::error::{Error, ErrorKind};
use crate::refusal::Refusal;
use crate::session::Session;
use crate::session_config::Unsaved;
use crate::state::{SessionState, State, TokenAction};

/// The least age of the token of an ended session whose cookie is removed: twice the longest grace of a rotation.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);
/// How long a request may have taken that tells so: a user cannot log in on another node meanwhile.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(1);

/// What an edge does to a response; from [`Session::close`].
#[derive(Debug)]
#[must_use = "the client needs the headers"]
pub struct ResponseChanges {
    /// The response that is sent instead, without any of the handler's headers, because what the response says was not done.
    pub refuse: Option<Refusal>,
    /// Headers to append: the token, or to forget it, or to forget those that are not ours.
    pub headers: Vec<(&'static str, String)>,
    /// The value of a `cache-control` to append. It replaces every header for which [`is_cache_header`] is true.
    pub cache_control: Option<&'static str>,
    /// The name of a request header to append to `vary`.
    pub vary: Option<&'static str>,
}

/// What is left to do when the handler has returned.
enum LastStep {
    Nothing,
    /// The session could not be read, and the response says otherwise.
    Refuse(Refusal),
    Save,
}

/// What a response says about caches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum CacheScope {
    /// Nothing.
    Unsaid,
    /// No cache stores it, or each one revalidates it: `no-store`, `no-cache`.
    Never,
    /// The client may store it: `private`, `max-age`, `Expires`.
    Private,
    /// Caches that answer other clients may store it: `public`, `s-maxage`, or a header for a CDN.
    Shared,
}

impl CacheScope {
    /// By the names and values of the response's headers. The names must be in lower case.
    #[must_use]
    pub fn from_cache_control<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        headers
            // In a response, `pragma` decides nothing.
            .filter(|&(name, value)| is_cache_header(name, value) && name != "pragma")
            .map(|(name, value)| match name {
                "expires" if is_past(value) => Self::Never,
                "expires" => Self::Private,
                // A number of seconds, or `@` and a time; 0 is "do not store".
                "x-accel-expires" if matches!(value.trim_ascii(), b"0" | b"off") => Self::Never,
                "x-accel-expires" => Self::Shared,
                "cache-control" => directives(value, Self::Private),
                // Addressed to shared caches alone.
                _ => directives(value, Self::Shared),
            })
            .max()
            .unwrap_or(Self::Unsaid)
    }
}

/// The directives of `cache-control` that tell a cache whether and how long to store. `no-transform` is none of them.
const STORING: [&[u8]; 8] = [
    b"no-store",
    b"no-cache",
    b"private",
    b"public",
    b"max-age",
    b"s-maxage",
    b"must-revalidate",
    b"immutable",
];

/// Whether a response header with this name, in lower case, tells a cache whether and how long to store the response:
/// `cache-control` with a directive that says so, and all names that end with it (`cdn-cache-control`,
/// `cloudflare-cdn-cache-control` and others), `surrogate-control`, `edge-control`, `cf-edge-cache`, `x-litespeed-cache`,
/// `x-cache-enabled`, `x-accel-expires`, `expires` and `pragma`.
#[must_use]
pub fn is_cache_header(name: &str, value: &[u8]) -> bool {
    if name == "cache-control" {
        let is_storing = |name: &[u8]| STORING.iter().any(|known| name.eq_ignore_ascii_case(known));
        return value.split(|&byte| byte == b',').any(|directive| is_storing(directive_name(directive)));
    }
    name.ends_with("-cache-control")
        || matches!(name, "surrogate-control" | "edge-control" | "x-accel-expires" | "expires" | "pragma")
        || matches!(name, "cf-edge-cache" | "x-litespeed-cache" | "x-cache-enabled")
}

/// `Expires: 0` and whatever else is no date means "expired"; so does a date of the last century.
fn is_past(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    !value.ends_with(b"GMT") || value.windows(3).any(|part| part == b" 19")
}

fn directive_name(directive: &[u8]) -> &[u8] {
    directive.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii()
}

/// What one header's directives allow; `otherwise`, if they allow to store but name no scope.
fn directives(value: &[u8], otherwise: CacheScope) -> CacheScope {
    let mut never = false;
    for directive in value.split(|&byte| byte == b',') {
        let name = directive_name(directive);
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"public") || is(b"s-maxage") {
            return CacheScope::Shared;
        }
        let value = directive.split(|&byte| byte == b'=').nth(1).map(<[u8]>::trim_ascii);
        // `no-cache` with a list of fields concerns those only.
        never |= is(b"no-store")
            || (is(b"no-cache") && value.is_none())
            || (is(b"max-age") && value == Some(b"0"));
    }
    if never { CacheScope::Never } else { otherwise }
}

impl Session {
    /// Ends the request: for edges, when the handler has returned and before the response's head leaves.
    ///
    /// # Cancel safety
    /// A save that has begun is finished, in a task of its own, if the future is dropped because the client is gone.
    pub async fn close(&self, status: u16, scope: CacheScope) -> ResponseChanges {
        let mut state = self.lock().await;
        state.closed = true;
        let refuse = match self.last_step(&mut state, status, scope) {
            LastStep::Nothing => None,
            LastStep::Refuse(refusal) => Some(self.sessions().parts().on_refusal.apply(refusal)),
            // In a box: most requests save nothing, and the future of each is as large as its largest step.
            LastStep::Save => {
                drop(state);
                let outcome = Box::pin(self.save_in_a_task()).await;
                state = self.lock().await;
                outcome.err().and_then(|error| self.refusal(&error))
            }
        };
        // Not sooner: a guard reads the session before the handler can say that this is no access.
        if state.touch
            && let Some(session) = state.present()
        {
            self.sessions().manager().touch(session);
        }
        if matches!(state.news, TokenAction::Resigned | TokenAction::Fresher) && !self.goes_on(&state).await {
            state.news = TokenAction::Nothing;
        }
        self.closing(&state, scope, refuse)
    }

    /// Whether the response removes the token of an ended session from the client. A login beside
    /// this request may have given it another one, which that would remove. So the token is older
    /// than any grace, a user asked for a page, and the request was short. This node has not ended
    /// or replaced the session itself.
    fn may_forget(&self, state: &State) -> bool {
        let Some(token) = self.presented().filter(|_| state.missing && self.navigates()) else {
            return false;
        };
        let parts = self.sessions().parts();
        let now = parts.manager.database_time();
        let is_older = |time: SystemTime, age| time.checked_add(age).is_some_and(|end| end < now);
        is_older(token.issued_at, FORGOTTEN_AFTER)
            && !is_older(self.began(), FORGOTTEN_WITHIN)
            && !parts.superseded.contains(token.id)
    }

    /// What is left to do when the handler has returned.
    fn last_step(&self, state: &mut State, status: u16, scope: CacheScope) -> LastStep {
        if let Some(refusal) = state.unread.take()
            && status < 400
        {
            return LastStep::Refuse(refusal);
        }
        // 408: a time limit inside the layer dropped the handler somewhere.
        if !state.is_modified() || status >= 500 || status == 408 {
            return LastStep::Nothing;
        }
        if matches!(state.session_state, SessionState::Absent(_)) {
            self.supersede();
            if state.withheld {
                tracing::warn!(
                    "a request of another site cannot begin a session: its browser may keep one back; what was set is dropped"
                );
                return LastStep::Nothing;
            }
            if scope == CacheScope::Shared {
                tracing::warn!(
                    "a response for shared caches cannot begin a session; what was set is dropped"
                );
                return LastStep::Nothing;
            }
        }
        LastStep::Save
    }

    /// Whether the session still goes on under this id. A parallel request may have changed it
    /// since it was read, and the browser may hold the new one. The old id in a fresher token would
    /// replace it. Usually answered from memory.
    async fn goes_on(&self, state: &State) -> bool {
        let Some(session) = state.present() else { return false };
        match self.sessions().manager().get(session.id()).no_touch().await {
            Ok(Some(now)) => !now.is_retired(),
            // The client can do without.
            Ok(None) | Err(_) => false,
        }
    }

    /// The server drops the future of a request whose client is gone; a task goes on.
    async fn save_in_a_task(&self) -> Result<(), Error> {
        let session = self.clone();
        let save = async move { session.lock().await.save(session.sessions()).await };
        match tokio::spawn(save).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::interrupted()),
        }
    }

    fn refusal(&self, error: &Error) -> Option<Refusal> {
        let passes = matches!(self.sessions().parts().unsaved, Unsaved::Pass) && error.is_outcome();
        if error.is_outcome() {
            tracing::info!(kind = ?error.kind(), passes, "the session was not saved: other requests changed or ended it");
        } else if error.kind() == ErrorKind::AnonymousLimit {
            // The limit itself has warned, once for all requests.
            tracing::debug!("the session was not created: too many visitors");
        } else {
            tracing::warn!(?error, "the session was not saved");
        }
        (!passes).then(|| self.sessions().parts().on_refusal.apply(error.refusal()))
    }

    fn closing(&self, state: &State, scope: CacheScope, refuse: Option<Refusal>) -> ResponseChanges {
        let parts = self.sessions().parts();
        // A refusal has none of the handler's headers.
        let scope = if refuse.is_some() { CacheScope::Unsaid } else { scope };
        let token = match (&state.session_state, state.news) {
            (_, TokenAction::Gone) => Some(parts.transport.remove()),
            (SessionState::Present(session), news) if tells(news, scope) => {
                // By the database's clock, like the session's end: the node's own may be hours off.
                let now = parts.manager.database_time();
                let token = parts.signer.issue_at(session.id(), session.version(), now);
                if news == TokenAction::NewId && !self.presented_something() && !self.is_https() {
                    parts.transport.warn_if_lost(&parts.lost_cookies);
                }
                Some(parts.transport.issue(&token, session.expires_at(), now, Keep::of(session)))
            }
            (SessionState::Absent(_), TokenAction::Nothing)
                if scope < CacheScope::Private && self.may_forget(state) =>
            {
                Some(parts.transport.remove())
            }
            _ => None,
        };
        // Not beside a token of ours: clients that know cookies by their names only would take the one for the other.
        let mut headers: Vec<_> = token.into_iter().collect();
        if headers.is_empty() && scope < CacheScope::Shared {
            headers.extend(state.removals().iter().map(|removal| ("set-cookie", removal.clone())));
        }
        // Their rows are committed, so a refused response sends them as well.
        headers.extend(state.flow_headers.iter().map(|flow| ("set-cookie", flow.clone())));
        let signed_in = state.accessed && state.present().is_some_and(|session| session.user_id().is_some());
        let cache_control = match scope {
            _ if !headers.is_empty() || refuse.is_some() || state.in_flow => Some("no-store"),
            CacheScope::Unsaid if signed_in => Some(parts.signed_in_cache_control),
            _ => None,
        };
        let vary = if state.accessed || !headers.is_empty() {
            Some(parts.transport.request_header())
        } else {
            state.in_flow.then_some("cookie")
        };
        ResponseChanges { refuse, headers, cache_control, vary }
    }
}

/// Whether the client gets a token. One that it can do without does not cost a response its caches.
fn tells(news: TokenAction, scope: CacheScope) -> bool {
    match news {
        TokenAction::NewId => true,
        TokenAction::Fresher => scope < CacheScope::Shared,
        TokenAction::Resigned => scope < CacheScope::Private,
        TokenAction::Nothing | TokenAction::Gone => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_who_may_store_a_response() {
        let of = |headers: &[(&'static str, &'static str)]| {
            CacheScope::from_cache_control(headers.iter().map(|&(name, value)| (name, value.as_bytes())))
        };
        for (scope, headers) in [
            (CacheScope::Unsaid, &[][..]),
            (CacheScope::Unsaid, &[("pragma", "public")]),
            (CacheScope::Unsaid, &[("cache-control", "no-transform")]),
            (CacheScope::Unsaid, &[("cache-control", ""), ("cache-control", "publicity, x=public")]),
            (CacheScope::Private, &[("cache-control", "no-transform, Must-Revalidate")]),
            (CacheScope::Private, &[("cache-control", "no-transform"), ("cache-control", "immutable")]),
            (CacheScope::Never, &[("cache-control", "no-transform, no-store")]),
            (CacheScope::Unsaid, &[("x-cache", "public"), ("surrogate-key", "a b")]),
            (CacheScope::Never, &[("cache-control", "no-store")]),
            (CacheScope::Never, &[("cache-control", "private, no-cache")]),
            (CacheScope::Never, &[("cdn-cache-control", "no-store"), ("x-accel-expires", "0")]),
            (CacheScope::Never, &[("cache-control", "max-age=0, must-revalidate"), ("expires", "0")]),
            (CacheScope::Never, &[("expires", "Thu, 01 Jan 1970 00:00:00 GMT")]),
            (CacheScope::Never, &[("surrogate-control", "max-age=0"), ("x-accel-expires", "off")]),
            (CacheScope::Shared, &[("edge-control", "!no-store, max-age=1d")]),
            (CacheScope::Shared, &[("x-litespeed-cache-control", "max-age=60")]),
            (CacheScope::Shared, &[("cf-edge-cache", "cache,platform=wordpress")]),
            (CacheScope::Private, &[("cache-control", "private, max-age=60")]),
            (CacheScope::Private, &[("cache-control", "max-age=60, x=public, publicity")]),
            (CacheScope::Private, &[("expires", "Thu, 01 Jan 2099 00:00:00 GMT")]),
            (CacheScope::Shared, &[("cache-control", "public")]),
            (CacheScope::Shared, &[("cache-control", "max-age=60, Public, immutable")]),
            (CacheScope::Shared, &[("cache-control", "S-MaxAge = 60")]),
            (CacheScope::Shared, &[("cache-control", "no-store"), ("cdn-cache-control", "max-age=60")]),
            (CacheScope::Shared, &[("cloudflare-cdn-cache-control", "max-age=60")]),
            (CacheScope::Shared, &[("vercel-cdn-cache-control", "max-age=60")]),
            (CacheScope::Shared, &[("surrogate-control", "max-age=60")]),
            (CacheScope::Shared, &[("edge-control", "cache-maxage=60m")]),
            (CacheScope::Shared, &[("x-accel-expires", "60")]),
        ] {
            assert_eq!(of(headers), scope, "{headers:?}");
        }
    }
}
