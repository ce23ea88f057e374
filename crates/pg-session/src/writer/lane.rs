//! A lane: a bounded queue and one task that combines what is queued *now* into one statement.
//!
//! No waiting for company: a lone job leaves at once, and while its statement is under way the next ones gather. Jobs
//! with the same key never travel together; they keep their order. If a statement is refused, its batch is halved
//! until the one that is to blame stands alone, so that a poisonous value fails nobody else.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Workshop;
use crate::error::{Error, ErrorKind};
use crate::postgres::failure::{Failure, Verdict};
use crate::probes::Guard;

/// Something to be written, with somebody who waits for the outcome.
pub(super) trait Job: Sized + Send + 'static {
    /// Jobs with equal keys must not share a statement. Batches are sorted by it: one lock order.
    type Key: Ord + Hash + Copy + Send;

    fn key(&self) -> Self::Key;

    /// Another key that no other job of the statement may have, neither as this nor as its first.
    fn second_key(&self) -> Option<Self::Key> {
        None
    }

    /// Sends the batch as one statement. On success every job was answered, but for those returned, which are to be
    /// tried again. On failure the batch is as it was.
    fn commit(
        batch: &mut Vec<Self>,
        workshop: &Workshop,
    ) -> impl Future<Output = Result<Vec<Self>, Failure>> + Send;

    /// Answers the job with an error.
    fn fail(self, error: Error, workshop: &Workshop);
}

/// Tries of a statement that collided with another transaction, before its jobs fail.
const TRIES_MAX: u32 = 8;
/// The pause after the first collision; it doubles.
const PAUSE: Duration = Duration::from_millis(2);

/// The sending half.
#[derive(Debug)]
pub(super) struct Lane<J> {
    jobs: mpsc::Sender<J>,
    /// Jobs that were taken from the queue and wait for the next statement.
    held: Arc<AtomicUsize>,
}

/// The working half.
pub(super) struct Work<J> {
    jobs: mpsc::Receiver<J>,
    held: Arc<AtomicUsize>,
    batch_max: usize,
    workshop: Arc<Workshop>,
}

pub(super) fn lane<J: Job>(
    queue_max: usize,
    batch_max: usize,
    workshop: &Arc<Workshop>,
) -> (Lane<J>, Work<J>) {
    let (sender, jobs) = mpsc::channel(queue_max);
    let held = Arc::new(AtomicUsize::new(0));
    let work = Work { jobs, held: Arc::clone(&held), batch_max, workshop: Arc::clone(workshop) };
    (Lane { jobs: sender, held }, work)
}

impl<J: Job> Lane<J> {
    /// Queues a job, or says why not; it never waits, so an overloaded node says so instead of piling up.
    pub(super) fn push(&self, job: J) -> Result<(), Error> {
        self.jobs.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Error::new(
                ErrorKind::Overloaded,
                "more writes wait than write_queue_max allows; PostgreSQL does not keep up with the writes",
            ),
            mpsc::error::TrySendError::Closed(_) => {
                Error::new(ErrorKind::ShuttingDown, "the session manager is shutting down")
            }
        })
    }

    pub(super) fn waiting(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity() + self.held.load(Ordering::Relaxed)
    }
}

impl<J: Job> Work<J> {
    /// Works until stopped; then takes no more jobs, finishes those that are queued, and ends.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut held = VecDeque::new();
        loop {
            if held.is_empty() {
                let job = tokio::select! {
                    job = self.jobs.recv() => job,
                    () = stop.cancelled(), if !self.jobs.is_closed() => {
                        self.jobs.close();
                        continue;
                    }
                };
                match job {
                    Some(job) => held.push_back(job),
                    None => return,
                }
            }
            while held.len() < self.batch_max
                && let Ok(job) = self.jobs.try_recv()
            {
                held.push_back(job);
            }
            let batch = self.select(&mut held);
            self.held.store(held.len(), Ordering::Relaxed);
            let mut again = self.carry_out(batch).await;
            // First in, first out: those to be tried again go before the rest.
            while let Some(job) = again.pop() {
                held.push_front(job);
            }
        }
    }

    /// Takes at most one job per key out of `held`, sorted; the rest keeps its order.
    fn select(&self, held: &mut VecDeque<J>) -> Vec<J> {
        let mut keys = HashSet::new();
        let mut batch = Vec::with_capacity(held.len().min(self.batch_max));
        let mut rest = VecDeque::new();
        for job in held.drain(..) {
            let own = [Some(job.key()), job.second_key()];
            if batch.len() < self.batch_max && own.iter().flatten().all(|key| !keys.contains(key)) {
                keys.extend(own.into_iter().flatten());
                batch.push(job);
            } else {
                rest.push_back(job);
            }
        }
        *held = rest;
        batch.sort_unstable_by_key(Job::key);
        batch
    }

    /// Commits the batch, in as few statements as it takes. Returns the jobs to be tried again.
    async fn carry_out(&self, batch: Vec<J>) -> Vec<J> {
        let mut again = Vec::new();
        let mut tries = 0;
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let failure = match J::commit(&mut part, &self.workshop).await {
                Ok(mut more) => {
                    again.append(&mut more);
                    continue;
                }
                Err(failure) => failure,
            };
            match failure.verdict {
                Verdict::Collided | Verdict::Outdated if tries < TRIES_MAX => {
                    debug!(error = %failure.error, tries, "a combined write collided");
                    tokio::time::sleep(PAUSE * (1 << tries)).await;
                    tries += 1;
                    parts.push(part);
                }
                Verdict::Refused if part.len() > 1 && self.workshop.probes.holds(Guard::Split) => {
                    let right = part.split_off(part.len() / 2);
                    parts.push(right);
                    parts.push(part);
                }
                _ => {
                    let error = failure.of_write();
                    for job in part {
                        job.fail(error.duplicate(), &self.workshop);
                    }
                }
            }
        }
        again
    }
}
