//! Locks, as the application asks for them.

use std::time::{Duration, SystemTime};

use super::{Node, SessionManager};
use crate::error::Error;
use crate::id::SessionId;
use crate::lock::{Fence, Lease, LockError, Request};
use crate::lock_key::LockKey;
use crate::postgres::lock::Holding;

/// Long enough to bridge a restart of PostgreSQL, short enough that a crashed holder's work goes on soon.
const LEASE_DEFAULT: Duration = Duration::from_secs(60);
/// How long `lock` waits by default.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);

impl SessionManager {
    /// Locks across all nodes of one schema and prefix.
    pub fn locks(&self) -> Locks<'_> {
        Locks { node: &self.0 }
    }
}

/// Locks across all nodes of one schema and prefix; made by [`SessionManager::locks`].
#[derive(Clone, Copy, Debug)]
#[must_use = "no lock is taken until one of its methods is awaited"]
pub struct Locks<'a> {
    node: &'a Node,
}

impl<'a> Locks<'a> {
    /// Takes a lock that all nodes share; awaiting the builder waits for it, for 10 s by default.
    ///
    /// The name has 1 to 255 bytes. **Each name that was ever used keeps a row**, because its fence
    /// must never decrease. Use names from a bounded set (`nightly-report`), not one for each order
    /// or request.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn f(sessions: &pg_session::SessionManager) -> Result<(), pg_session::LockError> {
    /// let lease = sessions.locks().lock("nightly-report").wait(Duration::from_secs(5)).await?;
    /// println!("working with fence {}", lease.fence());
    /// lease.release().await?;
    /// # Ok(()) }
    /// ```
    pub fn lock(self, name: &str) -> Lock<'a> {
        Lock {
            node: self.node,
            session: None,
            name: name.to_owned(),
            label: None,
            lease: LEASE_DEFAULT,
            wait: WAIT_DEFAULT,
        }
    }

    /// As [`lock`](Locks::lock), but does not wait: another holder's lock is [`LockError::Held`] at once.
    ///
    /// ```no_run
    /// # async fn f(sessions: &pg_session::SessionManager) -> Result<(), pg_session::LockError> {
    /// use pg_session::LockError;
    ///
    /// match sessions.locks().try_lock("nightly-report").await {
    ///     Ok(lease) => lease.release().await?,
    ///     Err(LockError::Held { .. }) => println!("another node is at it"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn try_lock(self, name: &str) -> Lock<'a> {
        self.lock(name).wait(Duration::ZERO)
    }

    /// Takes a lock within a session: `checkout` of one session is independent of `checkout` of another, and of the
    /// lock `checkout` without a session. Waits as [`lock`](Locks::lock) does.
    ///
    /// Only a living session's lock is given, and renewed; its lease is lost when the session ends. **A lock is not an
    /// access**: holding one does not keep an idle session alive. The lock's row goes with its session.
    pub fn session_lock(self, session: SessionId, name: &str) -> Lock<'a> {
        Lock { session: Some(session), ..self.lock(name) }
    }

    /// Returns the holder of a lock now, or `None` if the lock is free.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for a name that no lock can have; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and [`ErrorKind::Timeout`](crate::ErrorKind::Timeout)
    /// if the database does not answer.
    pub async fn holder(self, name: &str) -> Result<Option<LockHolder>, Error> {
        self.held_by(LockKey::new(None, name)?).await
    }

    /// Returns the holder of a session's lock now, or `None` if the lock is free.
    ///
    /// # Errors
    /// As [`holder`](Locks::holder).
    pub async fn session_holder(self, session: SessionId, name: &str) -> Result<Option<LockHolder>, Error> {
        self.held_by(LockKey::new(Some(session), name)?).await
    }

    /// Locks that [`held`](Locks::held) returns at most.
    pub const HELD_MAX: u32 = 1_000;

    /// Returns the locks that any node holds now, those with and without a session, the oldest first. At most
    /// [`HELD_MAX`](Locks::HELD_MAX). For operators: it reads the rows of all locks that were ever taken.
    ///
    /// # Errors
    /// As [`holder`](Locks::holder), which returns the holder of one lock.
    pub async fn held(self) -> Result<Vec<HeldLock>, Error> {
        self.node.check_open()?;
        let held = self.node.locks.held(Self::HELD_MAX).await?;
        let lock =
            |(session, name, holding): (_, _, Holding)| HeldLock { session, name, holder: holding.into() };
        Ok(held.into_iter().map(lock).collect())
    }

    async fn held_by(self, key: LockKey) -> Result<Option<LockHolder>, Error> {
        self.node.check_open()?;
        if key.has_no_session() {
            return Ok(None);
        }
        Ok(self.node.locks.holder(&key).await?.map(LockHolder::from))
    }
}

