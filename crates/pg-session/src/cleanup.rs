//! The clean-up task: now and then, one pass over what has ended, in small batches with pauses between them.
//!
//! All nodes have one, and start at random times; a node that finds another one at work skips the pass.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::core::{Core, Tasks};
use crate::error::Error;
use crate::postgres::clean::Cleaned;
use crate::postgres::failure::Failure;

/// Between two statements: the application's own come first.
const PAUSE: Duration = Duration::from_millis(20);
/// Sessions that one statement looks at for idleness, for each that it may delete.
const PAGE_FACTOR: i64 = 4;

/// What a clean-up deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CleanupReport {
    /// Sessions past their absolute limit.
    pub expired: u64,
    /// Sessions past their idle limit.
    pub idle: u64,
    /// Overflow attributes past their own expiry, of live sessions. Small attributes are inline: the next write of their
    /// session removes them.
    pub attributes: u64,
    /// Whether another node was found cleaning, and the rest was left to it.
    pub left_to_another: bool,
}

pub(crate) struct Cleaner {
    core: Arc<Core>,
    batch_max: i64,
    /// One pass at a time on this node.
    passes: Mutex<()>,
}

impl Cleaner {
    /// Starts the task, unless the interval is zero.
    pub(crate) fn spawn(core: &Arc<Core>, tasks: &Tasks) -> Arc<Self> {
        let batch_max = i64::try_from(core.config.cleanup_batch_max).unwrap_or(i64::MAX);
        let cleaner = Arc::new(Self { core: Arc::clone(core), batch_max, passes: Mutex::default() });
        if !core.config.cleanup_interval.is_zero() {
            tasks.serving.spawn(|stop| Arc::clone(&cleaner).run(stop));
        }
        cleaner
    }

    /// Cleans up at each interval, with a jitter, until stopped.
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(jittered(self.core.config.cleanup_interval)) => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                outcome = self.pass() => match outcome {
                    Ok(done) => info!(expired = done.expired, idle = done.idle, attributes = done.attributes, "cleaned up"),
                    Err(error) => warn!(%error, "clean-up was interrupted, the next one goes on"),
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// One pass. Dropping the future stops it between two statements.
    pub(crate) async fn pass(&self) -> Result<CleanupReport, Error> {
        let _one = self.passes.lock().await;
        let mut done = CleanupReport::default();
        self.clean(&mut done).await.map_err(Failure::into_write_error)?;
        Ok(done)
    }

    async fn clean(&self, done: &mut CleanupReport) -> Result<(), Failure> {
        while self.count(
            &mut done.expired,
            self.core.database.clean_expired(self.batch_max).await?,
            &mut done.left_to_another,
        ) {
            tokio::time::sleep(PAUSE).await;
        }
        while self.count(
            &mut done.attributes,
            self.core.database.clean_attributes(self.batch_max).await?,
            &mut done.left_to_another,
        ) {
            tokio::time::sleep(PAUSE).await;
        }
        let mut after = Uuid::nil();
        loop {
            let page =
                self.core.database.clean_idle(after, self.batch_max.saturating_mul(PAGE_FACTOR)).await?;
            self.count(&mut done.idle, page.cleaned, &mut done.left_to_another);
            match page.next {
                Some(next) if page.cleaned.leader => after = next,
                _ => return Ok(()),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Adds up, and says whether there may be more.
    fn count(&self, sum: &mut u64, cleaned: Cleaned, left_to_another: &mut bool) -> bool {
        *sum += cleaned.rows;
        *left_to_another |= !cleaned.leader;
        cleaned.leader && i64::try_from(cleaned.rows).is_ok_and(|rows| rows == self.batch_max)
    }
}

/// Between half and one and a half times the interval, so that nodes started together do not clean together.
fn jittered(interval: Duration) -> Duration {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    // 32 bits are fine-grained enough, and exact in a float.
    #[allow(clippy::cast_precision_loss)]
    let share = (random >> 32) as f64 / f64::from(u32::MAX);
    interval.mul_f64(0.5 + share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jitter_stays_around_the_interval() {
        let hour = Duration::from_secs(3_600);
        let waits: Vec<Duration> = (0..1_000).map(|_| jittered(hour)).collect();
        assert!(waits.iter().all(|&wait| wait >= hour / 2 && wait <= hour * 3 / 2));
        assert!(
            waits.iter().any(|&wait| wait < hour * 3 / 4) && waits.iter().any(|&wait| wait > hour * 5 / 4)
        );
    }
}
