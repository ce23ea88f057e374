//! [`State`]: what a request knows of its session, and what its response has to say. Loads it, creates it, saves it.

use std::time::Duration;

use pg_session::{SessionId, Verified};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::draft::{Draft, Lifetime};
use crate::error::Error;
use crate::refusal::Refusal;
use crate::session_config::{Check, SessionConfig};
use crate::transport::Several;

pub(crate) struct State {
    pub(crate) session_state: SessionState,
    pub(crate) news: TokenAction,
    /// Whether the response depends on the session.
    pub(crate) accessed: bool,
    /// Whether the response's head has left.
    pub(crate) closed: bool,
    /// The live sessions whose tokens the request presented, if there are several. The request counts as a visitor's then.
    /// A new session ends them, or the next request would present two live sessions again; so does a logout.
    pub(crate) rivals: Vec<SessionId>,
    /// Whether the request presents more sessions than are looked at. Then it counts as a visitor's that cannot save.
    pub(crate) flooded: bool,
    /// Whether the client may have a session that its browser has kept back. Then nothing but a login begins one, which would
    /// take its place.
    pub(crate) withheld: bool,
    /// Whether the request counts as an access, if it has read the session.
    pub(crate) touch: bool,
    /// Whether the session that was presented was looked for and not found.
    pub(crate) missing: bool,
    /// The `Set-Cookie` values that remove cookies of our name that are not ours.
    pub(crate) removals: Vec<String>,
    /// Whether the response depends on the cookie of a flow.
    pub(crate) in_flow: bool,
    /// The `Set-Cookie` values of flows that the request has begun or taken.
    pub(crate) flow_headers: Vec<String>,
    /// What a guard has refused because the session could not be read.
    pub(crate) unread: Option<Refusal>,
}

pub(crate) enum SessionState {
    Unread(Verified),
    /// Authentic tokens of several sessions.
    Ambiguous(Several),
    Absent(Draft),
    Present(Box<pg_session::Session>),
}

/// What the response has to tell the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenAction {
    Nothing,
    /// The same version, signed with the key that signs now, or the database's version where it has lost the client's. The
    /// client can do without until the old key goes.
    Resigned,
    /// A newer version. The client can do without, but may read its own writes late on another node.
    Fresher,
    /// Another id. Without it the client loses the session.
    NewId,
    /// Logged out.
    Gone,
}

impl State {
    pub(crate) async fn load(&mut self, web: &SessionConfig) -> Result<(), Error> {
        let session = match &self.session_state {
            SessionState::Unread(token) => {
                let session = read(web, token).await?;
                self.missing = session.is_none();
                session.map(|session| (*token, session))
            }
            SessionState::Ambiguous(several) => {
                let mut live = Vec::new();
                for token in &several.tokens {
                    if let Some(session) = read(web, token).await? {
                        live.push((*token, session));
                    }
                }
                // The tokens of ended sessions do not count. Nor do retired ids beside another
                // session, which may be theirs. Two live sessions are those of two users.
                if live.iter().any(|(_, session)| !session.is_retired()) {
                    live.retain(|(_, session)| !session.is_retired());
                }
                if live.len() > 1 || self.flooded {
                    tracing::warn!(
                        sessions = live.len(),
                        "a request presented several live sessions and counts as a visitor's; another page may have planted a cookie"
                    );
                    self.rivals = live.drain(..).map(|(_, session)| session.id()).collect();
                }
                live.pop()
            }
            SessionState::Absent(_) | SessionState::Present(_) => return Ok(()),
        };
        self.session_state = match session {
            Some((token, session)) => {
                // A client that comes back gets a token from the key that signs now, so that the old key can go.
                // So does one whose token names a version that the database has lost, or each of its requests asks again.
                let is_lost = session.version() < token.version;
                if is_lost || token.key != web.parts().signer.ring().signing() {
                    self.news = TokenAction::Resigned;
                }
                SessionState::Present(Box::new(session))
            }
            None => SessionState::Absent(Draft::default()),
        };
        Ok(())
    }

    /// The `Set-Cookie` values with which a client that presents several live sessions can find back to its own.
    pub(crate) fn removals(&self) -> &[String] {
        if self.rivals.is_empty() && !self.flooded { &[] } else { &self.removals }
    }

    /// Ends the sessions between which the request could not choose, before a new session takes their place.
    pub(crate) async fn end_rivals(&mut self, web: &SessionConfig) -> Result<(), Error> {
        if !self.rivals.is_empty() {
            web.manager().delete_many(self.rivals.iter().copied()).await?;
            self.rivals.clear();
        }
        Ok(())
    }

    pub(crate) fn present(&self) -> Option<&pg_session::Session> {
        match &self.session_state {
            SessionState::Present(session) => Some(session),
            SessionState::Unread(_) | SessionState::Ambiguous(_) | SessionState::Absent(_) => None,
        }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        match &self.session_state {
            SessionState::Present(session) => Ok(session.get(key)?),
            SessionState::Absent(draft) => draft.get(key),
            SessionState::Unread(_) | SessionState::Ambiguous(_) => Ok(None),
        }
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        match &self.session_state {
            SessionState::Present(session) => session.contains(key),
            SessionState::Absent(draft) => draft.contains(key),
            SessionState::Unread(_) | SessionState::Ambiguous(_) => false,
        }
    }

