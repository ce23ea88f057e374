//! [`Session`]: what a handler holds. Lazy: until it is read or written, nothing is asked, stored or sent.
//!
//! ```text
//! Unread (a token, verified) ── first access ──▶ Present (there is a row)  ◀── login, or the first save
//!                                     └────────▶ Absent  (a draft, perhaps) ◀── logout
//! ```
//!
//! Each verb that does more than look is in a file of its own: `atomic`, `login`, `devices`, `step_up`, `close`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pg_session::{SessionId, UserId, Verified};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, MutexGuard};

use crate::client::Client;
use crate::draft::{Draft, Lifetime};
use crate::error::Error;
use crate::refusal::Refusal;
use crate::session_config::{Check, SessionConfig};
use crate::transport::{Presented, Several};

/// What this library records begins with this, and an application cannot write it.
pub(crate) const RESERVED: &str = "pg-session/";

/// The session of one request. Cheap to clone; all clones are the same session.
///
/// It always exists: a visitor without one has an empty session, which costs no query, no row and no cookie until something is
/// set. What is set is saved when the handler has returned, before the response's head leaves, unless the response is a
/// server error or a timeout (408, 500 and above): then nothing of it is saved. [`save`](Session::save) does it earlier.
///
/// Reading is answered from the node's memory as far as [`SessionManager::get`](pg_session::SessionManager::get) can, and never
/// shows less than this client has seen on another node.
///
/// # Errors
/// Everything that reads fails if the database is needed and does not answer: never with an old session, and never with
/// an empty one. Everything that writes fails with [`ErrorKind::Closed`](crate::ErrorKind::Closed) once the response has left.
///
/// # Cancel safety
/// When the client hangs up, servers drop the handler wherever it waits. What it has set by then is not saved; a
/// [`login`](Session::login), [`logout`](Session::logout) or [`modify`](Session::modify) that it was waiting for goes through.
/// A save that has begun, because the handler has returned, is finished whatever the client does.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

struct Shared {
    web: SessionConfig,
    client: Client,
    /// Whether the client has something that it would have to forget.
    presented_something: bool,
    /// The one session that it presented.
    presented: Option<Verified>,
    /// When it was, by the database's clock.
    began: SystemTime,
    https: bool,
    navigates: bool,
    target: Option<Box<str>>,
    wants_page: bool,
    /// Held across awaits on purpose: the operations of one request take turns. No other request knows it.
    state: Mutex<State>,
}

/// What a session knows of its request.
pub(crate) struct Request {
    pub(crate) client: Client,
    /// For a client that presents several sessions: the `Set-Cookie` values that remove cookies that are not ours.
    pub(crate) removals: Vec<String>,
    /// Whether it counts as an access.
    pub(crate) touch: bool,
    /// Whether a browser may have kept the session's cookie back, because another site caused the request.
    pub(crate) withheld: bool,
    /// Whether it is known to have come over HTTPS.
    pub(crate) https: bool,
    /// Whether a user may have asked for a page. A script of a page may ask beside a login.
    pub(crate) navigates: bool,
    /// The path and the query, if they may be kept for after a login.
    pub(crate) target: Option<Box<str>>,
    /// Whether a browser asks for a page, and can be sent to another one.
    pub(crate) wants_page: bool,
}

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
    /// Whether reading counts as an access.
    touch: bool,
    /// Whether the session that was presented was looked for and not found.
    pub(crate) missing: bool,
    /// The `Set-Cookie` values that remove cookies of our name that are not ours.
    removals: Vec<String>,
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

impl Session {
    pub(crate) fn new(web: SessionConfig, presented: Presented, request: Request) -> Self {
        let flooded = matches!(&presented, Presented::Several(several) if !several.complete);
        let Request { client, removals, touch, withheld, https, navigates, target, wants_page } = request;
        let presented_something = !matches!(presented, Presented::Nothing);
        let token = match &presented {
            Presented::Token(token) => Some(*token),
            Presented::Nothing | Presented::TokenError | Presented::Several(_) => None,
        };
        let began = token.map_or(SystemTime::UNIX_EPOCH, |_| web.manager().database_time());
        let session_state = match presented {
            Presented::Token(token) => SessionState::Unread(token),
            Presented::Several(several) => SessionState::Ambiguous(several),
            Presented::Nothing | Presented::TokenError => SessionState::Absent(Draft::default()),
        };
        let state = State {
            session_state,
            news: TokenAction::Nothing,
            accessed: false,
            closed: false,
            rivals: Vec::new(),
            flooded,
            withheld: withheld && !presented_something,
            touch,
            missing: false,
            removals,
            unread: None,
        };
        Self(Arc::new(Shared {
            web,
            client,
            presented_something,
            presented: token,
            began,
            https,
            navigates,
            target,
            wants_page,
            state: Mutex::new(state),
        }))
    }

