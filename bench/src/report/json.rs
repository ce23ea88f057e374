//! A run as JSON: each contender's rounds, the ratios with their targets, the curves, the machine and the versions. The pages
//! are made from it.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::book::{Book, Series};
use crate::curves::{self, Fitted};
use crate::machine::Machine;
use crate::plan::Plan;
use crate::ratios::{self, Outcome};

/// Counts up when a field changes its meaning.
const FORMAT: u32 = 2;

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    quick: bool,
    partial: bool,
    rounds: usize,
    turn_ms: u64,
    machine: &'a Machine,
    failures: &'a [String],
    ratios: Vec<Outcome>,
    curves: Vec<Fitted>,
    series: &'a [Series],
}

/// What was read. Ratios and curves follow from the series.
#[derive(Deserialize)]
struct Document {
    format: u32,
    quick: bool,
    rounds: usize,
    turn_ms: u64,
    machine: Machine,
    failures: Vec<String>,
    series: Vec<Series>,
}

/// A run, as it was written.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) turn_ms: u64,
    pub(crate) machine: Machine,
    pub(crate) book: Book,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) curves: Vec<Fitted>,
}

pub(crate) fn write(path: &Path, machine: &Machine, plan: &Plan, book: &Book) -> anyhow::Result<()> {
    let written = Written {
        format: FORMAT,
        quick: plan.quick,
        partial: plan.is_partial(),
        rounds: plan.rounds,
        turn_ms: u64::try_from(plan.turn.as_millis())?,
        machine,
        failures: book.failures(),
        ratios: ratios::evaluate(book),
        curves: curves::evaluate(book),
        series: book.series(),
    };
    let text = serde_json::to_string_pretty(&written).context("the figures have no JSON form")?;
    std::fs::write(path, text + "\n").with_context(|| format!("could not write {}", path.display()))
}

pub(crate) fn read(path: &Path) -> anyhow::Result<Run> {
    let named = || format!("could not read {}", path.display());
    let text = std::fs::read_to_string(path).with_context(named)?;
    let Document { format, quick, rounds, turn_ms, machine, failures, series } =
        serde_json::from_str(&text).with_context(named)?;
    ensure!(format == FORMAT, "{} has format {format} instead of {FORMAT}: run it again", path.display());
    let book = Book::of(series, failures);
    let (outcomes, curves) = (ratios::evaluate(&book), curves::evaluate(&book));
    Ok(Run { quick, rounds, turn_ms, machine, book, outcomes, curves })
}

impl Run {
    /// Of the server, which tells two runs apart.
    pub(crate) fn postgres_major(&self) -> &str {
        let version = self.machine.versions.get("PostgreSQL").map_or("?", String::as_str);
        version.split(['.', ' ']).next().unwrap_or(version)
    }
}
