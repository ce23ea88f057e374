//! A lane: a bounded queue of jobs of one kind. The jobs that wait at the same time share a statement; see [`Batcher`].

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::batcher::Batcher;
use super::in_flight::Keys;
use crate::core::Core;
use crate::error::{Error, ErrorKind};
use crate::postgres::failure::Failure;

/// A write, and the caller that waits for its outcome.
pub(super) trait Job: Sized + Send + 'static {
    /// Jobs with equal keys must not share a statement. Batches are sorted by it: one lock order.
    type Key: Ord + Hash + Copy + Send + 'static;

    fn key(&self) -> Self::Key;

    /// Another key that no other job of the statement may have, neither as this nor as its first.
    fn second_key(&self) -> Option<Self::Key> {
        None
    }

    /// Sends the batch as one statement. On success every job was answered, but for those returned, which are to be
    /// tried again. On failure the batch is as it was.
    fn commit(batch: &mut Vec<Self>, core: &Core) -> impl Future<Output = Result<Vec<Self>, Failure>> + Send;

    /// The keys of those jobs whose rows other transactions have locked now, as far as one query can tell.
    fn find_locked(
        _batch: &[Self],
        _core: &Core,
    ) -> impl Future<Output = Result<Keys<Self>, Failure>> + Send {
        std::future::ready(Ok(Keys::<Self>::default()))
    }

    /// How long a job whose row is locked is tried again.
    fn patience(core: &Core) -> Duration {
        core.database.patience()
    }

    /// Answers the job with an error.
    fn fail(self, error: Error, core: &Core);
}

/// What a lane may hold and do at the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueBounds {
    /// Jobs that may be queued.
    pub(super) queue_max: usize,
    /// Jobs of one statement.
    pub(super) batch_max: usize,
    /// Statements in flight.
    pub(super) statements_max: usize,
}

/// The sending half.
#[derive(Debug)]
pub(super) struct WriteQueue<J> {
    jobs: mpsc::Sender<J>,
    /// Jobs that were taken from the queue and wait for their statement.
    held: Arc<AtomicUsize>,
}

pub(super) fn lane<J: Job>(bounds: QueueBounds, core: &Arc<Core>) -> (WriteQueue<J>, Batcher<J>) {
    let (sender, jobs) = mpsc::channel(bounds.queue_max);
    let held = Arc::new(AtomicUsize::new(0));
    let work = Batcher { jobs, held: Arc::clone(&held), bounds, core: Arc::clone(core) };
    (WriteQueue { jobs: sender, held }, work)
}

impl<J: Job> WriteQueue<J> {
    /// Queues a job, or says why not; it never waits, so an overloaded node says so instead of piling up.
    pub(super) fn push(&self, job: J) -> Result<(), Error> {
        // Jobs that were taken from the channel wait as well.
        if self.waiting() >= self.jobs.max_capacity() {
            return Err(overloaded());
        }
        self.jobs.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => overloaded(),
            mpsc::error::TrySendError::Closed(_) => {
                Error::new(ErrorKind::ShuttingDown, "the session manager is shutting down")
            }
        })
    }

    pub(super) fn waiting(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity() + self.held.load(Ordering::Relaxed)
    }
}

fn overloaded() -> Error {
    Error::new(
        ErrorKind::Overloaded,
        "more writes wait than write_queue_max allows; PostgreSQL does not keep up with the writes",
    )
}
