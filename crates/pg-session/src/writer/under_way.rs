//! The statements of a lane that are under way.
//!
//! If a statement is refused, its batch is halved until the one that is to blame stands alone, so that a poisonous
//! value fails nobody else. One that collided with another transaction is tried again, a bounded number of times.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use quick_cache::DefaultHashBuilder;
use tracing::debug;

use super::Workshop;
use super::lane::Job;
use crate::postgres::failure::Verdict;
use crate::probes::Guard;

/// Tries of a statement that collided with another transaction, before its jobs fail.
const TRIES_MAX: u32 = 8;
/// The pause after the first collision; it doubles.
const PAUSE: Duration = Duration::from_millis(2);
/// A statement that has been under way for longer does not keep others back: several times what one takes.
const SLOW: Duration = Duration::from_millis(5);

/// Keys of jobs. A bounded number of them, so the quicker hash function of the memory's map will do.
pub(super) type Keys<J> = HashSet<<J as Job>::Key, DefaultHashBuilder>;

type Statement<J> = Pin<Box<dyn Future<Output = Finished<J>> + Send>>;

pub(super) struct UnderWay<J: Job> {
    /// Driven by the lane's own task: another task would be another wake-up for a lone job.
    statements: FuturesUnordered<Statement<J>>,
    /// Of all jobs that are under way.
    keys: Keys<J>,
    /// When the youngest statement is slow.
    slow_at: tokio::time::Instant,
}

/// A statement that has ended.
pub(super) struct Finished<J: Job> {
    /// How many jobs it was made of.
    pub(super) jobs: usize,
    /// Those of them that are to be tried again.
    pub(super) again: Vec<J>,
    keys: Vec<J::Key>,
}

impl<J: Job> UnderWay<J> {
    pub(super) fn new() -> Self {
        Self {
            statements: FuturesUnordered::new(),
            keys: Keys::<J>::default(),
            slow_at: tokio::time::Instant::now(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.statements.len()
    }

    pub(super) fn has(&self, key: &J::Key) -> bool {
        self.keys.contains(key)
    }

    pub(super) fn start(&mut self, batch: Vec<J>, workshop: &Arc<Workshop>) {
        let keys: Vec<J::Key> =
            batch.iter().flat_map(|job| [Some(job.key()), job.second_key()]).flatten().collect();
        self.keys.extend(&keys);
        self.slow_at = tokio::time::Instant::now() + SLOW;
        let (jobs, workshop) = (batch.len(), Arc::clone(workshop));
        self.statements
            .push(Box::pin(async move { Finished { jobs, again: carry_out(batch, &workshop).await, keys } }));
    }

    /// Waits for a statement to end; `None` if there is none.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn done(&mut self) -> Option<Finished<J>> {
        let finished = self.statements.next().await?;
        for key in &finished.keys {
            self.keys.remove(key);
        }
        Some(finished)
    }

    /// Whether the youngest statement takes longer than one should.
    pub(super) fn is_slow(&self) -> bool {
        tokio::time::Instant::now() >= self.slow_at
    }

    /// Waits until it does.
    pub(super) fn takes_long(&self) -> impl Future<Output = ()> + use<J> {
        tokio::time::sleep_until(self.slow_at)
    }
}

/// Commits the batch, in as few statements as it takes. Returns the jobs to be tried again.
async fn carry_out<J: Job>(batch: Vec<J>, workshop: &Workshop) -> Vec<J> {
    let mut again = Vec::new();
    let mut tries = 0;
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        let failure = match J::commit(&mut part, workshop).await {
            Ok(mut more) => {
                again.append(&mut more);
                continue;
            }
            Err(failure) => failure,
        };
        match failure.verdict {
            Verdict::Collided | Verdict::Outdated | Verdict::WrongServer if tries < TRIES_MAX => {
                debug!(error = %failure.error, tries, "a batch failed without effect and is tried again");
                tokio::time::sleep(PAUSE * (1 << tries)).await;
                tries += 1;
                parts.push(part);
            }
            Verdict::Refused if part.len() > 1 && workshop.probes.holds(Guard::Split) => {
                let right = part.split_off(part.len() / 2);
                parts.push(right);
                parts.push(part);
            }
            _ => {
                let error = failure.of_write();
                for job in part {
                    job.fail(error.duplicate(), workshop);
                }
            }
        }
    }
    again
}
