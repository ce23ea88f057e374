//! Work on threads of its own, as fast as each can.

use std::time::Duration;

use anyhow::anyhow;

use crate::book::{Figures, Metric};

/// Operations between two looks at whether the turn is over.
pub(super) const STRIDE: usize = 4_096;

/// Operations done, and the time that they took.
pub(super) type Done = (usize, Duration);

/// Runs `work` on that many threads of their own and adds up what they did.
pub(super) fn on_threads(
    threads: usize,
    work: impl Fn(usize) -> anyhow::Result<Done> + Sync,
) -> anyhow::Result<Figures> {
    let work = &work;
    let all: Vec<anyhow::Result<Done>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
    });
    let mut per_second = 0.0;
    for done in all {
        let (count, elapsed) = done?;
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = count as f64;
        per_second += count / elapsed.as_secs_f64();
    }
    #[allow(clippy::cast_precision_loss, reason = "one or two")]
    let threads = threads as f64;
    Ok(vec![(Metric::NanosEach, threads * 1e9 / per_second), (Metric::PerSecond, per_second)])
}
