//! Creating a session: a builder that collects its first attributes, then one combined statement.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Node, SessionManager};
use crate::config::LIFETIME_MAX;
use crate::error::{Error, ErrorKind};
use crate::id::{GroupId, SessionId, UserId};
use crate::label::Labels;
use crate::session::attributes::Attributes;
use crate::session::changes::Changes;
use crate::session::expiry::Lifetime;
use crate::session::request::{Expiry, NewSession};
use crate::session::{IdleLimit, Session, check, put};

impl SessionManager {
    /// Begins a new session for a user; awaiting the builder creates it.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn f(sessions: &pg_session::SessionManager) -> Result<(), pg_session::Error> {
    /// let session = sessions
    ///     .create(pg_session::UserId::from(42))
    ///     .set("role", "admin")
    ///     .set_for("elevated", &true, Duration::from_secs(900))
    ///     .expires_in(Duration::from_secs(48 * 3600))
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn create(&self, user: impl Into<UserId>) -> Create<'_> {
        self.begin(Some(user.into()))
    }

    /// Begins a new anonymous session, for what a visitor wants kept before a sign-in; awaiting the
    /// builder creates it. [`rotate`](SessionManager::rotate) with a user signs in.
    ///
    /// **Only their expiry limits how many there are.** Create one when there is something to keep,
    /// not for each visitor.
    pub fn create_anonymous(&self) -> Create<'_> {
        self.begin(None)
    }

    fn begin(&self, user_id: Option<UserId>) -> Create<'_> {
        Create {
            node: &self.0,
            id: None,
            user_id,
            group_id: None,
            expiry: Expiry::In(self.0.core.config.absolute_timeout),
            idle_limit: IdleLimit::Enforced,
            cap: None,
            labels: Labels::default(),
            attributes: Changes::default(),
            error: None,
        }
    }
}

/// A session to be created by awaiting this; made by [`SessionManager::create`] and
/// [`create_anonymous`](SessionManager::create_anonymous).
///
/// # Errors
/// - What [`Session::set`] returns for the first attribute that cannot be set.
/// - [`ErrorKind::InvalidArgument`] or [`ErrorKind::LimitExceeded`] for labels.
/// - [`ErrorKind::SessionLimit`] if the user has all the sessions that the policy allows.
/// - [`ErrorKind::Unavailable`] if the database cannot be reached: nothing was created.
/// - [`ErrorKind::OutcomeUnknown`] if its answer never came.
///
/// # Cancel safety
/// **Dropping the future does not undo a create that was submitted.**
#[derive(Debug)]
#[must_use = "nothing is created until this is awaited"]
pub struct Create<'a> {
    node: &'a Node,
    id: Option<SessionId>,
    user_id: Option<UserId>,
    group_id: Option<GroupId>,
    expiry: Expiry,
    idle_limit: IdleLimit,
    cap: Option<u32>,
    labels: Labels,
    attributes: Changes,
    /// Of the first attribute or label that cannot be set. Awaiting the builder returns it.
    error: Option<Error>,
}

