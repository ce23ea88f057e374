//! Updates in a table of ten thousand sessions beside a table of a million: what a change costs as the table grows. The
//! log's growth is counted, too: the first change of a page after a checkpoint writes the whole page into it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio_postgres::Client;

use super::in_flight;
use super::lineup::parts;
use super::million::Million;
use crate::book::{Figures, Metric};
use crate::contest::{Bench, Contest};
use crate::drive::{Crew, Op};
use crate::names::update_rows::{LARGE, NAME, SMALL};
use crate::payload::Payload;
use crate::peers::ours::Tables;

const SESSIONS: usize = 10_000;
const IN_FLIGHT: usize = 64;

pub(crate) async fn run(bench: &mut Bench, million: &mut Million) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let (_, large) = million.get(servers).await?;
    let tables = Tables::fill(servers, Payload::Slim, SESSIONS).await?;
    let small = Crew::of(tables.node(tables.config()).await?, SESSIONS).await?;
    small.warm().await?;
    // The log is the server's: one connection sees what all databases write.
    let observer = tables.database.client().await?;
    let observer = &observer;
    let mut contest = Contest::new(NAME, in_flight(IN_FLIGHT));
    for (name, crew) in [(SMALL, &small), (LARGE, &large)] {
        contest.enter(plan, name, move |span| update(Arc::clone(crew), observer, span));
    }
    contest.run(plan, book).await?;
    small.verify().await?;
    large.verify().await
}

async fn update(crew: Arc<Crew>, observer: &Client, span: Duration) -> anyhow::Result<Figures> {
    let (before, begun) = (log_end(observer).await?, Instant::now());
    let mut figures = crew.drive(Op::Update, IN_FLIGHT, span).await?;
    let (after, took) = (log_end(observer).await?, begun.elapsed().as_secs_f64());
    let rate = figures.iter().find(|(metric, _)| *metric == Metric::PerSecond).context("no rate")?.1;
    figures.push((Metric::WalBytesEach, (after - before) / (rate * took)));
    Ok(figures)
}

/// How much has been written to the log since the server was made.
async fn log_end(observer: &Client) -> anyhow::Result<f64> {
    let text = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
    Ok(observer.query_one(text, &[]).await?.get(0))
}
