//! [`MovingStore`]: moves the sessions of tower-sessions from another store while both run, and logs no user out.
//!
//! ```text
//! load     ours, by its id ── else the old store ── else ours, moved
//! save     where it is; from the old store it is moved: insert here, look again, delete there
//! delete   the old store, then here
//! ```
//!
//! A moved session keeps its cookie, so its id here follows from its old id. **A node asks for the
//! new id only if the old store does not have the session.** Ids that were looked up and not found
//! must not begin to exist.

use std::fmt::Debug;

use pg_session::SessionId;

use crate::store::{PgSessionStore, id_of};

/// Sessions of tower-sessions in two stores, to move them from the old one to pg-session while users are signed in.
///
/// New sessions are created in pg-session. A session of the old store is read from there, and moves with the first request
/// that saves it, under its cookie. What is left in the old store ends there by itself. With `with_always_save(true)`, each
/// request moves its session.
///
/// **Roll it out twice**: first with [`keep_in_old`](Self::keep_in_old), then without. Nodes that know only the old store would
/// not find a session that was moved, and neither would its user's next request.
///
/// `SessionManager::user` knows the sessions that were moved. To log a user out everywhere, end those in the old store, too.
/// A session that moves ends no other one, whatever the cap is.
///
/// ```
/// use pg_session_tower::{MovingStore, PgSessionStore};
/// # use tower_sessions::MemoryStore as RedisStore;
///
/// # fn f(redis: RedisStore, sessions: pg_session::SessionManager) {
/// let store = MovingStore::new(redis, PgSessionStore::new(sessions));
/// let layer = tower_sessions::SessionManagerLayer::new(store);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MovingStore<Old> {
    old: Old,
    new: PgSessionStore,
    moves: bool,
}

impl<Old> MovingStore<Old> {
    /// Reads sessions from both, and writes to `new`.
    #[must_use]
    pub fn new(old: Old, new: PgSessionStore) -> Self {
        Self { old, new, moves: true }
    }

    /// Creates sessions in the old store, and saves them where they are. For the first of two rollouts: these nodes find all
    /// sessions, those that other nodes have moved included.
    #[must_use]
    pub fn keep_in_old(mut self) -> Self {
        self.moves = false;
        self
    }
}

/// The id of one of our own sessions. `None`: ids from here are random UUIDs, and this is none.
fn own(id: i128) -> Option<SessionId> {
    let id = id_of(id);
    (id.expose().get_version_num() == 4).then_some(id)
}

/// The id of a session that was moved: the old one as a UUID of version 8, which no session gets otherwise.
fn moved(id: i128) -> SessionId {
    SessionId::from_uuid(uuid::Builder::from_custom_bytes(id.to_be_bytes()).into_uuid())
}

/// The trait of one version of tower-sessions.
macro_rules! implement {
    ($version:ident, $feature:literal) => {
        #[cfg(feature = $feature)]
        mod $version {
            use ::$version::session::{Id, Record};
            use ::$version::session_store::{ExpiredDeletion, Result, SessionStore};
            use async_trait::async_trait;
            use pg_session::{ErrorKind, SessionId};

            use super::{MovingStore, moved, own};
            use crate::store::{Failure, PgSessionStore, ended};

            async fn find(new: &PgSessionStore, own: SessionId, id: Id) -> Result<Option<Record>> {
                let found = new.find(own).await?;
                Ok(found.map(|(data, end)| Record { id, data, expiry_date: end.into() }))
            }

            /// ```text
            /// save     reads there ┊           ┊ inserts here ┊ looks again: gone, so deletes here
            /// logout               ┊ deletes   ┊              ┊
            /// ```
            async fn move_here(
                old: &impl SessionStore,
                new: &PgSessionStore,
                former: Record,
                record: &Record,
            ) -> Result<()> {
                let (id, end) = (moved(record.id.0), record.expiry_date.into());
                new.check_user(&record.data, new.user(&former.data))?;
                let inserted = new.record(&record.data, end).with_id(id).cap(u32::MAX).await;
                match inserted {
                    Ok(_) => {}
                    // The id exists: a parallel request has moved it, or one that was cut off before the deletion there.
                    Err(error) if error.kind() == ErrorKind::Database => {
                        new.replace(id, &record.data, end).await?;
                        return old.delete(&record.id).await;
                    }
                    Err(error) => return Err(Failure::from(error).into()),
                }
                let left = match old.load(&record.id).await {
                    Ok(Some(_)) => old.delete(&record.id).await,
                    Ok(None) => Err(ended().into()),
                    Err(error) => Err(error),
                };
                if left.is_err() {
                    // In one store only, or a logout here would leave it there.
                    new.end(id).await?;
                }
                left
            }

            #[async_trait]
            impl<Old: SessionStore> SessionStore for MovingStore<Old> {
                async fn create(&self, record: &mut Record) -> Result<()> {
                    if self.moves { self.new.create(record).await } else { self.old.create(record).await }
                }

                async fn save(&self, record: &Record) -> Result<()> {
                    let (id, end) = (record.id.0, record.expiry_date.into());
                    if let Some(own) = own(id)
                        && self.new.find(own).await?.is_some()
                    {
                        return Ok(self.new.replace(own, &record.data, end).await?);
                    }
                    match self.old.load(&record.id).await? {
                        Some(former) if self.moves => move_here(&self.old, &self.new, former, record).await,
                        Some(_) => self.old.save(record).await,
                        None => Ok(self.new.replace(moved(id), &record.data, end).await?),
                    }
                }

                async fn load(&self, id: &Id) -> Result<Option<Record>> {
                    if let Some(own) = own(id.0)
                        && let Some(found) = find(&self.new, own, *id).await?
                    {
                        return Ok(Some(found));
                    }
                    match self.old.load(id).await? {
                        Some(found) => Ok(Some(found)),
                        None => find(&self.new, moved(id.0), *id).await,
                    }
                }

                async fn delete(&self, id: &Id) -> Result<()> {
                    self.old.delete(id).await?;
                    if let Some(own) = own(id.0) {
                        self.new.end(own).await?;
                    }
                    Ok(self.new.end(moved(id.0)).await?)
                }
            }

            #[async_trait]
            impl<Old: ExpiredDeletion> ExpiredDeletion for MovingStore<Old> {
                async fn delete_expired(&self) -> Result<()> {
                    self.old.delete_expired().await?;
                    Ok(self.new.delete_expired().await?)
                }
            }
        }
    };
}

implement!(tower_sessions_core, "tower-sessions");
implement!(tower_sessions_core_0_15, "tower-sessions-0-15");