    /// The user who is signed in. `None` for a visitor.
    ///
    /// # Errors
    /// See [above](#errors).
    pub async fn user_id(&self) -> Result<Option<UserId>, Error> {
        Ok(self.open().await?.present().and_then(pg_session::Session::user_id))
    }

    /// Decodes an attribute. `None` if there is none, or it has expired.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](pg_session::ErrorKind::Decode) if the value is not a `T`; see also [above](#errors).
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.open().await?.get(key)
    }

    /// Decodes an attribute once per node and version, and shares the result with every reader; as
    /// [`get_shared`](pg_session::Session::get_shared) of the core.
    ///
    /// # Errors
    /// As [`get`](Session::get).
    pub async fn get_shared<T>(&self, key: &str) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        match &self.open().await?.session_state {
            SessionState::Present(session) => Ok(session.get_shared(key)?),
            SessionState::Absent(draft) => Ok(draft.get(key)?.map(Arc::new)),
            SessionState::Unread(_) | SessionState::Ambiguous(_) => Ok(None),
        }
    }

    /// Whether the attribute exists and has not expired.
    ///
    /// # Errors
    /// See [above](#errors).
    pub async fn contains(&self, key: &str) -> Result<bool, Error> {
        Ok(self.open().await?.contains(key))
    }

    /// Sets an attribute for as long as the session lives.
    ///
    /// # Errors
    /// [`ErrorKind::Reserved`](crate::ErrorKind::Reserved) for a key that begins with `pg-session/`,
    /// [`ErrorKind::LimitExceeded`](pg_session::ErrorKind::LimitExceeded) and [`ErrorKind::Encode`](pg_session::ErrorKind::Encode) as in the
    /// core; see also [above](#errors).
    pub async fn set<T: Serialize + ?Sized + Sync>(&self, key: &str, value: &T) -> Result<(), Error> {
        self.put(key, value, Lifetime::Session).await
    }

    /// Sets an attribute that disappears by itself after `absolute_timeout`.
    ///
    /// # Errors
    /// As [`set`](Session::set).
    pub async fn set_for<T: Serialize + ?Sized + Sync>(
        &self,
        key: &str,
        value: &T,
        lifetime: Duration,
    ) -> Result<(), Error> {
        self.put(key, value, Lifetime::For(lifetime)).await
    }

    /// Sets an attribute that disappears by itself at `end`, on the database's clock.
    ///
    /// # Errors
    /// As [`set`](Session::set).
    pub async fn set_until<T: Serialize + ?Sized + Sync>(
        &self,
        key: &str,
        value: &T,
        end: SystemTime,
    ) -> Result<(), Error> {
        self.put(key, value, Lifetime::Until(end)).await
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// [`ErrorKind::Reserved`](crate::ErrorKind::Reserved); see also [above](#errors).
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        check_key(key)?;
        let mut state = self.open_to_change().await?;
        match &mut state.session_state {
            // One that is not there needs no write, unless another request may be about to add it: then it is later.
            SessionState::Present(session) if session.contains(key) => session.remove(key),
            SessionState::Present(_) | SessionState::Unread(_) | SessionState::Ambiguous(_) => {}
            SessionState::Absent(draft) => draft.remove(key),
        }
        Ok(())
    }

    /// Saves what was set, now. Needed only to learn the outcome in the handler; otherwise it happens when the handler has
    /// returned.
    ///
    /// # Errors
    /// [`ErrorKind::Ended`](crate::ErrorKind::Ended), [`ErrorKind::Rotated`](crate::ErrorKind::Rotated) and
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict): nothing was saved, and what was set is forgotten. Other errors: the
    /// end of the request tries again.
    ///
    /// # Cancel safety
    /// **Dropping the future does not undo a save that was submitted.**
    pub async fn save(&self) -> Result<(), Error> {
        let mut state = self.open_to_change().await?;
        if state.is_modified() && matches!(state.session_state, SessionState::Absent(_)) {
            self.supersede();
        }
        state.save(&self.0.web).await
    }

    /// The core's view of the session, for locks, ids and times; without one, `None`. A copy: changes made to it are not
    /// saved with the request.
    ///
    /// # Errors
    /// See [above](#errors).
    pub async fn snapshot(&self) -> Result<Option<pg_session::Session>, Error> {
        Ok(self.open().await?.present().cloned())
    }

    /// This request does not count as an access, for pages that poll. To be called before anything else; once the session was
    /// read, it changes nothing. Saving a change counts in any case. For whole paths, set
    /// [`no_touch_paths`](SessionConfig::no_touch_paths).
    pub async fn no_touch(&self) {
        self.lock().await.touch = false;
    }

    /// The settings, the manager and the signer that the request is served with.
    #[must_use]
    pub fn sessions(&self) -> &SessionConfig {
        &self.0.web
    }

    async fn put<T: Serialize + ?Sized + Sync>(
        &self,
        key: &str,
        value: &T,
        lifetime: Lifetime,
    ) -> Result<(), Error> {
        check_key(key)?;
        self.open_to_change().await?.put(&self.0.web, key, value, lifetime)
    }

    /// The state, loaded.
    pub(crate) async fn open(&self) -> Result<MutexGuard<'_, State>, Error> {
        let mut state = self.lock().await;
        state.accessed = true;
        state.load(&self.0.web).await?;
        Ok(state)
    }

    /// The state, loaded, and while the response can still carry changes.
    pub(crate) async fn open_to_change(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.open().await?;
        if state.closed { Err(Error::closed()) } else { Ok(state) }
    }

    /// The state as it is.
    pub(crate) async fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().await
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    /// The one session whose token the request brought along.
    pub(crate) fn presented(&self) -> Option<&Verified> {
        self.0.presented.as_ref()
    }

    /// When the request began, by the database's clock, if it presented a session.
    pub(crate) fn began(&self) -> SystemTime {
        self.0.began
    }

    pub(crate) fn is_https(&self) -> bool {
        self.0.https
    }

    pub(crate) fn navigates(&self) -> bool {
        self.0.navigates
    }

    pub(crate) fn target(&self) -> Option<&str> {
        self.0.target.as_deref()
    }

    pub(crate) fn wants_page(&self) -> bool {
        self.0.wants_page
    }

    /// To be called before the client's session ends, or it is given another one.
    pub(crate) fn supersede(&self) {
        if let Some(token) = self.presented() {
            self.sessions().parts().superseded.add(token.id);
        }
    }

    pub(crate) fn presented_something(&self) -> bool {
        self.0.presented_something
    }
}

