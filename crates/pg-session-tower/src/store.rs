//! [`PgSessionStore`]: a store for applications that are built on tower-sessions. One attribute for each key of a record.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use pg_session::{ErrorKind, IdleLimit, SessionId, SessionManager, UpdateError, UserId};
use serde_json::Value;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, Result, SessionStore};

/// The sessions of tower-sessions in pg-session: read from the node's memory, ended on every node at once, and, with
/// [`user_of`](PgSessionStore::user_of), known by their users.
///
/// **tower-sessions puts the bare id into its cookie unless signing is enabled**, and ids travel in notifications, which every
/// role of the database can hear: use `SessionManagerLayer::with_signed`.
///
/// ```no_run
/// # fn f(sessions: pg_session::SessionManager) {
/// use pg_session::UserId;
/// use pg_session_tower::PgSessionStore;
///
/// // With axum-login, whose users have integers for ids:
/// let store = PgSessionStore::new(sessions)
///     .user_of(|data| data.get("axum-login.data")?.get("user_id")?.as_i64().map(UserId::from));
/// # }
/// ```
///
/// # What differs from other stores
///
/// - A save of a session that has ended is an error: nothing brings it back.
/// - The id comes from here; the one that tower-sessions proposes is not used.
/// - A save writes the keys that differ from what is stored. As everywhere in tower-sessions, the record of the last request
///   that saves wins; the layer of this crate writes only what a request has set.
/// - A record's limits are those of a session: see [`Config`](pg_session::Config).
#[derive(Clone)]
pub struct PgSessionStore {
    sessions: SessionManager,
    user_of: Arc<UserOf>,
}

type UserOf = dyn Fn(&HashMap<String, Value>) -> Option<UserId> + Send + Sync;

impl PgSessionStore {
    /// A store whose sessions belong to nobody, as far as the store knows.
    #[must_use]
    pub fn new(sessions: SessionManager) -> Self {
        Self { sessions, user_of: Arc::new(|_| None) }
    }

    /// How a record's user is found, so that `SessionManager::user` knows them, and the cap on a user's
    /// sessions holds.
    ///
    /// **A user must come with a new id**: call `Session::cycle_id` at login, as axum-login does. To save a user into a session
    /// that was another's, or nobody's, is an error, because an attacker who planted its id would be signed in.
    #[must_use]
    pub fn user_of(
        mut self,
        user_of: impl Fn(&HashMap<String, Value>) -> Option<UserId> + Send + Sync + 'static,
    ) -> Self {
        self.user_of = Arc::new(user_of);
        self
    }
}

#[async_trait]
impl SessionStore for PgSessionStore {
    async fn create(&self, record: &mut Record) -> Result<()> {
        let mut create = match (self.user_of)(&record.data) {
            Some(user) => self.sessions.create(user),
            None => self.sessions.create_anonymous(),
        };
        // The record says when it ends.
        create = create.expires_at(record.expiry_date.into()).idle_limit(IdleLimit::Exempt);
        for (key, value) in &record.data {
            create = create.set(key, value);
        }
        let session = create.await.map_err(failed)?;
        record.id = Id(i128::from_be_bytes(session.id().expose().into_bytes()));
        Ok(())
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let read = self.sessions.get(id_of(record.id)).await.map_err(failed)?;
        let mut session = read.ok_or_else(ended)?;
        let user = (self.user_of)(&record.data);
        if user.is_some() && user != session.user_id() {
            return Err(Error::Backend(
                "a user was put into a session that was not theirs; call `cycle_id` at login".to_owned(),
            ));
        }
        let gone: Vec<String> = session.keys().iter().map(ToString::to_string).collect();
        for key in gone.iter().filter(|key| !record.data.contains_key(*key)) {
            session.remove(key);
        }
        for (key, value) in &record.data {
            if session.get::<Value>(key).map_err(failed)?.as_ref() != Some(value) {
                session.set(key, value).map_err(failed)?;
            }
        }
        let update = self.sessions.save(&mut session).expires_at(record.expiry_date.into());
        update.await.map_err(|error| match error {
            UpdateError::Failed(error) => failed(error),
            _ => ended(),
        })
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let Some(session) = self.sessions.get(id_of(*id)).await.map_err(failed)? else { return Ok(None) };
        let mut data = HashMap::new();
        for key in session.keys() {
            if let Some(value) = session.get(key).map_err(failed)? {
                data.insert(key.to_owned(), value);
            }
        }
        Ok(Some(Record { id: *id, data, expiry_date: session.expires_at().into() }))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        self.sessions.delete(id_of(*id)).await.map_err(failed)?;
        Ok(())
    }
}

fn id_of(id: Id) -> SessionId {
    SessionId::from_uuid(uuid::Uuid::from_bytes(id.0.to_be_bytes()))
}

fn ended() -> Error {
    Error::Backend("the session has ended meanwhile; it was not saved".to_owned())
}

/// The core's messages have no secrets in them.
#[allow(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn failed(error: pg_session::Error) -> Error {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::Encode | ErrorKind::LimitExceeded | ErrorKind::InvalidArgument => Error::Encode(message),
        ErrorKind::Decode => Error::Decode(message),
        _ => Error::Backend(message),
    }
}

impl fmt::Debug for PgSessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgSessionStore").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}
