//! The controller: starts the cluster, makes faults until the time is over, and has the histories checked.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};

use crate::check::{self, Report};
use crate::clock::{millis, now};
use crate::cluster::{Cluster, Member};
use crate::faults;
use crate::history::{self, Entry, Fault};
use crate::plan::Order;
use crate::rng::Rng;

/// Between a fault's recovery and the next fault; among the mixture, long enough to be looked at by itself.
const PEACE_MIXED_MS: (u64, u64) = (300, 2_500);
const PEACE_MS: (u64, u64) = (100, 600);
/// How long a node has to have been trusted for the fault to be over.
const CALM: Duration = Duration::from_millis(300);
/// After this the run is given up: a node that does not come back is a finding of its own.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Runs, checks, and says what was found. A run that came to an early end is checked as far as it went.
pub async fn run(order: Order) -> Result<Report> {
    println!("torture: seed {} ({} nodes, {:?})", order.seed, order.nodes, order.length);
    let began = now();
    let mut cluster = Cluster::start(&order).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = make_faults(&mut cluster, &order) => outcome,
        _ = interrupt.recv() => Err(anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow!("terminated")),
    };
    if let Err(error) = outcome {
        cluster.record_error(&error);
        cluster.repair().await.context("the run cannot be ended")?;
    }
    let (history, keep) = cluster.stop().await.context("the run cannot be ended")?;
    let length = now() - began;
    history::keep(keep.path(), &history, length)?;
    let report = check::all(history, length);
    keep.done(!report.is_good());
    Ok(report)
}

async fn make_faults(cluster: &mut Cluster, order: &Order) -> Result<()> {
    let end = Instant::now() + order.length;
    let mut rng = Rng::new(order.seed).fork(0xfa_017);
    let names = faults::chosen(&order.faults, cluster)?;
    let is_mixed = order.faults.is_empty();
    while Instant::now() < end {
        let (least, most) = if is_mixed { PEACE_MIXED_MS } else { PEACE_MS };
        tokio::time::sleep(rng.millis(least, most)).await;
        let name = names[rng.index(names.len())];
        let begin = now();
        let made = faults::make(name, is_mixed, cluster, &mut rng).await;
        let name = match made.with_context(|| format!("the fault {name} could not be made")) {
            Ok(name) => name,
            Err(error) => {
                cluster.record_error(&error);
                cluster.repair().await?;
                name.to_owned()
            }
        };
        let end = now();
        recover(cluster).await.with_context(|| format!("after the fault {name}"))?;
        let over = now();
        println!(
            "torture: {name:<40} {:>6.0} ms, over after {:>5.0} ms",
            millis(end - begin),
            millis(over - end)
        );
        cluster.journal.write(&Entry::Fault(Fault { name, begin, end, over }));
    }
    Ok(())
}

/// Waits until every node is trusted, and stays so: right after a fault, a node may not have noticed it yet.
async fn recover(cluster: &mut Cluster) -> Result<()> {
    let recovering = async {
        loop {
            for node in &mut cluster.nodes {
                node.wait_until_trusted().await?;
            }
            tokio::time::sleep(CALM).await;
            if cluster.nodes.iter().all(Member::is_trusted) {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(WAIT_MAX, recovering).await.context("a node was not trusted again")?
}