/// A lock that a node holds; from [`Locks::held`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HeldLock {
    /// The session that it belongs to, if it is a lock of a session.
    pub session: Option<SessionId>,
    /// Its name.
    pub name: String,
    /// Its holder.
    pub holder: LockHolder,
}

/// Who holds a lock, as the database knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LockHolder {
    /// What the holder called itself with [`Lock::label`].
    pub label: Option<String>,
    /// The holder's fencing token.
    pub fence: Fence,
    /// When it took the lock, on the database's clock.
    pub since: SystemTime,
    /// When its lease ends unless it is renewed, on the database's clock.
    pub until: SystemTime,
}

impl From<Holding> for LockHolder {
    fn from(holding: Holding) -> Self {
        let Holding { label, fence, since, until } = holding;
        Self { label, fence: Fence::new(fence), since: since.into(), until: until.into() }
    }
}

/// A lock to be taken by awaiting this; made by [`Locks::lock`] and the like.
///
/// # Errors
/// - [`LockError::Held`] if another holder has the lock until the end of the wait.
/// - [`LockError::SessionGone`] if it is a lock of a session that has ended.
/// - [`LockError::Failed`] for the rest:
///   - [`InvalidArgument`](crate::ErrorKind::InvalidArgument): a name, label, lease or wait is out of bounds.
///   - [`Contention`](crate::ErrorKind::Contention): another transaction keeps the lock's row, or its session, locked
///     for `query_timeout`.
///   - [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown): the answer never came. What may have been taken is given
///     back.
///   - [`Overloaded`](crate::ErrorKind::Overloaded): the node holds or waits for 10 000 locks.
///   - The database could not be asked until the end of the wait.
///
/// # Cancel safety
/// Dropping the future gives back in the background what was taken, or may have been.
#[derive(Debug)]
#[must_use = "no lock is taken until this is awaited"]
pub struct Lock<'a> {
    node: &'a Node,
    session: Option<SessionId>,
    name: String,
    label: Option<String>,
    lease: Duration,
    wait: Duration,
}

impl Lock<'_> {
    /// How long the lock outlives a holder that crashed or cannot reach the database. It is renewed each third of it, so
    /// the work may take any time. Default 60 s, 100 ms to 24 h. **Shorter than a restart of PostgreSQL, it is lost
    /// with each.**
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long to wait for the lock while another holder has it, or the database does not answer. Default 10 s; zero
    /// does not wait; at most 24 h. A statement in flight at the end of the wait is waited for, up to `query_timeout`.
    ///
    /// A waiter is woken within milliseconds of the release. **No fairness is promised**: waiters of one node take turns
    /// in their order, nodes race.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// What [`Locks::holder`] shows: a host's name, a worker's number. 1 to 255 bytes. Default
    /// none.
    pub fn label(mut self, label: &str) -> Self {
        self.label = Some(label.to_owned());
        self
    }

    async fn acquire(self) -> Result<Lease, LockError> {
        let Self { node, session, name, label, lease, wait } = self;
        node.check_open()?;
        let key = LockKey::new(session, &name)?;
        node.locks.acquire(Request { key, label, lease, wait }).await
    }
}

awaited!(Lock, acquire => Result<Lease, LockError>);
