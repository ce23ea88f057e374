//! Every figure as JSON: the ratios with their targets, each contender's rounds, the machine and the versions.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::book::{Book, Series};
use crate::machine::Machine;
use crate::plan::Plan;
use crate::ratios::Outcome;

#[derive(Serialize)]
struct Document<'a> {
    /// Counts up when a field changes its meaning.
    format: u32,
    quick: bool,
    partial: bool,
    rounds: usize,
    turn_ms: u128,
    machine: &'a Machine,
    ratios: &'a [Outcome],
    series: &'a [Series],
}

pub(crate) fn write(
    path: &Path,
    machine: &Machine,
    plan: &Plan,
    book: &Book,
    ratios: &[Outcome],
) -> anyhow::Result<()> {
    let document = Document {
        format: 1,
        quick: plan.quick,
        partial: plan.is_partial(),
        rounds: plan.rounds,
        turn_ms: plan.turn.as_millis(),
        machine,
        ratios,
        series: book.series(),
    };
    let text = serde_json::to_string_pretty(&document).context("the figures have no JSON form")?;
    std::fs::write(path, text + "\n").with_context(|| format!("could not write {}", path.display()))
}
