//! `torture`: breaks what can be broken around pg-session, and checks that its promises hold.
//!
//! One program, three roles: the controller, and the nodes and the SQL client that it starts, which are the program again.

#![allow(
    clippy::disallowed_methods,
    reason = "a test tool with real deadlines; what is compared across processes is read in clock.rs"
)]

mod check;
mod clock;
mod cluster;
mod controller;
mod faults;
mod history;
mod node;
mod plan;
mod rng;
mod slots;
mod sql_client;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::plan::{NodePlan, Order, Removed, Role};

/// Faults of every kind around nodes under load, and checks of what they promised.
#[derive(Debug, Parser)]
#[command(name = "torture", version, after_help = after_help())]
struct Arguments {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    /// How long faults are made; fractions are allowed.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Repeats the choices of an earlier run. What the operating system and the network do in between differs.
    #[arg(long)]
    seed: Option<u64>,
    /// Only this fault; may be given several times.
    #[arg(long, value_name = "NAME")]
    fault: Vec<String>,
    /// Processes, each with a session manager.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Takes a guard away. The run then has to fail.
    #[arg(long, value_name = "GUARD")]
    without: Option<Removed>,
    /// Takes away each guard in turn, and fails unless the right checker notices, in at most three runs of a minute.
    #[arg(long)]
    prove: bool,
    /// Keeps the histories in this directory.
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
    /// Makes no run: checks the one whose histories are in this directory again.
    #[arg(long, value_name = "DIRECTORY")]
    check: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// A node or the SQL client; the controller starts it.
    #[command(hide = true)]
    Node { plan: String },
}

fn after_help() -> String {
    format!("Faults:\n{}", faults::list())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.hidden.is_none() {
        // Before there are threads: those that are there already would stay outside.
        cluster::Disk::prepare();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(arguments)));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error:?}");
            ExitCode::from(2)
        }
    }
}

/// Whether the promises held, or, with `--prove`, whether each absence was noticed.
async fn run(arguments: Arguments) -> Result<bool> {
    if let Some(Hidden::Node { plan }) = &arguments.hidden {
        let plan: NodePlan = serde_json::from_str(plan)?;
        match plan.role {
            Role::Node => node::run(plan).await?,
            Role::SqlClient => sql_client::run(plan).await?,
        }
        return Ok(true);
    }
    if let Some(kept) = &arguments.check {
        let (history, length) = history::load_kept(kept)?;
        let report = check::all(history, length);
        println!("{report}");
        return Ok(report.is_good());
    }
    let mut order = Order {
        length: Duration::from_secs_f64(arguments.minutes * 60.0),
        seed: arguments.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 16),
        nodes: arguments.nodes,
        faults: arguments.fault,
        without: arguments.without,
        keep: arguments.keep,
    };
    if arguments.prove {
        return prove(&mut order).await;
    }
    if let Some(removed) = order.without
        && order.faults.is_empty()
    {
        order.faults = removed.faults().iter().map(ToString::to_string).collect();
    }
    let report = controller::run(order).await?;
    println!("\n{report}");
    Ok(report.is_good())
}

/// How long a run without a guard goes on: with its beginning and its checks it stays within a minute.
const PROOF: Duration = Duration::from_secs(45);

/// A race may lead to no hit that is old enough for the observer in one run. A checker that is blind notices in none.
const PROOF_RUNS: u64 = 3;

async fn prove(order: &mut Order) -> Result<bool> {
    let mut all_noticed = true;
    for removed in Removed::ALL {
        order.length = PROOF;
        order.without = Some(removed);
        order.faults = removed.faults().iter().map(ToString::to_string).collect();
        let mut is_noticed = false;
        for run in 0..PROOF_RUNS {
            is_noticed =
                prove_once(removed, Order { seed: order.seed.wrapping_add(run), ..order.clone() }).await?;
            if is_noticed {
                break;
            }
        }
        all_noticed &= is_noticed;
    }
    Ok(all_noticed)
}

async fn prove_once(removed: Removed, order: Order) -> Result<bool> {
    let began = Instant::now();
    let report = controller::run(order).await?;
    let is_observed = !removed.makes_hits_stale() || report.breaks("observer");
    let is_noticed = removed.invariants().iter().any(|invariant| report.breaks(invariant)) && is_observed;
    println!(
        "\n{report}\ntorture: without {removed:?}: {} {} ({:.0} s)\n",
        removed.invariants().join(" or ") + if removed.makes_hits_stale() { " and observer" } else { "" },
        if is_noticed { "was seen to be broken, as it has to be" } else { "WAS NOT SEEN TO BE BROKEN" },
        began.elapsed().as_secs_f64()
    );
    Ok(is_noticed)
}
