//! `pg-session-bench`: pg-session beside Redis, tower-sessions and its own floors, in one run on one machine.
//!
//! It starts servers of its own, lets the contenders of each case take turns in interleaved rounds, and says what
//! came of it: a table on the terminal, JSON with `--json`, docs/history/benchmarks.md with charts. Every figure that counts is a
//! ratio between two things measured in the same rounds, because machines differ and are noisy.
//!
//! Exit codes: 0 done, whether or not the targets were met (the table says so); 1 something went wrong, an
//! acknowledged write that is not in the table included; 2 wrong usage.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock; nothing here expires by it")]

mod book;
mod contest;
mod drive;
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

use anyhow::Context;
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
    /// Writes every figure to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only this ratio, workload or case (may be given several times); `--list` shows them.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Regenerates docs/history/benchmarks.md and its charts, which a complete run does anyway.
    #[arg(long)]
    docs: bool,
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
    let plan = Plan::new(options.quick, &options.only)?;
    let complete = options.docs || !(options.quick || plan.is_partial());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let servers = runtime.block_on(Servers::start())?;
    let machine = machine::describe(&servers)?;
    let mut bench = Bench { plan, servers, book: Book::default() };
    runtime.block_on(workloads::run_all(&mut bench))?;
    let Bench { plan, servers, book } = bench;
    servers.stop()?;

    let outcomes = ratios::evaluate(&book);
    report::table::print(&outcomes);
    if let Some(path) = &options.json {
        report::json::write(path, &machine, &plan, &book, &outcomes)?;
    }
    if complete {
        report::markdown::write(&machine, &plan, &book, &outcomes)?;
    }
    Ok(())
}
