//! Rotation: a builder for the user and the kept attributes of the new id, then one statement.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::create::{check_cap, check_expiry};
use super::save::check_handle;
use super::{Node, SessionManager};
use crate::config::{HumanDuration, ROTATION_GRACE_MAX};
use crate::error::{Error, ErrorKind, UpdateError};
use crate::id::{GroupId, SessionId, UserId};
use crate::label::Labels;
use crate::postgres::failure::Failure;
use crate::session::keep::Keep;
use crate::session::record::SharedRecord;
use crate::session::request::{Expiry, Rotation, RowChange};
use crate::session::{IdleLimit, Session};

impl SessionManager {
    /// Lets a session go on under a new id; awaiting the builder does it. For each sign-in, re-authentication and change
    /// of privilege: an id that was planted or stolen before is worth nothing afterwards.
    ///
    /// On success the handle *is* the new session, with its unsaved changes saved. For the grace, the old id still
    /// answers [`get`](SessionManager::get), for requests in flight: with the user and the attributes from
    /// before, and [`is_retired`](Session::is_retired). That cannot be saved or rotated, and ends with the session:
    /// **deleting either id deletes both.** On error the handle is as it was.
    ///
    /// ```no_run
    /// # async fn f(sessions: &pg_session::SessionManager, mut session: pg_session::Session) -> Result<(), pg_session::UpdateError> {
    /// session.set("signed_in_with", "passkey")?;
    /// sessions.rotate(&mut session).user(42).keep(["cart", "locale"]).await?; // a login
    /// sessions.rotate(&mut session).await?; // the same user, a new id
    /// # Ok(()) }
    /// ```
    pub fn rotate<'a>(&'a self, session: &'a mut Session) -> Rotate<'a> {
        Rotate {
            node: &self.0,
            session,
            user_id: None,
            keep: None,
            row: RowChange::default(),
            grace: self.0.core.config.rotation_grace,
            cap: None,
            labels: None,
            error: None,
        }
    }

    /// Reads the session that a retired id goes on as, if `user` is signed in there. Asks the database, and does not count as
    /// an access. `Ok(None)` if the grace is over, the session has ended, or another user is signed in.
    ///
    /// For parallel logins: a double click sends two with one old id, and the second one finds it rotated. **Call it only
    /// for a user who has just proved who they are.** A client that presents the retired id gets the session.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] if the database does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn successor(
        &self,
        retired: SessionId,
        user: impl Into<UserId>,
    ) -> Result<Option<Session>, Error> {
        let user = user.into();
        self.0.check_open()?;
        let found = self.0.core.database.successor(retired).await.map_err(Failure::into_read_error)?;
        let Some(id) = found else { return Ok(None) };
        // It may have been rotated or given to another user in between.
        let session = self.get(id).bypass_cache().no_touch().await?;
        Ok(session.filter(|session| session.user_id() == Some(user) && !session.is_retired()))
    }
}

/// A rotation to be carried out by awaiting this; made by [`SessionManager::rotate`].
///
/// | | the user stays | the user changes |
/// |---|---|---|
/// | attributes | all are kept | none is kept |
/// | absolute limit, creation | as they were | [`Config::absolute_timeout`](crate::Config::absolute_timeout) from now, now |
/// | group, labels, idle limit | as they were | as they were |
/// | the cap on sessions | only a [`cap`](Self::cap) of its own counts | as for a new session of that user |
///
/// What is kept keeps its value and its expiry. Unsaved changes of the handle are applied on top. A
/// rotation counts as an access. Locks of the session go with it. The holder of one under the old
/// id learns with the next renewal that the lease is lost. No other caller gets it before it would
/// have ended.
///
/// # Errors
/// - [`UpdateError::NotFound`] if the session was deleted, revoked or has expired.
/// - [`UpdateError::Rotated`] if it has a new id already: of two rotations at once, one wins.
/// - [`UpdateError::Failed`] for the rest. [`ErrorKind::SessionLimit`]: the new user has all the sessions that the policy
///   allows. [`ErrorKind::OutcomeUnknown`]: **no client knows the new id.** The old one, if it was rotated, answers for
///   the grace, and deleting it ends both.
///
/// # Cancel safety
/// **Dropping the future does not undo a rotation that was submitted**, and no client knows the new id then.
#[derive(Debug)]
#[must_use = "nothing is rotated until this is awaited"]
pub struct Rotate<'a> {
    node: &'a Node,
    session: &'a mut Session,
    user_id: Option<UserId>,
    keep: Option<Keep>,
    row: RowChange,
    grace: Duration,
    cap: Option<u32>,
    labels: Option<Labels>,
    /// Of the first label that cannot be set.
    error: Option<Error>,
}

