//! Work on threads of its own, as fast as each can.

use std::time::{Duration, Instant};

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

/// Does `each` for item after item of `list`, again and again, for `span`.
pub(super) fn walk<T>(
    list: &[T],
    span: Duration,
    each: impl Fn(&T) -> anyhow::Result<()>,
) -> anyhow::Result<Done> {
    let begun = Instant::now();
    let mut count = 0;
    for stride in list.chunks_exact(STRIDE).cycle() {
        for item in stride {
            each(item)?;
        }
        count += stride.len();
        if begun.elapsed() >= span {
            break;
        }
    }
    Ok((count, begun.elapsed()))
}

/// As [`walk`], for what is awaited.
pub(super) async fn walk_async<T>(
    list: &[T],
    span: Duration,
    each: impl AsyncFn(&T) -> anyhow::Result<()>,
) -> anyhow::Result<Done> {
    let begun = Instant::now();
    let mut count = 0;
    for stride in list.chunks_exact(STRIDE).cycle() {
        for item in stride {
            each(item).await?;
        }
        count += stride.len();
        if begun.elapsed() >= span {
            break;
        }
    }
    Ok((count, begun.elapsed()))
}
