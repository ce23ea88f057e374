//! Updates in tables of ten thousand to ten million sessions: what a change costs as the table grows. The log's growth is
//! counted, too: the first change of a page after a checkpoint writes the whole page into it.
//!
//! A node has at most a million of the sessions in memory, evenly spread over the table, and updates these.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio_postgres::Client;

use super::lineup::parts;
use super::million::{self, Million};
use crate::book::{Figures, Metric};
use crate::contest::{Bench, Contest};
use crate::drive::{Crew, Op};
use crate::names::update_rows::{CASE, HUGE, LARGE, MEDIUM, NAME, SMALL};
use crate::payload::Payload;
use crate::peers::ours::Tables;

const IN_FLIGHT: usize = 64;

pub(crate) async fn run(bench: &mut Bench, million: &mut Million) -> anyhow::Result<()> {
    // The largest comes last and by itself: if it takes too long, the others are measured.
    compete(bench, million, &[(SMALL, 10_000), (MEDIUM, 100_000), (LARGE, 1_000_000)]).await?;
    compete(bench, million, &[(HUGE, 10_000_000)]).await
}

async fn compete(
    bench: &mut Bench,
    million: &mut Million,
    sizes: &[(&'static str, usize)],
) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut crews = Vec::new();
    for &(name, rows) in sizes {
        if !plan.wants(NAME, CASE, name) {
            continue;
        }
        let crew = match name {
            LARGE => million.get(servers).await?.1,
            HUGE => crew(Tables::fill_inside(servers, rows, million::SESSIONS).await?).await?,
            _ => crew(Tables::fill(servers, Payload::Slim, rows).await?).await?,
        };
        crews.push((name, crew));
    }
    // The log is the server's: one connection sees what all databases write.
    let observer = &servers.database().await?.client().await?;
    let mut contest = Contest::new(NAME, CASE);
    for (name, crew) in &crews {
        contest.enter(plan, name, move |span| update(Arc::clone(crew), observer, span));
    }
    contest.run(plan, book).await?;
    for (name, crew) in &crews {
        crew.verify().await.with_context(|| format!("{NAME}: {name}"))?;
    }
    Ok(())
}

async fn crew(tables: Tables) -> anyhow::Result<Arc<Crew>> {
    let sessions = tables.ids.len();
    let crew = Crew::of(tables.node(tables.config()).await?, sessions).await?;
    crew.warm().await?;
    Ok(crew)
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
