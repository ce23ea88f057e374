//! A bounded queue of requests of one kind. Those that wait at the same time share a statement; see [`Batcher`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::batcher::{Batcher, QueueBounds};
use super::request::{Pending, Request};
use crate::core::{Core, Tasks};
use crate::error::{Error, ErrorKind};
use crate::spans;

/// The sending half.
pub(crate) struct WriteQueue<R: Request> {
    requests: mpsc::Sender<Pending<R>>,
    /// Requests that were taken from the queue and wait for their statement.
    held: Arc<AtomicUsize>,
    core: Arc<Core>,
}

impl<R: Request> WriteQueue<R> {
    /// Starts the task that works on the queue. When it is stopped, it finishes what was queued.
    pub(super) fn spawn(bounds: QueueBounds, core: &Arc<Core>, tasks: &Tasks) -> Self {
        let (sender, requests) = mpsc::channel(bounds.queue_max);
        let held = Arc::<AtomicUsize>::default();
        let batcher = Batcher { requests, held: Arc::clone(&held), bounds, core: Arc::clone(core) };
        tasks.writing.spawn(|stop| batcher.run(stop));
        Self { requests: sender, held, core: Arc::clone(core) }
    }

    /// Queues a request and waits for its answer. It never waits for a place in the queue: an overloaded node says so.
    ///
    /// Dropping the future does not undo the write.
    pub(crate) async fn submit(&self, request: R) -> Result<R::Answer, R::Error> {
        let span = spans::write(R::KIND);
        let (pending, answer) = Pending::new(request, span.clone(), &self.core);
        self.push(pending)?;
        answer.instrument(span).await.unwrap_or_else(|_| Err(runtime_gone().into()))
    }

    fn push(&self, pending: Pending<R>) -> Result<(), Error> {
        // Requests that were taken from the channel wait as well.
        if self.waiting() >= self.requests.max_capacity() {
            return Err(overloaded());
        }
        self.requests.try_send(pending).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => overloaded(),
            mpsc::error::TrySendError::Closed(_) => Error::shutting_down(),
        })
    }

    pub(crate) fn waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity() + self.held.load(Ordering::Relaxed)
    }
}

fn overloaded() -> Error {
    Error::new(
        ErrorKind::Overloaded,
        "more writes wait than write_queue_max allows; PostgreSQL does not keep up with the writes",
    )
}

/// The task that had the request is gone: the runtime is being shut down.
fn runtime_gone() -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the runtime ended while the write was in flight; it may or may not have been committed",
    )
}
