//! `pg-session-bench`: pg-session beside Redis, tower-sessions and its own floors, in one run on one machine.
//!
//! It starts its own servers, lets the contenders of each case take turns, and reports: a table on the terminal, JSON
//! after each workload, and pages with charts that are made from the JSON. Every figure that counts is a ratio within the
//! same rounds, because machines differ and are noisy.
//!
//! Exit codes: 0 done, whether or not the targets were met (the table says so); 1 something went wrong, an
//! acknowledged write that is not in the table included; 2 wrong usage.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock; nothing here expires by it")]

mod book;
mod contest;
mod curves;
mod drive;
mod floors;
mod http;
mod machine;
mod names;
mod payload;
mod peers;
mod plan;
mod ratios;
mod report;
mod servers;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;

use crate::book::Book;
use crate::contest::Bench;
use crate::plan::Plan;
use crate::servers::Servers;

/// pg-session beside Redis, tower-sessions and its own floors, in one run on one machine.
#[derive(Parser, Debug)]
#[command(name = "bench", version)]
struct Options {
    /// Only what the ratios need, in short rounds: two to three minutes.
    #[arg(long)]
    quick: bool,
    /// Writes every figure to this file, after each workload. A complete run has a file of its own in docs/history.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only this ratio, workload or case (may be given several times); `--list` shows them.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Measures nothing, and makes the pages and charts from a run's file. Curves of further files, as of other versions of
    /// PostgreSQL, join those of the first.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["quick", "only", "json"])]
    pages: Vec<PathBuf>,
    /// Shows the names of ratios and workloads, and ends.
    #[arg(long)]
    list: bool,
}

/// As many threads as the targets' machine has cores; the same for every contender.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        plan::list();
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    if !options.pages.is_empty() {
        return report::pages::write(&options.pages);
    }
    let plan = Plan::new(options.quick, &options.only)?;
    let complete = !(options.quick || plan.is_partial());
    let file = options.json.clone().or_else(|| complete.then(report::pages::complete_run));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let servers = runtime.block_on(Servers::start())?;
    let machine = machine::describe(&servers)?;
    let mut bench = Bench { plan, servers, book: Book::default() };
    let save = |bench: &Bench| match &file {
        Some(file) => report::json::write(file, &machine, &bench.plan, &bench.book),
        None => Ok(()),
    };
    runtime.block_on(workloads::run_all(&mut bench, save))?;
    let Bench { servers, book, .. } = bench;
    servers.stop()?;

    report::table::print(&ratios::evaluate(&book), &curves::evaluate(&book));
    ensure!(book.failures().is_empty(), "not measured: {}", book.failures().join("; "));
    match file {
        Some(file) if complete => report::pages::write(&[file]),
        _ => Ok(()),
    }
}