impl Rotate<'_> {
    /// The user of the new id: a sign-in, or a change of user. Default: the user of the old id, or none.
    pub fn user(mut self, user: impl Into<UserId>) -> Self {
        self.user_id = Some(user.into());
        self
    }

    /// Keeps these attributes and no others. Those that do not exist are ignored.
    pub fn keep<K: Into<Box<str>>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.keep = Some(Keep::Only(keys.into_iter().map(Into::into).collect()));
        self
    }

    /// Keeps all attributes, as is the default if the user stays the same.
    pub fn keep_all(mut self) -> Self {
        self.keep = Some(Keep::All);
        self
    }

    /// Keeps no attribute, as is the default if the user changes.
    pub fn keep_none(mut self) -> Self {
        self.keep = Some(Keep::Only(BTreeSet::new()));
        self
    }

    /// Moves the session to another group, or out of its group. Default: it stays.
    pub fn group(mut self, group: Option<GroupId>) -> Self {
        self.row.group_id = Some(group);
        self
    }

    /// Gives the session this label. **The first call removes the labels that the session has.** So the OpenID Connect
    /// `sid` of each login does not add up. As [`Create::label`](super::Create::label). Default: they stay.
    pub fn label(mut self, label: &str) -> Self {
        if self.error.is_none() {
            self.error = self.labels.get_or_insert_default().add(label).err();
        }
        self
    }

    /// Removes the labels that the session has. Default: they stay.
    pub fn without_labels(mut self) -> Self {
        self.labels = Some(Labels::default());
        self
    }

    /// The absolute limit, counted from the rotation by the database's clock. Default: as before, or for another user
    /// `Config::absolute_timeout`.
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.row.expiry = Some(Expiry::In(lifetime));
        self
    }

    /// The absolute limit, as an instant on the database's clock. Default: as for [`expires_in`](Self::expires_in).
    pub fn expires_at(mut self, expires_at: SystemTime) -> Self {
        self.row.expiry = Some(Expiry::At(expires_at.into()));
        self
    }

    /// Whether the session ends after `idle_timeout` without access. Default: as before.
    pub fn idle_limit(mut self, idle_limit: IdleLimit) -> Self {
        self.row.idle_limit = Some(idle_limit);
        self
    }

    /// How long the old id still answers, at most 60 s. Default [`Config::rotation_grace`](crate::Config::rotation_grace).
    /// Zero ends it at once, and with it what earlier rotations of the session left.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How many live sessions the user may have, this one included; as [`Create::cap`](super::Create::cap). Also for a
    /// session that stays its user's.
    pub fn cap(mut self, sessions_max: u32) -> Self {
        self.cap = Some(sessions_max);
        self
    }

    async fn submit(self) -> Result<(), UpdateError> {
        let Self { node, session, user_id, keep, mut row, grace, cap, labels, error } = self;
        if let Some(error) = error {
            return Err(error.into());
        }
        node.check_open()?;
        check_handle(session)?;
        if session.is_retired() {
            return Err(UpdateError::Rotated);
        }
        check_grace(grace)?;
        check_cap(cap)?;
        let new_user = user_id.filter(|_| user_id != session.user_id());
        let keep = keep.unwrap_or_else(|| if new_user.is_some() { Keep::none() } else { Keep::All });
        if new_user.is_some() && row.expiry.is_none() {
            row.expiry = Some(Expiry::In(node.core.config.absolute_timeout));
        }
        if let Some(expiry) = row.expiry {
            check_expiry(expiry)?;
        }
        session.check_keys(&keep)?;
        session.check_limits(&keep)?;
        let (base, changes) = (SharedRecord::clone(session.record()), session.changes().clone());
        let new_id = SessionId::random();
        let request = Rotation { base, new_id, new_user, row, grace, cap, labels, keep, changes };
        let record = node.writer.rotations.submit(request).await?;
        session.advance(record);
        Ok(())
    }
}

fn check_grace(grace: Duration) -> Result<(), Error> {
    if grace <= ROTATION_GRACE_MAX {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "`grace` of a rotation is {}; choose at most {}",
            HumanDuration(grace),
            HumanDuration(ROTATION_GRACE_MAX)
        ),
    ))
}

awaited!(Rotate, submit => Result<(), UpdateError>);
