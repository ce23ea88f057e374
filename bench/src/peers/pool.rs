//! A pool of connections, each lent to one operation at a time. Lending sends nothing, so it costs its contender as
//! little as a pool can.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of a pooled contender.
pub(crate) const CONNECTIONS: usize = 32;

/// Idle connections, and the callers that wait for one.
#[derive(Clone)]
pub(crate) struct Pool<T> {
    idle: Arc<Mutex<Vec<T>>>,
    permits: Arc<Semaphore>,
}

impl<T> Pool<T> {
    pub(crate) fn of(connections: Vec<T>) -> Self {
        let permits = Arc::new(Semaphore::new(connections.len()));
        Self { idle: Arc::new(Mutex::new(connections)), permits }
    }

    /// Waits for a connection.
    pub(crate) async fn get(&self) -> anyhow::Result<Lent<T>> {
        let permit = Arc::clone(&self.permits).acquire_owned().await?;
        let connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Lent { connection, idle: Arc::clone(&self.idle), _permit: permit })
    }
}

/// A connection that goes back when this is dropped.
pub(crate) struct Lent<T> {
    /// Some until the drop: there is a connection for each permit.
    connection: Option<T>,
    idle: Arc<Mutex<Vec<T>>>,
    _permit: OwnedSemaphorePermit,
}

impl<T> Deref for Lent<T> {
    type Target = T;

    #[allow(clippy::expect_used, reason = "each permit has a connection until the drop")]
    fn deref(&self) -> &T {
        self.connection.as_ref().expect("lent")
    }
}

impl<T> DerefMut for Lent<T> {
    #[allow(clippy::expect_used, reason = "each permit has a connection until the drop")]
    fn deref_mut(&mut self) -> &mut T {
        self.connection.as_mut().expect("lent")
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.connection.take());
    }
}