    pub(crate) fn put<T: Serialize + ?Sized>(
        &mut self,
        web: &SessionConfig,
        key: &str,
        value: &T,
        lifetime: Lifetime,
    ) -> Result<(), Error> {
        match (&mut self.session_state, lifetime) {
            (SessionState::Present(session), Lifetime::Session) => Ok(session.set(key, value)?),
            (SessionState::Present(session), Lifetime::For(lifetime)) => {
                Ok(session.set_for(key, value, lifetime)?)
            }
            (SessionState::Present(session), Lifetime::Until(end)) => Ok(session.set_until(key, value, end)?),
            (SessionState::Absent(draft), lifetime) => draft.set(web.manager(), key, value, lifetime),
            // `open` has loaded it.
            (SessionState::Unread(_) | SessionState::Ambiguous(_), _) => Ok(()),
        }
    }

    /// Whether a save would write something.
    pub(crate) fn is_modified(&self) -> bool {
        match &self.session_state {
            SessionState::Present(session) => session.is_modified(),
            SessionState::Absent(draft) => !draft.is_empty(),
            SessionState::Unread(_) | SessionState::Ambiguous(_) => false,
        }
    }

    /// Writes what was set, to the session that there is or to a new one. Never to one that has ended.
    pub(crate) async fn save(&mut self, web: &SessionConfig) -> Result<(), Error> {
        if matches!(&self.session_state, SessionState::Absent(draft) if !draft.is_empty()) {
            self.create(web).await?;
        }
        let manager = web.manager();
        let renewal = self.renewal(web);
        match &mut self.session_state {
            SessionState::Present(session) if session.is_modified() => {
                let mut update = manager.save(session);
                if let Some(lifetime) = renewal {
                    update = update.expires_in(lifetime);
                }
                let saved = match web.parts().check {
                    Check::Nothing => update.await,
                    Check::Attributes => update.check_attributes().await,
                };
                match saved.map_err(Error::from) {
                    Ok(()) => self.tell(TokenAction::Fresher),
                    Err(error) => {
                        if error.is_outcome() {
                            session.discard_changes();
                        }
                        return Err(error);
                    }
                }
            }
            SessionState::Present(_)
            | SessionState::Absent(_)
            | SessionState::Unread(_)
            | SessionState::Ambiguous(_) => {}
        }
        Ok(())
    }

    /// The session's id. Without a session, one is created.
    pub(crate) async fn id_or_new(&mut self, web: &SessionConfig) -> Result<SessionId, Error> {
        if matches!(self.session_state, SessionState::Absent(_)) {
            self.create(web).await?;
        }
        // `open` has loaded it.
        self.present().map(pg_session::Session::id).ok_or_else(Error::closed)
    }

    /// Makes a session of the draft.
    async fn create(&mut self, web: &SessionConfig) -> Result<(), Error> {
        if self.flooded {
            return Err(Error::ambiguous());
        }
        if self.withheld {
            return Err(Error::cross_site());
        }
        self.end_rivals(web).await?;
        let SessionState::Absent(draft) = &self.session_state else { return Ok(()) };
        let (manager, parts) = (web.manager(), web.parts());
        if !parts.creations.admit(manager.database_time()) {
            return Err(Error::anonymous_limit());
        }
        let create = manager.create_anonymous().expires_in(web.lifetime_of_visitors());
        let session = draft.put_into(create).await?;
        self.session_state = SessionState::Present(Box::new(session));
        self.tell(TokenAction::NewId);
        Ok(())
    }

    /// The lifetime that a change gives a session without a user, once half of it is over.
    pub(crate) fn renewal(&self, web: &SessionConfig) -> Option<Duration> {
        let session = self.present().filter(|session| session.user_id().is_none())?;
        let lifetime = web.lifetime_of_visitors();
        let left = session.expires_at().duration_since(web.manager().database_time()).unwrap_or_default();
        (left < lifetime / 2).then_some(lifetime)
    }

    /// Renews a session without a user after a change that could not do it itself. The change is committed, so a failure
    /// is no error of it; the next change tries again.
    pub(crate) async fn renew(&mut self, web: &SessionConfig) {
        let Some(lifetime) = self.renewal(web) else { return };
        if let SessionState::Present(session) = &mut self.session_state
            && let Err(error) = web.manager().save(session).expires_in(lifetime).await
        {
            tracing::debug!(?error, "an anonymous session was changed and not renewed");
        }
    }

    /// A new id says more than a newer version.
    pub(crate) fn tell(&mut self, news: TokenAction) {
        if !(news == TokenAction::Fresher && self.news == TokenAction::NewId) {
            self.news = news;
        }
    }
}

/// Never shows less than this client has seen on another node. No access: the end of the request decides on that.
async fn read(web: &SessionConfig, token: &Verified) -> Result<Option<pg_session::Session>, Error> {
    Ok(web.manager().get(token.id).min_version(token.version).or_latest().no_touch().await?)
}
