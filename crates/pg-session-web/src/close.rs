//! The end of a request: saves what was set, and says which headers the response needs.
//!
//! | at the end | response | told to the client |
//! |---|---|---|
//! | not read, not written | as it is | nothing |
//! | only read | as it is | `Vary` |
//! | saved | as it is | the new version's token |
//! | signed in, stepped up, logged out | as it is | the new token, or to forget it |
//! | ended, rotated or in conflict meanwhile | 409, or as it is with `pass_unsaved` | nothing: a parallel request may have told it of a new session |
//! | the database does not answer | 503 | nothing |
//! | the handler answered 500 or above | as it is | what was committed already; nothing is saved |
//!
//! A response that is marked for shared caches (`public`, `s-maxage`) never carries a token. What the client can do without is
//! left out, and a visitor gets no session by it; a new id or a logout it must learn of, so the mark is replaced by `no-store`.

use std::time::SystemTime;

use crate::error::Error;
use crate::session::{News, Session, Stage, State};
use crate::web_sessions::Unsaved;

/// What an edge does to a response; from [`Session::close`].
#[derive(Debug)]
#[must_use = "the client has to be told"]
pub struct Closing {
    /// The status of an empty response that is sent instead, because what the response says was not done.
    pub refuse: Option<u16>,
    /// A header to append: the token, or to forget it. Beside it, `cache-control: no-store` replaces all others.
    pub token: Option<(&'static str, String)>,
    /// The name of a request header to append to `vary`.
    pub vary: Option<&'static str>,
}

/// Who may keep a response, by its `cache-control`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheScope {
    /// Nobody but the client, as far as anybody was told.
    Private,
    /// Caches that answer other clients as well: `public` or `s-maxage`.
    Shared,
}

impl CacheScope {
    /// By the values of the response's `cache-control` headers.
    #[must_use]
    pub fn of<'a>(cache_control: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut directives = cache_control.flat_map(|value| value.split(|&byte| byte == b','));
        let is_shared = directives.any(|directive| {
            let name = directive.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
            name.eq_ignore_ascii_case(b"public") || name.eq_ignore_ascii_case(b"s-maxage")
        });
        if is_shared { Self::Shared } else { Self::Private }
    }
}

impl Session {
    /// Ends the request: for edges, when the handler has returned and before the response's head leaves.
    ///
    /// # Cancel safety
    /// A save that has begun is finished, in a task of its own, if the future is dropped because the client is gone.
    pub async fn close(&self, status: u16, scope: CacheScope) -> Closing {
        let refuse = self.save_at_the_end(status, scope).await;
        let mut state = self.lock().await;
        if state.news == News::Fresher && !self.goes_on(&state).await {
            state.news = News::Nothing;
        }
        self.closing(&state, scope, refuse)
    }

    /// The status to answer with, if what was set could not be saved.
    async fn save_at_the_end(&self, status: u16, scope: CacheScope) -> Option<u16> {
        {
            let mut state = self.lock().await;
            state.closed = true;
            if !state.is_modified() || status >= 500 {
                return None;
            }
            if matches!(state.stage, Stage::Absent(_)) && scope == CacheScope::Shared {
                tracing::warn!(
                    "a response for shared caches cannot begin a session; what was set is dropped"
                );
                return None;
            }
        }
        let outcome = self.save_in_a_task().await;
        outcome.err().and_then(|error| self.refusal(&error))
    }

    /// Whether the session still goes on under this id. A parallel request may have changed it since it was read, and the
    /// browser may hold the new one: the old id in a fresher token would replace it. Usually answered from memory.
    async fn goes_on(&self, state: &State) -> bool {
        let Some(session) = state.present() else { return false };
        match self.sessions().manager().get(session.id()).no_touch().await {
            Ok(Some(now)) => !now.is_rotated(),
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

    fn refusal(&self, error: &Error) -> Option<u16> {
        let passes = matches!(self.sessions().parts().unsaved, Unsaved::Pass) && error.is_outcome();
        if error.is_outcome() {
            tracing::info!(kind = ?error.kind(), passes, "the session was not saved: others were quicker");
        } else {
            tracing::warn!(?error, "the session was not saved");
        }
        (!passes).then(|| error.status())
    }

    fn closing(&self, state: &State, scope: CacheScope, refuse: Option<u16>) -> Closing {
        let parts = self.sessions().parts();
        let token = match (&state.stage, state.news) {
            (_, News::Gone) => Some(parts.transport.remove()),
            (Stage::Present(session), news) if tells(news, scope) => {
                let token = parts.signer.issue(session.id(), session.version());
                Some(parts.transport.issue(&token, session.expires_at(), now()))
            }
            _ => None,
        };
        let vary = (state.accessed || token.is_some()).then(|| parts.transport.request_header());
        Closing { refuse, token, vary }
    }
}

/// Whether the client gets a token: what it can do without does not cost a shared response its caches.
fn tells(news: News, scope: CacheScope) -> bool {
    match news {
        News::NewId => true,
        News::Fresher => scope == CacheScope::Private,
        News::Nothing | News::Gone => false,
    }
}

/// For `Max-Age` only, which tells browsers when they may forget; the database decides how long a session lives.
#[allow(clippy::disallowed_methods, reason = "the browser counts from its own now; nothing is decided by it")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_caches_are_told_by_two_directives() {
        let shared = |values: &[&'static str]| {
            CacheScope::of(values.iter().map(|value| value.as_bytes())) == CacheScope::Shared
        };
        assert!(shared(&["public"]));
        assert!(shared(&["max-age=60", "Public, immutable"]));
        assert!(shared(&["S-MaxAge = 60"]));
        assert!(!shared(&["private", "no-store", "max-age=60"]));
        assert!(!shared(&["x=public", "publicity"]));
        assert!(!shared(&[]));
    }
}
