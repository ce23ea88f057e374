//! [`PgSessionStore`]: a store for applications that are built on actix-session. One attribute for each key of a state.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use actix_session::storage::{LoadError, SaveError, SessionKey, SessionStore, UpdateError};
use actix_web::cookie::time::Duration;
use anyhow::anyhow;
use pg_session::{ErrorKind, IdleLimit, Session, SessionManager, UserId, VersionedId};
use pg_session_web::Extension;
use serde::Serialize;
use serde_json::value::RawValue;

type State = HashMap<String, String>;
type UserOf = dyn Fn(&State) -> Option<UserId> + Send + Sync;

/// The sessions of actix-session in pg-session: read from the node's memory, ended on every node at once, and, with
/// [`user_of`](PgSessionStore::user_of), known by their users.
///
/// The key in the cookie, which actix-session signs or encrypts, holds the session's id and
/// version. So the next node that this client asks knows at least what the client has just done.
///
/// ```no_run
/// # fn f(sessions: pg_session::SessionManager, key: actix_web::cookie::Key) {
/// use actix_session::SessionMiddleware;
/// use pg_session::UserId;
/// use pg_session_actix::PgSessionStore;
///
/// // With actix-identity, whose users have texts for ids. The values of a state are JSON:
/// let store = PgSessionStore::new(sessions).user_of(|state| {
///     let user: String = serde_json::from_str(state.get("actix_identity.user_id")?).ok()?;
///     Some(UserId::named(&user))
/// });
/// let sessions = SessionMiddleware::new(store, key);
/// # }
/// ```
///
/// # What differs from other stores
///
/// - A save of a session that has ended is an error: nothing brings it back.
/// - An update writes the keys that differ from what is stored. As everywhere in actix-session, the state of the last request
///   that saves wins; the middleware of this crate writes only what a request has set.
/// - **The lifecycle of actix-session says when a session ends.** `Config::absolute_timeout` and `Config::idle_timeout` do not
///   apply.
/// - A request that only moves the end of a session, as each one does under `TtlExtensionPolicy::OnEveryRequest`, writes
///   once a minute; see [`extend_every`](Self::extend_every).
/// - A state's limits are those of a session: see [`Config`](pg_session::Config). `Session::insert` of actix-session asks no
///   store, so it accepts everything, and the middleware answers with status 500 when the state is saved. For an error in
///   the handler, call [`check`](Self::check) before the insert.
#[derive(Clone)]
pub struct PgSessionStore {
    sessions: SessionManager,
    user_of: Arc<UserOf>,
    extension: Extension,
}

impl PgSessionStore {
    /// A store of sessions without a user.
    #[must_use]
    pub fn new(sessions: SessionManager) -> Self {
        Self { sessions, user_of: Arc::new(|_| None), extension: Extension::default() }
    }

    /// Writes a later end of a session once it moves the stored one by `step`, if nothing is set. So a session may end this
    /// much early, but by a tenth of its remaining lifetime at most. Default one minute; zero: with each request.
    #[must_use]
    pub fn extend_every(mut self, step: std::time::Duration) -> Self {
        self.extension = Extension::every(step);
        self
    }

    /// Whether a session can have this attribute, by itself: its key and its size.
    ///
    /// # Errors
    /// [`ErrorKind::LimitExceeded`] or [`ErrorKind::Encode`]; the message names the limit.
    pub fn check<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), pg_session::Error> {
        self.sessions.create_anonymous().set(key, value).check().map(drop)
    }

    /// How a state's user is found, so that `SessionManager::user` knows them, and the cap on a user's
    /// sessions holds.
    ///
    /// **A user must come with a new id**: call `Session::renew` at login, as actix-identity does.
    /// Saving a user into a session of another user, or of none, is an error. An attacker who
    /// planted its id would be signed in.
    #[must_use]
    pub fn user_of(mut self, user_of: impl Fn(&State) -> Option<UserId> + Send + Sync + 'static) -> Self {
        self.user_of = Arc::new(user_of);
        self
    }

    fn must_extend(&self, session: &Session, lifetime: std::time::Duration) -> bool {
        let end = self.sessions.database_time().checked_add(lifetime);
        end.is_none_or(|end| self.extension.is_due(&self.sessions, session, end))
    }

    /// The session of a key. Any other text is no session, and costs no query.
    async fn read(&self, key: &SessionKey) -> Result<Option<Session>, pg_session::Error> {
        match key.as_ref().parse::<VersionedId>() {
            Ok(known) => self.sessions.get(known.id).min_version(known.version).or_latest().await,
            Err(_) => Ok(None),
        }
    }
}

