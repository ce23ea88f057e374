//! [`PgSessionStore`]: a store for applications that are built on tower-sessions. One attribute for each key of a record.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use pg_session::{ErrorKind, IdleLimit, SessionId, SessionManager, UpdateError, UserId};
use serde_json::Value;

/// The sessions of tower-sessions in pg-session: read from the node's memory, ended on every node at once, and, with
/// [`user_of`](PgSessionStore::user_of), known by their users.
///
/// **tower-sessions puts the bare id into its cookie unless signing is enabled**, and ids travel in notifications, which every
/// role of the database can receive: use `SessionManagerLayer::with_signed`.
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
/// It implements the trait of tower-sessions 0.14 with the feature `tower-sessions`, and that of 0.15 with
/// `tower-sessions-0-15`.
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
    /// A store of sessions without a user.
    #[must_use]
    pub fn new(sessions: SessionManager) -> Self {
        Self { sessions, user_of: Arc::new(|_| None) }
    }

    /// How a record's user is found, so that `SessionManager::user` knows them, and the cap on a user's
    /// sessions holds.
    ///
    /// **A user must come with a new id**: call `Session::cycle_id` at login, as axum-login does. To save a user into a session
    /// of another user, or of none, is an error, because an attacker who planted its id would be signed in.
    #[must_use]
    pub fn user_of(
        mut self,
        user_of: impl Fn(&HashMap<String, Value>) -> Option<UserId> + Send + Sync + 'static,
    ) -> Self {
        self.user_of = Arc::new(user_of);
        self
    }
}

/// What all versions of tower-sessions need. Their traits are equal, and their types are not the same.
impl PgSessionStore {
    async fn insert(&self, data: &HashMap<String, Value>, end: SystemTime) -> Result<i128, Failure> {
        let mut create = match (self.user_of)(data) {
            Some(user) => self.sessions.create(user),
            None => self.sessions.create_anonymous(),
        };
        // The record says when it ends.
        create = create.expires_at(end).idle_limit(IdleLimit::Exempt);
        for (key, value) in data {
            create = create.set(key, value);
        }
        let session = create.await?;
        Ok(i128::from_be_bytes(session.id().expose().into_bytes()))
    }

    async fn replace(&self, id: i128, data: &HashMap<String, Value>, end: SystemTime) -> Result<(), Failure> {
        let mut session = self.sessions.get(id_of(id)).await?.ok_or_else(ended)?;
        let user = (self.user_of)(data);
        if user.is_some() && user != session.user_id() {
            return Err(Failure::Backend(
                "a user was put into a session that was not theirs; call `cycle_id` at login".to_owned(),
            ));
        }
        let gone: Vec<String> = session.keys().iter().map(ToString::to_string).collect();
        for key in gone.iter().filter(|key| !data.contains_key(*key)) {
            session.remove(key);
        }
        for (key, value) in data {
            if session.get::<Value>(key)?.as_ref() != Some(value) {
                session.set(key, value)?;
            }
        }
        let update = self.sessions.save(&mut session).expires_at(end);
        update.await.map_err(|error| match error {
            UpdateError::Failed(error) => error.into(),
            _ => ended(),
        })
    }

    async fn find(&self, id: i128) -> Result<Option<(HashMap<String, Value>, SystemTime)>, Failure> {
        let Some(session) = self.sessions.get(id_of(id)).await? else { return Ok(None) };
        let mut data = HashMap::new();
        for key in session.keys() {
            if let Some(value) = session.get(key)? {
                data.insert(key.to_owned(), value);
            }
        }
        Ok(Some((data, session.expires_at())))
    }

    async fn end(&self, id: i128) -> Result<(), Failure> {
        self.sessions.delete(id_of(id)).await?;
        Ok(())
    }
}

/// The trait of one version of tower-sessions.
macro_rules! implement {
    ($version:ident, $feature:literal) => {
        #[cfg(feature = $feature)]
        mod $version {
            use ::$version::session::{Id, Record};
            use ::$version::session_store::{Error, Result, SessionStore};
            use async_trait::async_trait;

            use super::{Failure, PgSessionStore};

            #[async_trait]
            impl SessionStore for PgSessionStore {
                async fn create(&self, record: &mut Record) -> Result<()> {
                    record.id = Id(self.insert(&record.data, record.expiry_date.into()).await?);
                    Ok(())
                }

                async fn save(&self, record: &Record) -> Result<()> {
                    Ok(self.replace(record.id.0, &record.data, record.expiry_date.into()).await?)
                }

                async fn load(&self, id: &Id) -> Result<Option<Record>> {
                    let found = self.find(id.0).await?;
                    Ok(found.map(|(data, end)| Record { id: *id, data, expiry_date: end.into() }))
                }

                async fn delete(&self, id: &Id) -> Result<()> {
                    Ok(self.end(id.0).await?)
                }
            }

            impl From<Failure> for Error {
                fn from(failure: Failure) -> Self {
                    match failure {
                        Failure::Encode(message) => Self::Encode(message),
                        Failure::Decode(message) => Self::Decode(message),
                        Failure::Backend(message) => Self::Backend(message),
                    }
                }
            }
        }
    };
}

implement!(tower_sessions_core, "tower-sessions");
implement!(tower_sessions_core_0_15, "tower-sessions-0-15");

/// The kinds of error that tower-sessions has. The core's messages have no secrets in them.
enum Failure {
    Encode(String),
    Decode(String),
    Backend(String),
}

impl From<pg_session::Error> for Failure {
    fn from(error: pg_session::Error) -> Self {
        let message = error.to_string();
        match error.kind() {
            ErrorKind::Encode | ErrorKind::LimitExceeded | ErrorKind::InvalidArgument => {
                Self::Encode(message)
            }
            ErrorKind::Decode => Self::Decode(message),
            _ => Self::Backend(message),
        }
    }
}

fn id_of(id: i128) -> SessionId {
    SessionId::from_uuid(uuid::Uuid::from_bytes(id.to_be_bytes()))
}

fn ended() -> Failure {
    Failure::Backend("the session has ended meanwhile; it was not saved".to_owned())
}

impl fmt::Debug for PgSessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgSessionStore").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}
