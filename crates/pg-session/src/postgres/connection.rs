//! One connection of the pool for one statement. It is taken within a bound. If its statement did
//! not end, it is closed, and the statement ends on the server, too.
//!
//! A server process does not notice that its client has gone while it waits for a lock. So a
//! statement that timed out would wait on, and the next request would open another connection. One
//! locked row would take all of the server's connections. A cancel request ends the statement.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{HookError, Object, Pool, PoolError};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use super::attempts::{Attempts, ConnectFailure};
use super::failure::{self, Failure};
use crate::error::{Error, ErrorKind};
use crate::retry::{FULL_SERVER, READ_TRIES};

/// Cancel requests in flight at once. Each is a connection to the server, for a moment.
const CANCELS_MAX: usize = 8;
/// How long a cancel request may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after a loss the connections that are older than it are asked for an answer before each use. Keepalive finds
/// dead ones after this time.
const SUSPECT_FOR: Duration = Duration::from_secs(60);
/// How long such an answer may take, and no longer than half of what is left of the time.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// The TLS settings of cancel requests.
#[derive(Clone)]
pub(super) enum CancelTls {
    Fixed(MakeRustlsConnect),
    /// Those of the pool's last connection, because certificate files may change.
    AsThePool(Arc<Attempts>),
}

impl CancelTls {
    fn get(&self) -> Option<MakeRustlsConnect> {
        match self {
            Self::Fixed(tls) => Some(tls.clone()),
            Self::AsThePool(attempts) => attempts.tls(),
        }
    }
}

/// What cancel requests need.
#[derive(Clone)]
pub(super) struct Canceller {
    tls: CancelTls,
    permits: Arc<Semaphore>,
}

impl Canceller {
    pub(super) fn new(tls: CancelTls) -> Self {
        Self { tls, permits: Arc::new(Semaphore::new(CANCELS_MAX)) }
    }

    /// Ends the statement of a connection on the server, then closes the connection; in a task of its own.
    fn cancel(&self, connection: Object) {
        let client = Object::take(connection);
        // A runtime that is gone has closed its sockets.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // Without TLS settings, no connection was made.
        let Some(tls) = self.tls.get() else { return };
        let canceller = self.clone();
        runtime.spawn(async move {
            let cancelled = tokio::time::timeout(CANCEL_TIMEOUT, async {
                // The semaphore is never closed.
                let _permit = canceller.permits.acquire().await;
                client.cancel_token().cancel_query(tls).await
            });
            match cancelled.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "a statement could not be cancelled"),
                Err(_) => debug!("a statement could not be cancelled in time"),
            }
            drop(client);
        });
    }
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

/// A connection whose statement has not ended. Dropping it, because the time is over or the caller
/// has gone, cancels the statement and closes the connection. Otherwise the next user of the
/// connection would get the answer.
pub(super) struct Busy<'a> {
    connection: Option<Object>,
    canceller: &'a Canceller,
}

impl<'a> Busy<'a> {
    pub(super) fn new(connection: Object, canceller: &'a Canceller) -> Self {
        Self { connection: Some(connection), canceller }
    }

    pub(super) fn get(&self) -> Option<&Object> {
        self.connection.as_ref()
    }

    /// The statement has ended.
    pub(super) fn ended(mut self) -> Option<Object> {
        self.connection.take()
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.canceller.cancel(connection);
        }
    }
}

/// The time that one connection has for one statement. A statement that changes nothing is sent once more if the
/// first connection is lost or silent too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    pub(super) deadline: Instant,
    /// Of the time, without the wait for a connection.
    pub(super) share: Duration,
}

impl Try {
    /// All the time for one connection.
    pub(super) fn only(timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, share: timeout }
    }

    pub(super) fn first(timeout: Duration) -> Self {
        Self { share: timeout / READ_TRIES, ..Self::only(timeout) }
    }

    /// The second try, if the first has lost its connection and there is time left.
    pub(super) fn again<T>(self, outcome: &Result<T, Failure>) -> Option<Self> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let is_lost = outcome.as_ref().is_err_and(Failure::is_lost);
        (is_lost && !left.is_zero()).then_some(Self { share: left, ..self })
    }
}

/// When a connection was last lost or silent. A firewall that forgets idle connections forgets all of them, without a
/// signal.
#[derive(Debug, Default)]
pub(super) struct Suspicion(Mutex<Option<Instant>>);

impl Suspicion {
    pub(super) fn raise(&self) {
        *self.raised() = Some(Instant::now());
    }

    /// Whether a connection has to answer before it is used.
    fn concerns(&self, connection: &Object) -> bool {
        let Some(raised) = *self.raised() else { return false };
        Instant::now() < raised + SUSPECT_FOR && Object::metrics(connection).created <= raised.into_std()
    }

    fn raised(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a connection within `wait_max`. While the server has no connection left, waits for one of the pool to come back.
///
/// After a connection was lost, older ones are asked for an answer. If one is silent, all idle ones are closed.
pub(super) async fn take(pool: &Pool, suspicion: &Suspicion, wait_max: Duration) -> Result<Object, Failure> {
    let deadline = Instant::now() + wait_max;
    let mut pause = FULL_SERVER.first;
    loop {
        match tokio::time::timeout_at(deadline, pool.get()).await {
            Ok(Ok(connection)) if !suspicion.concerns(&connection) => return Ok(connection),
            Ok(Ok(connection)) => {
                let wait = PING_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()) / 2);
                if let Ok(Ok(_)) = tokio::time::timeout(wait, connection.simple_query("")).await {
                    return Ok(connection);
                }
                debug!("an idle connection of the pool is dead; closing all that are idle");
                drop(Object::take(connection));
                pool.retain(|_, _| false);
            }
            Ok(Err(error))
                if is_full(&error) && pool.status().size > 0 && Instant::now() + pause < deadline =>
            {
                tokio::time::sleep(pause).await;
                pause = FULL_SERVER.after(pause);
            }
            Ok(Err(error)) => return Err(Failure::not_sent(from_pool_error(&error))),
            Err(_) => return Err(Failure::not_sent(no_connection(wait_max))),
        }
    }
}

fn is_full(error: &PoolError) -> bool {
    let PoolError::Backend(error) = error else { return false };
    match ConnectFailure::in_driver_error(error) {
        Some(failure) => failure.is_full,
        None => failure::is_full(error),
    }
}

pub(crate) fn no_connection(timeout: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!(
            "no connection to PostgreSQL within {} s; raise pool_connections_max or look at the server's load",
            failure::seconds(timeout)
        ),
    )
}

pub(super) fn from_pool_error(error: &PoolError) -> Error {
    match error {
        PoolError::Backend(error) => match ConnectFailure::in_driver_error(error) {
            Some(failure) => failure.error(),
            None => failure::of_connect(error),
        },
        PoolError::PostCreateHook(HookError::Backend(error)) => {
            Failure::of_statement(error).into_read_error()
        }
        PoolError::Closed => Error::new(
            ErrorKind::ShuttingDown,
            "the connection pool is closed; start a session manager with an open one",
        ),
        other => {
            Error::new(ErrorKind::Unavailable, "the pool has no connection to PostgreSQL; look at the cause")
                .with_source(other.to_string())
        }
    }
}
