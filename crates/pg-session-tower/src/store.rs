//! [`PgSessionStore`]: a store for applications that are built on tower-sessions. One attribute for each key of a record.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pg_session::{Create, ErrorKind, IdleLimit, SessionId, SessionManager, UpdateError, UserId};
use pg_session_web::Extension;
use serde::Serialize;
use serde_json::Value;

/// The sessions of tower-sessions in pg-session: read from the node's memory, ended on every node at once, and, with
/// [`user_of`](PgSessionStore::user_of), known by their users.
///
/// **tower-sessions puts the bare id into its cookie unless signing is enabled.** Ids are also in
/// notifications, which every role of the database can receive. Use
/// `SessionManagerLayer::with_signed`.
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
/// - **The record says when a session ends**: `Expiry` of tower-sessions. `Config::absolute_timeout` and
///   `Config::idle_timeout` do not apply. It ends by the database's clock, however wrong the machine's is.
/// - A save that only moves the end of a session, as each request does under `with_always_save(true)`, writes once a minute;
///   see [`extend_every`](Self::extend_every).
/// - A record's limits are those of a session: see [`Config`](pg_session::Config). `Session::insert` of tower-sessions asks
///   no store, so it accepts everything, and the layer answers with status 500 when the record is saved. For an error in
///   the handler, call `save` of the session after the insert, or [`check`](Self::check) before it.
/// - The manager creates the tables, and deletes what has expired. So [`migrate`](Self::migrate) and the trait
///   `ExpiredDeletion` are there for applications that call them, and need not be called.
#[derive(Clone)]
pub struct PgSessionStore {
    sessions: SessionManager,
    user_of: Arc<UserOf>,
    extension: Extension,
}

/// The data of a record.
pub(crate) type Data = HashMap<String, Value>;

type UserOf = dyn Fn(&Data) -> Option<UserId> + Send + Sync;

impl PgSessionStore {
    /// A store of sessions without a user.
    #[must_use]
    pub fn new(sessions: SessionManager) -> Self {
        Self { sessions, user_of: Arc::new(|_| None), extension: Extension::default() }
    }

    /// Writes a later end of a session once it moves the stored one by `step`, if nothing is set. So a session may end this
    /// much early, but by a tenth of its remaining lifetime at most. Default one minute; zero: with each save.
    #[must_use]
    pub fn extend_every(mut self, step: Duration) -> Self {
        self.extension = Extension::every(step);
        self
    }

    /// Returns at once: [`SessionManager::connect`] has created or checked the tables, as `Config::migrations` says. For
    /// applications whose former store has this method.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "as in other stores")]
    pub async fn migrate(&self) -> Result<(), pg_session::Error> {
        Ok(())
    }

    /// Whether a session can have this attribute, by itself: its key and its size.
    ///
    /// # Errors
    /// [`ErrorKind::LimitExceeded`] or [`ErrorKind::Encode`]; the message names the limit.
    pub fn check<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), pg_session::Error> {
        self.sessions.create_anonymous().set(key, value).check().map(drop)
    }

    /// How a record's user is found, so that `SessionManager::user` knows them, and the cap on a user's
    /// sessions holds.
    ///
    /// **A user must come with a new id**: call `Session::cycle_id` at login, as axum-login does
    /// unless a user is signed in already. Saving a user into a session of another user, or of
    /// none, is an error. An attacker who planted its id would be signed in.
    #[must_use]
    pub fn user_of(
        mut self,
        user_of: impl Fn(&HashMap<String, Value>) -> Option<UserId> + Send + Sync + 'static,
    ) -> Self {
        self.user_of = Arc::new(user_of);
        self
    }
}

/// What all versions of tower-sessions need. tower-sessions takes the ends of its records from the
/// machine's clock. The database's clock decides when they are over. Their traits are equal, and
/// their types are not the same.
impl PgSessionStore {
    pub(crate) async fn insert(&self, data: &Data, end: SystemTime) -> Result<i128, Failure> {
        let session = self.record(data, end).await?;
        Ok(i128::from_be_bytes(session.id().expose().into_bytes()))
    }

