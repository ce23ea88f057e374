//! One connection of the pool for one statement: taken with patience, closed if its statement did not end, and then the
//! statement ends on the server, too.
//!
//! A server process does not notice that its client has gone while it waits for a lock. So a statement that timed out
//! would wait on, the next request would open another connection, and one locked row would take all of the server's
//! connections. A cancel request ends the statement.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Pool, PoolError};
use tokio::sync::Semaphore;

use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use super::failure::{self, Failure};
use crate::error::{Error, ErrorKind};

/// The pause before the pool is asked again while the server has no connection left; it doubles.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// The longest such pause.
const FULL_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Cancel requests in flight at once. Each is a connection to the server, for a moment.
const CANCELS_MAX: usize = 8;
/// How long a cancel request may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// What cancel requests need.
#[derive(Clone)]
pub(super) struct Canceller {
    tls: MakeRustlsConnect,
    permits: Arc<Semaphore>,
}

impl Canceller {
    pub(super) fn new(tls: MakeRustlsConnect) -> Self {
        Self { tls, permits: Arc::new(Semaphore::new(CANCELS_MAX)) }
    }

    /// Ends the statement of a connection on the server, then closes the connection; in a task of its own.
    fn cancel(&self, connection: Object) {
        let client = Object::take(connection);
        // A runtime that is gone has closed its sockets.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let canceller = self.clone();
        runtime.spawn(async move {
            let cancelled = tokio::time::timeout(CANCEL_TIMEOUT, async {
                // The semaphore is never closed.
                let _permit = canceller.permits.acquire().await;
                client.cancel_token().cancel_query(canceller.tls.clone()).await
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

/// A connection whose statement has not ended. Dropping it, because the time is over or the caller has gone, cancels the
/// statement and closes the connection: the answer would meet the next borrower.
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

/// Takes a connection within `patience`. While the server has no connection left, waits for one of the pool to come back.
pub(super) async fn take(pool: &Pool, patience: Duration) -> Result<Object, Failure> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut pause = FULL_PAUSE;
    loop {
        match tokio::time::timeout_at(deadline, pool.get()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error))
                if is_full(&error)
                    && pool.status().size > 0
                    && tokio::time::Instant::now() + pause < deadline =>
            {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(FULL_PAUSE_MAX);
            }
            Ok(Err(error)) => return Err(Failure::not_sent(of_pool(&error))),
            Err(_) => return Err(Failure::not_sent(no_connection(patience))),
        }
    }
}

fn is_full(error: &PoolError) -> bool {
    matches!(error, PoolError::Backend(error) if failure::is_full(error))
}

pub(crate) fn no_connection(timeout: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!(
            "no connection to PostgreSQL within {} s; raise pool_connections_max or look at the server's load",
            timeout.as_secs_f64()
        ),
    )
}

pub(super) fn of_pool(error: &PoolError) -> Error {
    match error {
        PoolError::Backend(error) => failure::of_connect(error),
        PoolError::Closed => Error::new(ErrorKind::ShuttingDown, "the connection pool is closed"),
        other => Error::new(ErrorKind::Unavailable, "the pool has no connection to PostgreSQL")
            .with_source(other.to_string()),
    }
}
