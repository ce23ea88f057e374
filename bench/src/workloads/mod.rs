//! What is measured: one file a workload. Each fills its own tables, lets its contenders compete, and then looks whether
//! what was acknowledged is there.

mod axum;
mod cold;
mod create;
mod hit;
pub(crate) mod lineup;
pub(crate) mod memory;
mod million;
mod mix;
pub(crate) mod nodes;
pub(crate) mod notify;
pub(crate) mod propagation;
mod read;
mod request;
mod start;
mod threads;
mod touch;
mod update;
pub(crate) mod update_big;
pub(crate) mod update_rows;

use anyhow::bail;

use self::million::Million;
use crate::contest::Bench;
use crate::names::{self, WORKLOADS};

/// Runs what the plan wants.
///
/// # Errors
/// Of the first contender that fails, or lost what it acknowledged.
pub(crate) async fn run_all(bench: &mut Bench) -> anyhow::Result<()> {
    let mut million = Million::default();
    for name in WORKLOADS {
        if !bench.plan.wants_workload(name) {
            continue;
        }
        run(name, bench, &mut million).await?;
        if name != names::hit::NAME {
            million = Million::default();
            bench.servers.clear().await?;
        }
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