impl SessionStore for PgSessionStore {
    async fn load(&self, key: &SessionKey) -> Result<Option<State>, LoadError> {
        let session = self.read(key).await.map_err(|error| LoadError::Other(error.into()))?;
        Ok(session.map(|session| state_of(&session)))
    }

    async fn save(&self, state: State, ttl: &Duration) -> Result<SessionKey, SaveError> {
        let mut create = match (self.user_of)(&state) {
            Some(user) => self.sessions.create(user),
            None => self.sessions.create_anonymous(),
        };
        // The lifecycle that the application has set says when it ends.
        let lifetime = lifetime(ttl).map_err(SaveError::Other)?;
        create = create.expires_in(lifetime).idle_limit(IdleLimit::Exempt);
        for (key, value) in state {
            let value = json(value).map_err(SaveError::Serialization)?;
            create = create.set(&key, &value);
        }
        let session = create.await.map_err(|error| match error.kind() {
            ErrorKind::Encode | ErrorKind::LimitExceeded | ErrorKind::InvalidArgument => {
                SaveError::Serialization(error.into())
            }
            _ => SaveError::Other(error.into()),
        })?;
        key_of(&session).map_err(SaveError::Other)
    }

    async fn update(&self, key: SessionKey, state: State, ttl: &Duration) -> Result<SessionKey, UpdateError> {
        let read = self.read(&key).await.map_err(|error| UpdateError::Other(error.into()))?;
        let mut session =
            read.ok_or_else(|| UpdateError::Other(anyhow!("the session has ended; it was not saved")))?;
        let user = (self.user_of)(&state);
        if user.is_some() && user != session.user_id() {
            return Err(UpdateError::Other(anyhow!(
                "a user was put into a session that was not theirs; call `renew` at login"
            )));
        }
        for gone in state_of(&session).into_keys().filter(|key| !state.contains_key(key)) {
            session.remove(&gone);
        }
        for (key, value) in state {
            if session.get_raw(&key) != Some(&value) {
                let value = json(value).map_err(UpdateError::Serialization)?;
                session.set(&key, &value).map_err(|error| UpdateError::Serialization(error.into()))?;
            }
        }
        let lifetime = lifetime(ttl).map_err(UpdateError::Other)?;
        if session.is_modified() || self.must_extend(&session, lifetime) {
            let update = self.sessions.save(&mut session).expires_in(lifetime);
            update.await.map_err(|error| UpdateError::Other(error.into()))?;
        }
        key_of(&session).map_err(UpdateError::Other)
    }

    async fn update_ttl(&self, key: &SessionKey, ttl: &Duration) -> Result<(), anyhow::Error> {
        // One that has ended stays gone: the next request finds that out.
        let Some(mut session) = self.read(key).await? else { return Ok(()) };
        let lifetime = lifetime(ttl)?;
        if !self.must_extend(&session, lifetime) {
            return Ok(());
        }
        match self.sessions.save(&mut session).expires_in(lifetime).await {
            Ok(()) | Err(pg_session::UpdateError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        if let Ok(known) = key.as_ref().parse::<VersionedId>() {
            self.sessions.delete(known.id).await?;
        }
        Ok(())
    }
}

fn state_of(session: &Session) -> State {
    let keys = session.keys().into_iter();
    keys.filter_map(|key| Some((key.to_owned(), session.get_raw(key)?.to_owned()))).collect()
}

fn key_of(session: &Session) -> Result<SessionKey, anyhow::Error> {
    Ok(VersionedId::new(session.id(), session.version()).encode().try_into()?)
}

/// actix-session keeps JSON texts. What the parser says is left out: it may repeat the value.
fn json(text: String) -> Result<Box<RawValue>, anyhow::Error> {
    RawValue::from_string(text).map_err(|_| anyhow!("a value of the state is not JSON"))
}

fn lifetime(ttl: &Duration) -> Result<std::time::Duration, anyhow::Error> {
    (*ttl).try_into().map_err(|_| anyhow!("the lifetime of a session must not be negative"))
}

impl fmt::Debug for PgSessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgSessionStore").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}