    /// A session with the data of a record, which says when it ends.
    pub(crate) fn record(&self, data: &Data, end: SystemTime) -> Create<'_> {
        let mut create = match (self.user_of)(data) {
            Some(user) => self.sessions.create(user),
            None => self.sessions.create_anonymous(),
        };
        // The record says when it ends.
        create = create.expires_at(self.sessions.to_database_time(end)).idle_limit(IdleLimit::Exempt);
        for (key, value) in data {
            create = create.set(key, value);
        }
        create
    }

    /// Refuses to put a user into a session of another user, or of none.
    pub(crate) fn check_user(&self, data: &Data, former: Option<UserId>) -> Result<(), Failure> {
        match (self.user_of)(data) {
            Some(user) if Some(user) != former => Err(Failure::Backend(
                "a user was put into a session that was not theirs; call `cycle_id` at login".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn user(&self, data: &Data) -> Option<UserId> {
        (self.user_of)(data)
    }

    pub(crate) async fn replace(&self, id: SessionId, data: &Data, end: SystemTime) -> Result<(), Failure> {
        let mut session = self.sessions.get(id).await?.ok_or_else(ended)?;
        self.check_user(data, session.user_id())?;
        let gone: Vec<String> = session.keys().iter().map(ToString::to_string).collect();
        for key in gone.iter().filter(|key| !data.contains_key(*key)) {
            session.remove(key);
        }
        for (key, value) in data {
            if session.get::<Value>(key)?.as_ref() != Some(value) {
                session.set(key, value)?;
            }
        }
        let end = self.sessions.to_database_time(end);
        if !session.is_modified() && !self.extension.is_due(&self.sessions, &session, end) {
            return Ok(());
        }
        let update = self.sessions.save(&mut session).expires_at(end);
        update.await.map_err(|error| match error {
            UpdateError::Failed(error) => error.into(),
            _ => ended(),
        })
    }

    pub(crate) async fn find(&self, id: SessionId) -> Result<Option<(Data, SystemTime)>, Failure> {
        let Some(session) = self.sessions.get(id).await? else { return Ok(None) };
        let mut data = HashMap::new();
        for key in session.keys() {
            if let Some(value) = session.get(key)? {
                data.insert(key.to_owned(), value);
            }
        }
        Ok(Some((data, self.sessions.to_node_time(session.expires_at()))))
    }

    pub(crate) async fn end(&self, id: SessionId) -> Result<(), Failure> {
        self.sessions.delete(id).await?;
        Ok(())
    }

    pub(crate) async fn delete_expired(&self) -> Result<(), Failure> {
        self.sessions.cleanup().await?;
        Ok(())
    }
}

/// The trait of one version of tower-sessions.
macro_rules! implement {
    ($version:ident, $feature:literal) => {
        #[cfg(feature = $feature)]
        mod $version {
            use ::$version::session::{Id, Record};
            use ::$version::session_store::{Error, ExpiredDeletion, Result, SessionStore};
            use async_trait::async_trait;

            use super::{Failure, PgSessionStore, id_of};

            #[async_trait]
            impl SessionStore for PgSessionStore {
                async fn create(&self, record: &mut Record) -> Result<()> {
                    record.id = Id(self.insert(&record.data, record.expiry_date.into()).await?);
                    Ok(())
                }

                async fn save(&self, record: &Record) -> Result<()> {
                    Ok(self.replace(id_of(record.id.0), &record.data, record.expiry_date.into()).await?)
                }

                async fn load(&self, id: &Id) -> Result<Option<Record>> {
                    let found = self.find(id_of(id.0)).await?;
                    Ok(found.map(|(data, end)| Record { id: *id, data, expiry_date: end.into() }))
                }

                async fn delete(&self, id: &Id) -> Result<()> {
                    Ok(self.end(id_of(id.0)).await?)
                }
            }

            #[async_trait]
            impl ExpiredDeletion for PgSessionStore {
                async fn delete_expired(&self) -> Result<()> {
                    Ok(self.delete_expired().await?)
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
#[derive(Debug)]
pub(crate) enum Failure {
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

pub(crate) fn id_of(id: i128) -> SessionId {
    SessionId::from_uuid(uuid::Uuid::from_bytes(id.to_be_bytes()))
}

pub(crate) fn ended() -> Failure {
    Failure::Backend("the session has ended meanwhile; it was not saved".to_owned())
}

impl fmt::Debug for PgSessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgSessionStore").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}
