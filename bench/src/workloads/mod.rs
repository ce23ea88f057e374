//! What is measured: one file a workload. Each fills its own tables, lets its contenders compete, and then looks whether
//! what was acknowledged is there.

mod axum;
mod cold;
mod create;
mod everywhere;
mod hit;
pub(crate) mod lineup;
pub(crate) mod memory;
mod million;
mod mix;
pub(crate) mod nodes;
pub(crate) mod notify;
mod open;
mod pin;
mod pin_table;
pub(crate) mod propagation;
mod proving;
mod read;
mod request;
mod start;
mod threads;
mod touch;
mod update;
pub(crate) mod update_big;
pub(crate) mod update_rows;

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::time::timeout;

use self::million::Million;
use crate::contest::Bench;
use crate::names::{self, WORKLOADS};

/// A workload that takes longer has stopped.
const WORKLOAD_TIME_MAX: Duration = Duration::from_secs(360);
/// Those that share a table of a million sessions keep it for the next one.
const KEEP_MILLION: [&str; 2] = [names::hit::NAME, names::pin::NAME];

/// Runs what the plan wants, and lets the caller save what came of each workload. One that fails is noted in the book, and the
/// others run all the same.
///
/// # Errors
/// If the servers fail, or what came of a workload cannot be saved.
pub(crate) async fn run_all(
    bench: &mut Bench,
    mut save: impl FnMut(&Bench) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut million = Million::default();
    for name in WORKLOADS {
        if !bench.plan.wants_workload(name) {
            continue;
        }
        let begun = Instant::now();
        match timeout(WORKLOAD_TIME_MAX, run(name, bench, &mut million)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => bench.book.fail(name, &format!("{error:#}")),
            Err(_) => bench.book.fail(name, &format!("not done after {WORKLOAD_TIME_MAX:?}")),
        }
        if !KEEP_MILLION.contains(&name) {
            million = Million::default();
            bench.servers.clear().await?;
        }
        eprintln!("  {name}: {} s", begun.elapsed().as_secs());
        save(bench)?;
    }
    Ok(())
}

/// Boxed: their futures are large and of many kinds.
async fn run(name: &str, bench: &mut Bench, million: &mut Million) -> anyhow::Result<()> {
    match name {
        names::hit::NAME => Box::pin(hit::run(bench, million)).await,
        names::update_rows::NAME => Box::pin(update_rows::run(bench, million)).await,
        names::read::NAME => Box::pin(read::run(bench)).await,
        names::request::NAME => Box::pin(request::run(bench)).await,
        names::cold::NAME => Box::pin(cold::run(bench)).await,
        names::update::NAME => Box::pin(update::run(bench)).await,
        names::update_big::NAME => Box::pin(update_big::run(bench)).await,
        names::create::NAME => Box::pin(create::run(bench)).await,
        names::mix::NAME => Box::pin(mix::run(bench)).await,
        names::axum::NAME => Box::pin(axum::run(bench)).await,
        names::nodes::NAME => Box::pin(nodes::run(bench)).await,
        names::notify::NAME => Box::pin(notify::run(bench)).await,
        names::pin::NAME => Box::pin(pin::run(bench, million)).await,
        names::proving::NAME => Box::pin(proving::run(bench)).await,
        names::everywhere::NAME => Box::pin(everywhere::run(bench)).await,
        names::open::NAME => Box::pin(open::run(bench)).await,
        names::propagation::NAME => Box::pin(propagation::run(bench)).await,
        names::touch::NAME => Box::pin(touch::run(bench)).await,
        names::memory::NAME => Box::pin(memory::run(bench)).await,
        names::start::NAME => Box::pin(start::run(bench)).await,
        other => bail!("there is no workload {other}"),
    }
}

/// How a case with so many operations at once is called.
pub(crate) fn in_flight(count: usize) -> String {
    format!("{count} in flight")
}
