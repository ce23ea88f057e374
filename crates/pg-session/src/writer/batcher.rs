//! The task of a queue: combines what is queued *now* into statements.
//!
//! A lone job is sent at once. Jobs that arrive while its statement is in flight form the next batch. Jobs with the
//! same key are never in flight together; they keep their order.
//!
//! The larger the batch, the less each job of it costs the server. So one statement leaves at a time. A further one leaves
//! when the youngest takes long: its connection may be lost. Jobs that need a row which another transaction has locked are
//! set aside; see [`Blocked`].
//!
//! Any number of jobs with the same key may wait. They stay in the queue and fill no batch.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quick_cache::DefaultHashBuilder;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::blocked::Blocked;
use super::in_flight::{Finished, InFlight};
use super::request::{Keys, Pending, Request};
use crate::core::Core;
use crate::postgres::failure::Failure;

/// The most yields before the next batch leaves. Each lets the answered callers queue their next write.
const YIELDS_MAX: usize = 8;

/// What a queue may hold and do at the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueBounds {
    pub(super) queue_max: usize,
    /// Requests of one statement.
    pub(super) batch_max: usize,
    /// Statements in flight.
    pub(super) statements_max: usize,
}

/// The working half of a queue.
pub(super) struct Batcher<R: Request> {
    pub(super) requests: mpsc::Receiver<Pending<R>>,
    pub(super) held: Arc<AtomicUsize>,
    pub(super) bounds: QueueBounds,
    pub(super) core: Arc<Core>,
}

impl<R: Request> Batcher<R> {
    /// Works until stopped; then takes no more jobs, finishes those that are queued, and ends.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut waiting = VecDeque::new();
        let mut in_flight = InFlight::new();
        let mut blocked = Blocked::new();
        // Closed and empty.
        let mut drained = false;
        loop {
            while waiting.len() < self.bounds.queue_max
                && let Ok(job) = self.requests.try_recv()
            {
                waiting.push_back(job);
            }
            self.held.store(waiting.len(), Ordering::Relaxed);
            while self.may_leave(&waiting, &in_flight) {
                let batch = self.select(&mut waiting, &in_flight);
                if batch.is_empty() {
                    break; // all of them wait for what is in flight
                }
                in_flight.start(batch, &self.core);
            }
            if !in_flight.retries() && blocked.is_due() {
                in_flight.retry(blocked.take(self.bounds.batch_max), &self.core);
            }
            self.held.store(waiting.len() + blocked.len(), Ordering::Relaxed);
            if drained && waiting.is_empty() && in_flight.is_empty() && blocked.is_empty() {
                return;
            }
            let retry_later = !blocked.is_empty() && !in_flight.retries();
            let retry_at = blocked.retry_at();
            let kept_back = !waiting.is_empty() && !in_flight.is_slow();
            let slow = in_flight.takes_long();
            tokio::select! {
                job = self.requests.recv(), if !drained && waiting.len() < self.bounds.queue_max => match job {
                    Some(job) => waiting.push_back(job),
                    None => drained = true,
                },
                Some(mut finished) = in_flight.done(), if !in_flight.is_empty() => {
                    self.set_aside(&mut finished, &mut blocked, &mut in_flight);
                    // First in, first out: those to be tried again go before the rest.
                    finished.again.into_iter().rev().for_each(|job| waiting.push_front(job));
                    // A lone job has no callers beside it, and a yield costs: it wakes another thread.
                    if finished.jobs > 1 || !waiting.is_empty() {
                        self.yield_to_callers().await;
                    }
                }
                () = slow, if kept_back => {}
                () = tokio::time::sleep_until(retry_at), if retry_later => {}
                () = stop.cancelled(), if !self.requests.is_closed() => self.requests.close(),
            }
        }
    }

    /// Keeps the blocked jobs of a statement for a retry. Those that have waited too long fail.
    fn set_aside(&self, finished: &mut Finished<R>, blocked: &mut Blocked<R>, in_flight: &mut InFlight<R>) {
        blocked.written(&finished.keys, &finished.blocked);
        let progress = finished.blocked.len() < finished.jobs;
        if !finished.retry && finished.blocked.is_empty() {
            return;
        }
        let blocked_max = R::blocked_max(&self.core);
        for job in finished.blocked.drain(..) {
            if let Some((job, waited)) = blocked.add(job, blocked_max) {
                in_flight.release(&job);
                job.fail(Failure::blocked(waited).into_write_error(), &self.core);
            }
        }
        blocked.schedule(progress || !finished.retry, self.bounds.batch_max);
    }

    /// Yields, so that the callers that were just answered can queue their next write. It then joins the batch that leaves
    /// now. Uses no timer: a lone write never waits.
    async fn yield_to_callers(&self) {
        for _ in 0..YIELDS_MAX {
            let gathered = self.requests.len();
            tokio::task::yield_now().await;
            if self.requests.len() == gathered {
                break;
            }
        }
    }

    fn may_leave(&self, waiting: &VecDeque<Pending<R>>, in_flight: &InFlight<R>) -> bool {
        !waiting.is_empty()
            && in_flight.statements() < self.bounds.statements_max
            && (in_flight.statements() == 0 || in_flight.is_slow())
    }

    /// Takes at most one job per key out of `waiting`, sorted, none whose key is in flight; the rest keeps its order.
    fn select(&self, waiting: &mut VecDeque<Pending<R>>, in_flight: &InFlight<R>) -> Vec<Pending<R>> {
        let expected = waiting.len().min(self.bounds.batch_max);
        let mut keys: Keys<R> = HashSet::with_capacity_and_hasher(expected, DefaultHashBuilder::default());
        let mut batch = Vec::with_capacity(expected);
        let mut rest = Vec::new();
        while batch.len() < self.bounds.batch_max
            && let Some(job) = waiting.pop_front()
        {
            let free = job.keys().all(|key| !keys.contains(&key) && !in_flight.has(&key));
            // Those of a job that stays behind, too: a later one with the same key must not overtake it.
            keys.extend(job.keys());
            if free {
                batch.push(job);
            } else {
                rest.push(job);
            }
        }
        rest.into_iter().rev().for_each(|job| waiting.push_front(job));
        batch.sort_unstable_by_key(Pending::key);
        batch
    }
}
