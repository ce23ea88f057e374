//! Load: a number of operations in flight at once, against one store or spread over several nodes.
//!
//! Each of the operations in flight is a task that awaits one after the other, as requests do. Two tasks never update one
//! session. So a session's counter says exactly how many updates were acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::book::{Figures, Metric};
use crate::peers::Peer;

/// What the tasks do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Read,
    Update,
    Create,
    /// 95 reads to 5 updates.
    Mix,
}

/// Updates of a hundred operations in [`Op::Mix`].
const MIX_UPDATES_PERCENT: u8 = 5;

/// A store with its nodes, and the count of what it acknowledged.
pub(crate) struct Crew {
    /// The task `n` works with the node `n` modulo their number.
    nodes: Vec<Arc<dyn Peer>>,
    updates: Vec<AtomicU64>,
    creates: AtomicU64,
    rows_before: u64,
}

impl Crew {
    /// Sessions are numbered from 0 to `sessions`.
    pub(crate) async fn new(nodes: Vec<Arc<dyn Peer>>, sessions: usize) -> anyhow::Result<Arc<Self>> {
        let rows_before = match nodes.first() {
            Some(node) => node.rows().await?,
            None => bail!("a crew needs a node"),
        };
        let updates = (0..sessions).map(|_| AtomicU64::new(0)).collect();
        Ok(Arc::new(Self { nodes, updates, creates: AtomicU64::new(0), rows_before }))
    }

    pub(crate) async fn of(node: impl Peer, sessions: usize) -> anyhow::Result<Arc<Self>> {
        Self::new(vec![Arc::new(node)], sessions).await
    }

    /// One turn: `in_flight` tasks for `span`; what has begun by then is finished and counted.
    pub(crate) async fn drive(
        self: Arc<Self>,
        op: Op,
        in_flight: usize,
        span: Duration,
    ) -> anyhow::Result<Figures> {
        ensure!(in_flight <= self.updates.len() || op == Op::Create, "more in flight than sessions");
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..in_flight {
            tasks.spawn(Arc::clone(&self).work(op, number, in_flight, begun + span));
        }
        let mut all = new_histogram()?;
        while let Some(joined) = tasks.join_next().await {
            all.add(joined.context("a task panicked")??).context("histograms differ")?;
        }
        let elapsed = begun.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let figures = vec![
            (Metric::PerSecond, all.len() as f64 / elapsed),
            (Metric::P50Micros, all.value_at_quantile(0.50) as f64 / 1e3),
            (Metric::P99Micros, all.value_at_quantile(0.99) as f64 / 1e3),
        ];
        Ok(figures)
    }

    async fn work(
        self: Arc<Self>,
        op: Op,
        number: usize,
        in_flight: usize,
        until: Instant,
    ) -> anyhow::Result<Histogram<u64>> {
        let node = &self.nodes[number % self.nodes.len()];
        let mut random = fastrand::Rng::new();
        let mut latencies = new_histogram()?;
        let mut begun = Instant::now();
        while begun < until {
            let updates = op == Op::Update || op == Op::Mix && random.u8(0..100) < MIX_UPDATES_PERCENT;
            if op == Op::Create {
                node.create().await?;
                self.creates.fetch_add(1, Ordering::Relaxed);
            } else if updates {
                let own = (self.updates.len() - number).div_ceil(in_flight);
                let session = random.usize(0..own) * in_flight + number;
                // Only this task updates the session now.
                let count = self.updates[session].load(Ordering::Relaxed) + 1;
                node.update(session, count).await?;
                self.updates[session].store(count, Ordering::Relaxed);
            } else {
                node.read(random.usize(0..self.updates.len())).await?;
            }
            let now = Instant::now();
            latencies.saturating_record(u64::try_from((now - begun).as_nanos()).unwrap_or(u64::MAX));
            begun = now;
        }
        Ok(latencies)
    }

    /// Fills the nodes' memories.
    pub(crate) async fn warm(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            node.warm().await?;
        }
        Ok(())
    }

    /// Looks into the store itself: every acknowledged update and create is there, and no other.
    ///
    /// # Errors
    /// The first session that holds something else.
    pub(crate) async fn verify(&self) -> anyhow::Result<()> {
        let Some(node) = self.nodes.first() else { return Ok(()) };
        let stored = node.stored().await?;
        ensure!(
            stored.len() >= self.updates.len(),
            "{} of {} sessions are there",
            stored.len(),
            self.updates.len()
        );
        for (session, (stored, counted)) in stored.iter().zip(&self.updates).enumerate() {
            let counted = counted.load(Ordering::Relaxed);
            ensure!(
                stored.count == counted,
                "session {session}: {counted} updates were acknowledged, and the store holds {}",
                stored.count
            );
            if let Some(version) = stored.version {
                ensure!(
                    version == counted + 1,
                    "session {session}: version {version} after {counted} updates"
                );
            }
        }
        let (rows, creates) = (node.rows().await?, self.creates.load(Ordering::Relaxed));
        ensure!(
            rows == self.rows_before + creates,
            "{creates} creates were acknowledged, and the store has {} more sessions",
            rows.saturating_sub(self.rows_before)
        );
        Ok(())
    }
}

/// Nanoseconds up to a minute, to two digits.
pub(crate) fn new_histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 2).context("the histogram's bounds")
}