impl Create<'_> {
    /// Sets an attribute for as long as the session lives.
    pub fn set<T: Serialize + ?Sized>(self, key: &str, value: &T) -> Self {
        self.put(key, value, Lifetime::Session)
    }

    /// Sets an attribute that disappears by itself at `expires_at` on the database's clock.
    pub fn set_until<T: Serialize + ?Sized>(self, key: &str, value: &T, expires_at: SystemTime) -> Self {
        self.put(key, value, Lifetime::Until(expires_at.into()))
    }

    /// Sets an attribute that disappears by itself after `lifetime`, counted from this call.
    pub fn set_for<T: Serialize + ?Sized>(self, key: &str, value: &T, lifetime: Duration) -> Self {
        self.put(key, value, Lifetime::For(lifetime))
    }

    /// Puts the session into a group. Default: none.
    pub fn group(mut self, group: impl Into<GroupId>) -> Self {
        self.group_id = Some(group.into());
        self
    }

    /// Gives the session a label, for example the `sid` of an OpenID Connect session, a tenant or a deployment:
    /// [`SessionManager::label`] lists and ends the sessions that have it. At most
    /// [`LABELS_MAX`](SessionManager::LABELS_MAX) labels of at most [`LABEL_BYTES_MAX`](SessionManager::LABEL_BYTES_MAX)
    /// bytes each. Default: none.
    pub fn label(mut self, label: &str) -> Self {
        if self.error.is_none() {
            self.error = self.labels.add(label).err();
        }
        self
    }

    /// The absolute limit, counted from the creation by the database's clock. Default `Config::absolute_timeout`.
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expiry = Expiry::In(lifetime);
        self
    }

    /// The absolute limit, as an instant on the database's clock. Default `Config::absolute_timeout` from now.
    pub fn expires_at(mut self, expires_at: SystemTime) -> Self {
        self.expiry = Expiry::At(expires_at.into());
        self
    }

    /// Whether the session also ends after `idle_timeout` without access. Default: it does.
    pub fn idle_limit(mut self, idle_limit: IdleLimit) -> Self {
        self.idle_limit = idle_limit;
        self
    }

    /// Creates the session under this id, **to move it from another store** where it has this id. Default: a random one.
    ///
    /// The id must be random, and never have been that of another session here. An attacker could
    /// know an id that a client has chosen. If a session has it already, awaiting the builder fails
    /// with [`ErrorKind::Database`].
    pub fn with_id(mut self, id: SessionId) -> Self {
        self.id = Some(id);
        self
    }

    /// How many live sessions the user may have, this one included: instead of `Config::sessions_per_user_max`, more or
    /// fewer. At least 1. `Config::on_session_limit` decides what becomes of those over it. Of an anonymous session, it
    /// decides nothing.
    ///
    /// ```no_run
    /// # async fn f(sessions: &pg_session::SessionManager) -> Result<(), pg_session::Error> {
    /// sessions.create(42).cap(1).await?; // ends all other sessions of this user
    /// # Ok(()) }
    /// ```
    pub fn cap(mut self, sessions_max: u32) -> Self {
        self.cap = Some(sessions_max);
        self
    }

    /// Returns the error of the first attribute or label that cannot be set now, instead of when this is awaited.
    ///
    /// # Errors
    /// As [`Session::set`], or the one of the label.
    pub fn check(mut self) -> Result<Self, Error> {
        self.error.take().map_or(Ok(self), Err)
    }

    fn put<T: Serialize + ?Sized>(mut self, key: &str, value: &T, lifetime: Lifetime) -> Self {
        if self.error.is_none() {
            let policy = &self.node.core.policy;
            self.error = put(&mut self.attributes, policy, key, value, lifetime).err();
        }
        self
    }

    async fn submit(self) -> Result<Session, Error> {
        let Self {
            node, id, user_id, group_id, expiry, idle_limit, cap, labels, attributes: changes, ..
        } = self.check()?;
        node.check_open()?;
        check_expiry(expiry)?;
        check_cap(cap)?;
        check(&node.core.policy, &Attributes::default(), std::iter::empty(), &changes)?;
        let is_id_known = id.is_some();
        let id = id.unwrap_or_else(SessionId::random);
        let request =
            NewSession { id, is_id_known, user_id, group_id, expiry, idle_limit, cap, labels, changes };
        let record = node.writer.creates.submit(request).await?;
        Ok(Session::from_database(record))
    }
}

/// Keeps every sum of times, here and in the database, inside what they can hold.
pub(super) fn check_expiry(expiry: Expiry) -> Result<(), Error> {
    let fine = match expiry {
        Expiry::In(lifetime) => lifetime <= LIFETIME_MAX,
        // The years 1970 to 2200, as the column's type has it.
        Expiry::At(time) => time.nanos() > 0 && time.nanos() < 7_258_118_400_000_000_000,
    };
    if fine {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        "`expires_in` must be at most 10 years, and `expires_at` before the year 2200",
    ))
}

pub(super) fn check_cap(cap: Option<u32>) -> Result<(), Error> {
    match cap {
        Some(0) => Err(Error::new(
            ErrorKind::InvalidArgument,
            "`cap` of a login must be at least 1; leave it out for Config::sessions_per_user_max",
        )),
        _ => Ok(()),
    }
}

awaited!(Create, submit => Result<Session, Error>);
