//! Time from the start of a node to its first answer: tables checked, connections made, in sync, one session read.

use std::time::Instant;

use anyhow::{Context, ensure};

use super::lineup::{self, parts};
use crate::book::{Metric, Spread};
use crate::contest::{Bench, Contest};
use crate::names::start::NAME;
use crate::payload::Payload;
use crate::peers::ours::{Tables, WAIT_MAX};

const CASE: &str = "connect to first read, in sync";
const SESSIONS: usize = 100_000;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let tables = Tables::fill(servers, Payload::Small, SESSIONS).await?;
    let mut contest = Contest::new(NAME, CASE);
    contest.enter(plan, lineup::OURS, |span| {
        let tables = tables.clone();
        async move {
            let (begun, mut took) = (Instant::now(), Vec::new());
            while begun.elapsed() < span {
                took.push(start(&tables).await?);
            }
            Ok(vec![(Metric::Millis, Spread::of(&took).median)])
        }
    });
    contest.run(plan, book).await
}

/// Milliseconds of one start.
async fn start(tables: &Tables) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let node = tables.node(tables.config()).await?;
    node.manager.wait_until_trusted().await?;
    node.manager.get(tables.ids[0]).await?.context("a session is gone")?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let report = node.manager.shutdown(WAIT_MAX).await;
    ensure!(report.is_complete(), "the node left something behind: {report:?}");
    Ok(took)
}
