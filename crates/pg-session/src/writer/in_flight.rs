//! The statements of a queue that are in flight.
//!
//! If a statement is refused, its batch is halved until the faulty request is alone and fails alone. One that
//! collided with another transaction is tried again, a bounded number of times.
//!
//! A statement that meets a row which another transaction has locked is repeated without the jobs that need such rows.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tracing::{Instrument as _, debug};

use super::commit::commit;
use super::request::{Keys, Pending, Request};
use crate::core::Core;
use crate::failpoints::Guard;
use crate::postgres::failure::{Failure, Verdict};
use crate::retry::{STATEMENT, STATEMENT_TRIES_MAX};
use crate::spans;

/// A statement that has been in flight for longer does not keep others back: several times what one takes.
const SLOW: Duration = Duration::from_millis(5);

type Statement<R> = Pin<Box<dyn Future<Output = Finished<R>> + Send>>;

pub(super) struct InFlight<R: Request> {
    /// Driven by the queue's own task: another task would be another wake-up for a lone job.
    statements: FuturesUnordered<Statement<R>>,
    /// Of all jobs in flight.
    keys: Keys<R>,
    /// When the youngest statement is slow.
    slow_at: tokio::time::Instant,
    /// Whether one of the statements is a retry of blocked jobs.
    retries: bool,
}

/// A statement that has ended.
pub(super) struct Finished<R: Request> {
    /// How many jobs it was made of.
    pub(super) jobs: usize,
    /// Those of them that are to be tried again.
    pub(super) again: Vec<Pending<R>>,
    /// Those of them whose rows are locked. Their keys stay in flight.
    pub(super) blocked: Vec<Pending<R>>,
    pub(super) keys: Vec<R::Key>,
    /// Whether it was a retry of blocked jobs.
    pub(super) retry: bool,
}

/// What became of a batch: jobs that are not answered.
struct Unanswered<R: Request> {
    again: Vec<Pending<R>>,
    blocked: Vec<Pending<R>>,
}

impl<R: Request> InFlight<R> {
    pub(super) fn new() -> Self {
        Self {
            statements: FuturesUnordered::new(),
            keys: Keys::<R>::default(),
            slow_at: tokio::time::Instant::now(),
            retries: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// Statements, but for the retry of blocked jobs.
    pub(super) fn statements(&self) -> usize {
        self.statements.len() - usize::from(self.retries)
    }

    /// Whether blocked jobs are being retried.
    pub(super) fn retries(&self) -> bool {
        self.retries
    }

    pub(super) fn has(&self, key: &R::Key) -> bool {
        self.keys.contains(key)
    }

    pub(super) fn start(&mut self, batch: Vec<Pending<R>>, core: &Arc<Core>) {
        let keys = keys_of(&batch);
        self.keys.extend(&keys);
        self.slow_at = tokio::time::Instant::now() + SLOW;
        let (jobs, core) = (batch.len(), Arc::clone(core));
        self.statements.push(Box::pin(async move {
            let Unanswered { again, blocked } = carry_out(batch, &core).await;
            Finished { jobs, again, blocked, keys, retry: false }
        }));
    }

    /// Writes those of the blocked jobs whose rows have become free.
    pub(super) fn retry(&mut self, batch: Vec<Pending<R>>, core: &Arc<Core>) {
        let keys = keys_of(&batch);
        self.retries = true;
        let (jobs, core) = (batch.len(), Arc::clone(core));
        self.statements.push(Box::pin(async move {
            let Unanswered { again, blocked } = retry(batch, &core).await;
            Finished { jobs, again, blocked, keys, retry: true }
        }));
    }

    /// A blocked job was given up: others with its keys may leave.
    pub(super) fn release(&mut self, job: &Pending<R>) {
        job.keys().for_each(|key| {
            self.keys.remove(&key);
        });
    }

    /// Waits for a statement to end; `None` if there is none.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn done(&mut self) -> Option<Finished<R>> {
        let finished = self.statements.next().await?;
        for key in &finished.keys {
            self.keys.remove(key);
        }
        self.keys.extend(keys_of(&finished.blocked));
        self.retries &= !finished.retry;
        Some(finished)
    }

    /// Whether the youngest statement takes longer than one should.
    pub(super) fn is_slow(&self) -> bool {
        tokio::time::Instant::now() >= self.slow_at
    }

    /// Waits until it does.
    pub(super) fn takes_long(&self) -> impl Future<Output = ()> + use<R> {
        tokio::time::sleep_until(self.slow_at)
    }
}

fn keys_of<R: Request>(batch: &[Pending<R>]) -> Vec<R::Key> {
    batch.iter().flat_map(Pending::keys).collect()
}

/// As [`carry_out`], but asks first which of the jobs are still blocked.
async fn retry<R: Request>(mut batch: Vec<Pending<R>>, core: &Core) -> Unanswered<R> {
    let mut blocked = Vec::new();
    match R::find_locked(&batch, core).await {
        Ok(locked) => blocked.extend(batch.extract_if(.., |job| locked.contains(&job.key()))),
        Err(failure) => {
            fail_all(batch, failure, core);
            return Unanswered { again: Vec::new(), blocked };
        }
    }
    let mut rest = carry_out(batch, core).await;
    rest.blocked.append(&mut blocked);
    rest
}

fn fail_all<R: Request>(batch: Vec<Pending<R>>, failure: Failure, core: &Core) {
    let error = failure.into_write_error();
    for job in batch {
        job.fail(error.duplicate(), core);
    }
}

/// Commits the batch, in as few statements as it takes.
async fn carry_out<R: Request>(batch: Vec<Pending<R>>, core: &Core) -> Unanswered<R> {
    let mut again = Vec::new();
    let mut blocked = Vec::new();
    let mut tries = 0;
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        let callers = || part.iter().map(|job| job.span.clone()).collect();
        let span = spans::statement(R::KIND, part.len(), callers);
        let failure = match commit(&mut part, core).instrument(span).await {
            Ok(mut more) => {
                again.append(&mut more);
                continue;
            }
            Err(failure) => failure,
        };
        match failure.verdict {
            Verdict::Retryable | Verdict::StalePlan | Verdict::WrongServer if tries < STATEMENT_TRIES_MAX => {
                debug!(error = %failure.error, tries, "a batch failed without effect and is tried again");
                tokio::time::sleep(STATEMENT.pause(tries)).await;
                tries += 1;
                parts.push(part);
            }
            Verdict::Blocked if part.len() == 1 => blocked.append(&mut part),
            Verdict::Blocked => match R::find_locked(&part, core).await {
                // Another row than those that the query looks at, or it is free by now.
                Ok(locked) if locked.is_empty() => {
                    let right = part.split_off(part.len() / 2);
                    parts.push(right);
                    parts.push(part);
                }
                Ok(locked) => {
                    debug!(
                        jobs = locked.len(),
                        "rows are locked by another transaction; their writes are tried again"
                    );
                    blocked.extend(part.extract_if(.., |job| locked.contains(&job.key())));
                    parts.push(part);
                }
                Err(failure) => fail_all(part, failure, core),
            },
            Verdict::Refused if part.len() > 1 && core.failpoints.holds(Guard::Split) => {
                let right = part.split_off(part.len() / 2);
                parts.push(right);
                parts.push(part);
            }
            _ => fail_all(part, failure, core),
        }
    }
    Unanswered { again, blocked }
}
