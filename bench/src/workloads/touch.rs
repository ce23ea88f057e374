//! Last accesses: a hundred thousand sessions are read once from memory, until all of these accesses are in the table.

use std::time::Instant;

use anyhow::{Context, ensure};

use super::lineup::{self, parts};
use crate::book::{Figures, Metric};
use crate::contest::{Bench, Contest};
use crate::names::touch::NAME;
use crate::payload::Payload;
use crate::peers::ours::{Tables, WAIT_MAX};

const CASE: &str = "100 000 sessions";
const SESSIONS: usize = 100_000;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    if !plan.wants(NAME, CASE, lineup::OURS) {
        return Ok(());
    }
    let tables = Tables::fill(servers, Payload::Small, SESSIONS).await?;
    let mut contest = Contest::new(NAME, CASE);
    // A turn is as long as it takes.
    contest.enter(plan, lineup::OURS, |_| flush(tables.clone()));
    contest.run(plan, book).await
}

async fn flush(tables: Tables) -> anyhow::Result<Figures> {
    let client = tables.database.client().await?;
    client.execute("UPDATE sessions SET last_accessed_at = now() - interval '1 hour'", &[]).await?;
    tables.database.settle().await?;
    let node = tables.node(tables.config()).await?;
    node.fill_memory().await?;

    let begun = Instant::now();
    for &id in &*tables.ids {
        node.manager.get(id).await?.context("a session is gone")?;
    }
    // The rest of the last batch waits for the interval, or for the end.
    let report = node.manager.shutdown(WAIT_MAX).await;
    let took = begun.elapsed().as_secs_f64();

    ensure!(report.is_complete(), "the node left something behind: {report:?}");
    let written = "SELECT count(*) FROM sessions WHERE last_accessed_at > now() - interval '30 minutes'";
    let written: i64 = client.query_one(written, &[]).await?.get(0);
    ensure!(usize::try_from(written)? == SESSIONS, "{written} of {SESSIONS} last accesses are in the table");
    #[allow(clippy::cast_precision_loss, reason = "a hundred thousand")]
    let per_second = SESSIONS as f64 / took;
    Ok(vec![(Metric::Millis, took * 1e3), (Metric::PerSecond, per_second)])
}