impl State {
    async fn load(&mut self, web: &SessionConfig) -> Result<(), Error> {
        let session = match &self.session_state {
            SessionState::Unread(token) => {
                let session = read(web, token, self.touch).await?;
                self.missing = session.is_none();
                session.map(|session| (*token, session))
            }
            SessionState::Ambiguous(several) => {
                let mut live = Vec::new();
                for token in &several.tokens {
                    if let Some(session) = read(web, token, self.touch).await? {
                        live.push((*token, session));
                    }
                }
                // The tokens of ended sessions say nothing, and neither do retired ids beside another session: theirs may be
                // the same one. Two live sessions are those of two users.
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

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        match &self.session_state {
            SessionState::Present(session) => Ok(session.get(key)?),
            SessionState::Absent(draft) => draft.get(key),
            SessionState::Unread(_) | SessionState::Ambiguous(_) => Ok(None),
        }
    }

    fn contains(&self, key: &str) -> bool {
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

/// Never shows less than this client has seen on another node.
async fn read(
    web: &SessionConfig,
    token: &Verified,
    touch: bool,
) -> Result<Option<pg_session::Session>, Error> {
    let get = web.manager().get(token.id).min_version(token.version).or_latest();
    Ok(if touch { get.await? } else { get.no_touch().await? })
}

/// Keys that an application may write.
pub(crate) fn check_key(key: &str) -> Result<(), Error> {
    if key.starts_with(RESERVED) { Err(Error::reserved()) } else { Ok(()) }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session_state = match self.0.state.try_lock().as_deref() {
            Ok(State { session_state: SessionState::Unread(_) | SessionState::Ambiguous(_), .. }) => "unread",
            Ok(State { session_state: SessionState::Absent(_), .. }) => "absent",
            Ok(State { session_state: SessionState::Present(_), .. }) => "present",
            Err(_) => "in use",
        };
        f.debug_struct("Session").field("session_state", &session_state).finish_non_exhaustive()
    }
}
