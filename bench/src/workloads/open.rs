//! An open load: updates arrive by a timetable, whether or not the earlier ones were answered. The latency counts from the
//! planned arrival, so an update that a slow one delays is slow as well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::lineup::parts;
use crate::book::{Figures, Metric};
use crate::contest::{Bench, Contest};
use crate::drive::new_histogram;
use crate::names::open::{NAME, NORMAL, RATES, SLOW};
use crate::payload::Payload;
use crate::peers::Peer;
use crate::peers::ours::{Node, Tables};
use crate::servers::{Flush, Servers};

/// Updates a second, as in [`RATES`].
const PER_SECOND: [u32; 5] = [1_000, 2_000, 4_000, 8_000, 16_000];
const SESSIONS: usize = 10_000;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    for (case, flush) in [(NORMAL, Flush::Normal), (SLOW, Flush::Slow)] {
        let open = Open::start(servers, flush).await?;
        let mut contest = Contest::new(NAME, case);
        for (name, per_second) in RATES.into_iter().zip(PER_SECOND) {
            let open = &open;
            contest.enter(plan, name, move |span| Arc::clone(open).drive(per_second, span));
        }
        contest.run(plan, book).await?;
        open.verify().await?;
    }
    Ok(())
}

/// A node, and the updates of each session that it has acknowledged.
struct Open {
    node: Node,
    sessions: Vec<Mutex<u64>>,
}

impl Open {
    async fn start(servers: &Servers, flush: Flush) -> anyhow::Result<Arc<Self>> {
        let tables = Tables::fill(servers, Payload::Small, SESSIONS).await?;
        tables.database.set_flush(flush).await?;
        let node = tables.node(tables.config()).await?;
        node.warm().await?;
        Ok(Arc::new(Self { node, sessions: (0..SESSIONS).map(|_| Mutex::new(0)).collect() }))
    }

    async fn drive(self: Arc<Self>, per_second: u32, span: Duration) -> anyhow::Result<Figures> {
        let handle = Handle::current();
        let begun = Instant::now();
        let every = Duration::from_secs(1) / per_second;
        // The runtime's timer has steps of a millisecond, so a thread of its own keeps the times.
        let timetable = tokio::task::spawn_blocking(move || {
            let mut arrivals = JoinSet::new();
            for number in 0.. {
                let planned = begun + every * number;
                if planned >= begun + span {
                    break;
                }
                std::thread::sleep(planned.saturating_duration_since(Instant::now()));
                arrivals.spawn_on(Arc::clone(&self).arrive(number as usize, planned), &handle);
            }
            arrivals
        });
        let mut arrivals = timetable.await.context("the timetable panicked")?;
        let mut latencies: Histogram<u64> = new_histogram()?;
        while let Some(joined) = arrivals.join_next().await {
            let took: Duration = joined.context("an update panicked")??;
            latencies.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let figures = vec![
            (Metric::PerSecond, latencies.len() as f64 / begun.elapsed().as_secs_f64()),
            (Metric::P50Micros, latencies.value_at_quantile(0.50) as f64 / 1e3),
            (Metric::P99Micros, latencies.value_at_quantile(0.99) as f64 / 1e3),
            (Metric::P999Micros, latencies.value_at_quantile(0.999) as f64 / 1e3),
        ];
        Ok(figures)
    }

    /// Returns the time since the planned arrival.
    async fn arrive(self: Arc<Self>, number: usize, planned: Instant) -> anyhow::Result<Duration> {
        let session = number * 7_919 % SESSIONS;
        // Updates of one session follow each other; this only matters when the load cannot be borne.
        let mut count = self.sessions[session].lock().await;
        self.node.update(session, *count + 1).await?;
        *count += 1;
        Ok(planned.elapsed())
    }

    /// Every acknowledged update is in the table, and no other.
    async fn verify(&self) -> anyhow::Result<()> {
        let stored = self.node.stored().await?;
        ensure!(stored.len() == self.sessions.len(), "{} of {SESSIONS} sessions are there", stored.len());
        let mut updates = 0;
        for (stored, counted) in stored.iter().zip(&self.sessions) {
            let counted = *counted.lock().await;
            ensure!(
                stored.count == counted,
                "{counted} updates were acknowledged, the table holds {}",
                stored.count
            );
            updates += counted;
        }
        ensure!(updates > 0, "no session was updated");
        Ok(())
    }
}
