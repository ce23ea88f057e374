//! The task of a lane: combines what is queued *now* into statements.
//!
//! No waiting for company: a lone job leaves at once, and while its statement is under way the next ones gather. Jobs
//! with the same key are never under way together; they keep their order.
//!
//! The larger the batch, the less each job of it costs the server. But while a statement waits for the disk, or its answers
//! travel, another can work. So one statement leaves at a time as long as there are few jobs; as soon as each has
//! `company_min`, the jobs are shared out among as many statements as may be under way. One also leaves beside another that
//! takes long: that may be waiting for a row that somebody holds.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quick_cache::DefaultHashBuilder;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Workshop;
use super::lane::{Bounds, Job};
use super::under_way::{Keys, UnderWay};

/// Turns that those who were just answered get before the next batch leaves. With 64 in flight it then holds 62 of them;
/// with one turn it held 38.
const GATHER_MAX: usize = 8;

/// The working half of a lane.
pub(super) struct Work<J> {
    pub(super) jobs: mpsc::Receiver<J>,
    pub(super) held: Arc<AtomicUsize>,
    pub(super) bounds: Bounds,
    pub(super) workshop: Arc<Workshop>,
}

impl<J: Job> Work<J> {
    /// Works until stopped; then takes no more jobs, finishes those that are queued, and ends.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut waiting = VecDeque::new();
        let mut under_way = UnderWay::new();
        // Closed and empty.
        let mut drained = false;
        loop {
            while waiting.len() < self.bounds.batch_max
                && let Ok(job) = self.jobs.try_recv()
            {
                waiting.push_back(job);
            }
            while self.may_leave(&waiting, &under_way) {
                let batch = self.select(&mut waiting, &under_way);
                if batch.is_empty() {
                    break; // all of them wait for what is under way
                }
                under_way.start(batch, &self.workshop);
            }
            self.held.store(waiting.len(), Ordering::Relaxed);
            if drained && waiting.is_empty() && under_way.is_empty() {
                return;
            }
            let kept_back = !waiting.is_empty() && !under_way.is_slow();
            let slow = under_way.takes_long();
            tokio::select! {
                job = self.jobs.recv(), if !drained && waiting.len() < self.bounds.batch_max => match job {
                    Some(job) => waiting.push_back(job),
                    None => drained = true,
                },
                Some(finished) = under_way.done(), if !under_way.is_empty() => {
                    // First in, first out: those to be tried again go before the rest.
                    finished.again.into_iter().rev().for_each(|job| waiting.push_front(job));
                    // After a lone job there is nobody to be joined, and a turn costs: it wakes another thread.
                    if finished.jobs > 1 || !waiting.is_empty() {
                        self.gather().await;
                    }
                }
                () = slow, if kept_back => {}
                () = stop.cancelled(), if !self.jobs.is_closed() => self.jobs.close(),
            }
        }
    }

    /// Those who were just answered get a turn: what they write next joins the batch that leaves now, not the one after it;
    /// and another turn as long as more come. No timer: nothing waits for a company that may not come.
    async fn gather(&self) {
        for _ in 0..GATHER_MAX {
            let gathered = self.jobs.len();
            tokio::task::yield_now().await;
            if self.jobs.len() == gathered {
                break;
            }
        }
    }

    /// How many of those that wait are one statement's: all, or its share if several statements can leave.
    fn share(&self, waiting: usize, under_way: usize) -> usize {
        let free = self.bounds.statements_max - under_way;
        let statements = free.min(waiting / self.bounds.company_min.max(1)).max(1);
        waiting.div_ceil(statements).min(self.bounds.batch_max)
    }

    fn may_leave(&self, waiting: &VecDeque<J>, under_way: &UnderWay<J>) -> bool {
        let company_min = self.bounds.company_min.min(self.bounds.batch_max);
        !waiting.is_empty()
            && under_way.len() < self.bounds.statements_max
            && (under_way.is_empty() || waiting.len() >= company_min || under_way.is_slow())
    }

    /// Takes at most one job per key out of `waiting`, sorted, none whose key is under way; the rest keeps its order.
    fn select(&self, waiting: &mut VecDeque<J>, under_way: &UnderWay<J>) -> Vec<J> {
        let mut keys: Keys<J> =
            HashSet::with_capacity_and_hasher(waiting.len(), DefaultHashBuilder::default());
        let batch_max = self.share(waiting.len(), under_way.len());
        let mut batch = Vec::with_capacity(batch_max);
        let mut rest = VecDeque::new();
        for job in waiting.drain(..) {
            let own = [Some(job.key()), job.second_key()];
            let free = own.iter().flatten().all(|key| !keys.contains(key) && !under_way.has(key));
            // Those of a job that stays behind, too: a later one with the same key must not overtake it.
            keys.extend(own.into_iter().flatten());
            if free && batch.len() < batch_max {
                batch.push(job);
            } else {
                rest.push_back(job);
            }
        }
        *waiting = rest;
        batch.sort_unstable_by_key(Job::key);
        batch
    }
}
