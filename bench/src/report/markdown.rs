//! docs/BENCHMARKS.md.

use crate::book::Book;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::ratios::Outcome;

pub(crate) fn write(_: &Machine, _: &Plan, _: &Book, _: &[Outcome]) -> anyhow::Result<()> {
    Ok(())
}
