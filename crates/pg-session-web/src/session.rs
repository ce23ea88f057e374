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

use futures_util::Stream;
use pg_session::{Guarded, Pin, UserId, Verified};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, MutexGuard};

use crate::client::Client;
use crate::draft::{Draft, Lifetime};
use crate::error::Error;
use crate::flow_cookie::FlowCookie;
use crate::session_config::SessionConfig;
use crate::state::{SessionState, State, TokenAction};
use crate::transport::Presented;

/// What this library records begins with this, and an application cannot write it.
pub(crate) const RESERVED: &str = "pg-session/";

/// The session of one request. Cheap to clone; all clones are the same session.
///
/// It always exists. A visitor without one has an empty session. It costs no query, no row and no
/// cookie until something is set. Changes are saved when the handler has returned, before the
/// response's head leaves. After a server error or a timeout (408, 500 and above), nothing is
/// saved. [`save`](Session::save) does it earlier.
///
/// Reading is answered from the node's memory as far as
/// [`SessionManager::get`](pg_session::SessionManager::get) can. It never shows less than this
/// client has seen on another node.
///
/// **After the response's head has left**, as in a WebSocket or a stream of events, the session is
/// as it was then. Reading shows that state. Changes fail, also [`logout`](Session::logout).
/// [`guard`](Session::guard) and [`pin`](Session::pin) end it with the session. Keep the id of a
/// [`snapshot`](Session::snapshot), and ask the [manager](SessionConfig::manager) for what holds
/// now.
///
/// # Errors
/// Everything that reads fails if the database is needed and does not answer. It never shows an old
/// or an empty session then. Everything that writes fails with
/// [`ErrorKind::Closed`](crate::ErrorKind::Closed) once the response has left.
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
    flow_cookies: Vec<FlowCookie>,
    /// When it was, by the database's clock.
    began: SystemTime,
    https: bool,
    navigates: bool,
    target: Option<Box<str>>,
    wants_page: bool,
    read_only: bool,
    /// Held across awaits on purpose: the operations of one request take turns. No other request knows it.
    state: Mutex<State>,
}

/// What a session knows of its request.
pub(crate) struct Request {
    pub(crate) client: Client,
    pub(crate) flow_cookies: Vec<FlowCookie>,
    /// For a client that presents several sessions: the `Set-Cookie` values that remove cookies that are not ours.
    pub(crate) removals: Vec<String>,
    /// Whether it counts as an access.
    pub(crate) touch: bool,
    /// Whether it brings nothing, and a browser may have kept the session's cookie back, because another site caused it.
    pub(crate) withheld: bool,
    /// Whether it brings nothing, and is known to have come over HTTPS.
    pub(crate) https: bool,
    /// Whether a user may have asked for a page. A script of a page may ask beside a login.
    pub(crate) navigates: bool,
    /// The path and the query, if they may be kept for after a login.
    pub(crate) target: Option<Box<str>>,
    /// Whether a browser asks for a page, and can be sent to another one.
    pub(crate) wants_page: bool,
    /// Whether the method is `GET` or `HEAD`.
    pub(crate) read_only: bool,
}

impl Session {
    pub(crate) fn new(web: SessionConfig, presented: Presented, request: Request) -> Self {
        let flooded = matches!(&presented, Presented::Several(several) if !several.complete);
        let Request {
            client,
            flow_cookies,
            removals,
            touch,
            withheld,
            https,
            navigates,
            target,
            wants_page,
            read_only,
        } = request;
        let presented_something = !matches!(presented, Presented::Nothing);
        let token = match &presented {
            Presented::Token(token) => Some(*token),
            Presented::Nothing | Presented::Invalid | Presented::Several(_) => None,
        };
        let began = token.map_or(SystemTime::UNIX_EPOCH, |_| web.manager().database_time());
        let session_state = match presented {
            Presented::Token(token) => SessionState::Unread(token),
            Presented::Several(several) => SessionState::Ambiguous(several),
            Presented::Nothing | Presented::Invalid => SessionState::Absent(Draft::default()),
        };
        let state = State {
            session_state,
            news: TokenAction::Nothing,
            accessed: false,
            closed: false,
            rivals: Vec::new(),
            flooded,
            withheld,
            touch,
            missing: false,
            removals,
            unread: None,
            in_flow: false,
            flow_headers: Vec::new(),
        };
        Self(Arc::new(Shared {
            web,
            client,
            presented_something,
            presented: token,
            flow_cookies,
            began,
            https,
            navigates,
            target,
            wants_page,
            read_only,
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
    /// and as [`Session::set`](pg_session::Session::set) of the core; see also [above](#errors).
    pub async fn set<T: Serialize + ?Sized + Sync>(&self, key: &str, value: &T) -> Result<(), Error> {
        self.put(key, value, Lifetime::Session).await
    }

    /// Sets an attribute that disappears by itself after `lifetime`, counted from this call.
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

    /// Pins the session, so that a WebSocket, a stream of events or a job ends with it. `None` for a visitor without a session.
    ///
    /// Call it before the upgrade, and close with [`close_code`](pg_session::Closed::close_code)
    /// when [`closed`](pg_session::Pin::closed) returns. A login in the same session gives it a new
    /// id, and ends the pin with [`Cause::Rotated`](pg_session::Cause::Rotated). The client
    /// connects again, with its new cookie.
    ///
    /// # Errors
    /// See [above](#errors).
    pub async fn pin(&self) -> Result<Option<Pin>, Error> {
        let Some(session) = self.snapshot().await? else { return Ok(None) };
        Ok(Some(self.0.web.manager().pin(&session).await?))
    }

    /// Ends a stream of messages with the session: the last item is the error that says why. `None` for a visitor without a
    /// session. See [`pin`](Session::pin).
    ///
    /// # Errors
    /// See [above](#errors).
    pub async fn guard<S: Stream>(&self, stream: S) -> Result<Option<Guarded<S>>, Error> {
        Ok(self.pin().await?.map(|pin| pin.guard(stream)))
    }

    /// This request does not count as an access, for pages that poll. It may be called at any time
    /// before the response's head leaves, also behind a guard that has read the session. The end of
    /// the request counts the access. Saving a change counts in any case. For whole paths, set
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
        // Nearly always free; a future that waits costs more than the lock.
        match self.0.state.try_lock() {
            Ok(state) => state,
            Err(_) => self.0.state.lock().await,
        }
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

    pub(crate) fn flow_cookies(&self) -> &[FlowCookie] {
        &self.0.flow_cookies
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

    pub(crate) fn is_read_only(&self) -> bool {
        self.0.read_only
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
