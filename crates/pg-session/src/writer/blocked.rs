//! The jobs of a queue that need rows which other transactions have locked.
//!
//! They hold no connection and no place of a statement. One query finds those whose rows have become free, again and again;
//! these are written. A job that stays blocked for longer than its `blocked_max` fails.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use quick_cache::DefaultHashBuilder;

use super::request::{Pending, Request};
use crate::retry::LOCKED_ROW;

/// At most one job for each key.
pub(super) struct Blocked<R: Request> {
    jobs: VecDeque<Pending<R>>,
    /// Since when the jobs are blocked, those that are being retried included.
    since: HashMap<R::Key, tokio::time::Instant, DefaultHashBuilder>,
    pause: Duration,
    retry_at: tokio::time::Instant,
}

impl<R: Request> Blocked<R> {
    pub(super) fn new() -> Self {
        Self {
            jobs: VecDeque::new(),
            since: HashMap::default(),
            pause: LOCKED_ROW.first,
            retry_at: tokio::time::Instant::now(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether jobs are to be retried now.
    pub(super) fn is_due(&self) -> bool {
        !self.jobs.is_empty() && tokio::time::Instant::now() >= self.retry_at
    }

    /// When the next retry is due.
    pub(super) fn retry_at(&self) -> tokio::time::Instant {
        self.retry_at
    }

    /// Adds a job; returns it with the time that it was blocked if that is as long as `blocked_max`.
    pub(super) fn add(&mut self, job: Pending<R>, blocked_max: Duration) -> Option<(Pending<R>, Duration)> {
        let now = tokio::time::Instant::now();
        let since = *self.since.entry(job.key()).or_insert(now);
        if now - since >= blocked_max {
            self.since.remove(&job.key());
            return Some((job, now - since));
        }
        self.jobs.push_back(job);
        None
    }

    /// A statement has ended: what it wrote is no longer blocked. To be called before [`add`](Self::add) for the others.
    pub(super) fn written(&mut self, keys: &[R::Key], still_blocked: &[Pending<R>]) {
        if self.since.is_empty() {
            return;
        }
        for key in keys {
            if !still_blocked.iter().any(|job| job.key() == *key) {
                self.since.remove(key);
            }
        }
    }

    /// The next retry is due after a pause: the shortest after `progress`, a longer one each time without it.
    ///
    /// Several retries are needed to try all jobs once; they share the pause.
    pub(super) fn schedule(&mut self, progress: bool, batch_max: usize) {
        self.pause = if progress { LOCKED_ROW.first } else { LOCKED_ROW.after(self.pause) };
        let retries = u32::try_from(self.jobs.len().div_ceil(batch_max).max(1)).unwrap_or(u32::MAX);
        self.retry_at = tokio::time::Instant::now() + self.pause / retries;
    }

    /// Takes the jobs of the next retry, those that have waited longest for one.
    pub(super) fn take(&mut self, batch_max: usize) -> Vec<Pending<R>> {
        let count = self.jobs.len().min(batch_max);
        let mut batch: Vec<Pending<R>> = self.jobs.drain(..count).collect();
        batch.sort_unstable_by_key(Pending::key);
        batch
    }
}
