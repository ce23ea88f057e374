//! What is measured: one file a workload. Each fills its own tables, lets its contenders compete, and then looks whether
//! what was acknowledged is there.

mod cold;
mod create;
mod hit;
pub(crate) mod lineup;
pub(crate) mod memory;
mod million;
pub(crate) mod nodes;
pub(crate) mod propagation;
mod read;
mod start;
mod touch;
mod update;
pub(crate) mod update_big;
pub(crate) mod update_rows;

use self::million::Million;
use crate::contest::Bench;

/// Every workload, in the order in which they run.
pub(crate) const WORKLOADS: [&str; 12] = [
    hit::NAME,
    update_rows::NAME,
    read::NAME,
    cold::NAME,
    update::NAME,
    update_big::NAME,
    create::NAME,
    nodes::NAME,
    propagation::NAME,
    touch::NAME,
    memory::NAME,
    start::NAME,
];

/// Runs what the plan wants.
///
/// # Errors
/// Of the first contender that fails, or lost what it acknowledged.
pub(crate) async fn run_all(bench: &mut Bench) -> anyhow::Result<()> {
    let mut million = Million::default();
    if bench.plan.wants_workload(hit::NAME) {
        hit::run(bench, &mut million).await?;
    }
    if bench.plan.wants_workload(update_rows::NAME) {
        update_rows::run(bench, &mut million).await?;
    }
    drop(million);
    bench.servers.clear().await?;
    if bench.plan.wants_workload(read::NAME) {
        read::run(bench).await?;
        bench.servers.clear().await?;
    }
    if bench.plan.wants_workload(cold::NAME) {
        cold::run(bench).await?;
        bench.servers.clear().await?;
    }
    if bench.plan.wants_workload(update::NAME) {
        update::run(bench).await?;
        bench.servers.clear().await?;
    }
    if bench.plan.wants_workload(update_big::NAME) {
        update_big::run(bench).await?;
        bench.servers.clear().await?;
    }
    if bench.plan.wants_workload(create::NAME) {
        create::run(bench).await?;
        bench.servers.clear().await?;
    }
    if bench.plan.wants_workload(nodes::NAME) {
        nodes::run(bench).await?;
        bench.servers.clear().await?;
    }
    if bench.plan.wants_workload(propagation::NAME) {
        propagation::run(bench).await?;
        bench.servers.clear().await?;
    }
    if bench.plan.wants_workload(touch::NAME) {
        touch::run(bench).await?;
        bench.servers.clear().await?;
    }
    if bench.plan.wants_workload(memory::NAME) {
        memory::run(bench).await?;
        bench.servers.clear().await?;
    }
    if bench.plan.wants_workload(start::NAME) {
        start::run(bench).await?;
        bench.servers.clear().await?;
    }
    Ok(())
}

/// How a case with so many operations at once is called.
pub(crate) fn in_flight(count: usize) -> String {
    format!("{count} in flight")
}
