//! The pages and charts in docs, made from the files of runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::json::Run;
use super::{charts, details, json, summary};

/// Where the repository's documents are, seen from this package.
const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

pub(crate) fn complete_run() -> PathBuf {
    Path::new(DOCS).join("history/benchmarks.json")
}

/// Writes docs/benchmarks.md, docs/history/benchmarks.md and docs/charts. The first file is the run that they describe; the
/// others have curves of other servers.
pub(crate) fn write(files: &[PathBuf]) -> anyhow::Result<()> {
    let runs: Vec<Run> = files.iter().map(|file| json::read(file)).collect::<Result<_, _>>()?;
    let run = runs.first().context("no file of a run")?;
    ensure!(!run.book.series().is_empty(), "the run has no figures");
    let docs = Path::new(DOCS);
    let charts = charts::all(&runs);
    std::fs::create_dir_all(docs.join("charts")).context("docs/charts could not be made")?;
    for named in &charts {
        put(&docs.join("charts").join(&named.file), &named.svg)?;
    }
    put(&docs.join("history/benchmarks.md"), &details::page(run, &runs, &charts))?;
    put(&docs.join("benchmarks.md"), &summary::page(run))
}

fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}
