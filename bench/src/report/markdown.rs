//! docs/history/benchmarks.md and its charts: the targets, every figure, how they were measured, and what they do not show.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;

use super::{charts, human};
use crate::book::{Book, Series};
use crate::machine::Machine;
use crate::plan::Plan;
use crate::ratios::Outcome;

/// Where the repository's documents are, seen from this package.
const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
const METHOD: &str = include_str!("method.md");
const LIMITS: &str = include_str!("limits.md");
const CAVEATS: &str = include_str!("caveats.md");

/// Writes the page and its charts.
pub(crate) fn write(machine: &Machine, plan: &Plan, book: &Book, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let docs = Path::new(DOCS);
    let charts = charts::all(book, outcomes);
    std::fs::create_dir_all(docs.join("charts")).context("docs/charts could not be made")?;
    for named in &charts {
        let path = docs.join("charts").join(named.file);
        std::fs::write(&path, named.chart.render())
            .with_context(|| format!("could not write {}", named.file))?;
    }
    let mut page = String::from("# Benchmarks\n\n");
    page.push_str(
        "Written by `./dev bench`; edit `bench/src/report` and run it again. The summary is [one page](../benchmarks.md).\n\n",
    );
    targets(&mut page, outcomes);
    for named in &charts {
        let _ = writeln!(page, "![{}](../charts/{})\n", named.chart.title, named.file);
    }
    page.push_str(LIMITS);
    page.push('\n');
    page.push_str(CAVEATS);
    page.push('\n');
    page.push_str(METHOD);
    page.push('\n');
    setting(&mut page, machine, plan);
    figures(&mut page, book);
    std::fs::write(docs.join("history/benchmarks.md"), page)
        .context("docs/history/benchmarks.md could not be written")
}

// Writing to a string cannot fail.

fn targets(page: &mut String, outcomes: &[Outcome]) {
    let met = outcomes.iter().filter(|outcome| outcome.met).count();
    let _ = writeln!(page, "## Targets\n\n{met} of {} are met.\n", outcomes.len());
    page.push_str("| ratio | case | median | min … max | target | |\n|---|---|--:|--:|--:|---|\n");
    for outcome in outcomes {
        let Outcome { name, case, value, min, max, target, met, above, below } = outcome;
        let between = match below {
            Some(below) => format!("{above} / {below}"),
            None => above.clone(),
        };
        let _ = writeln!(
            page,
            "| `{name}`<br>{between} | {case} | **{}** | {} … {} | {target} | {} |",
            human(*value),
            human(*min),
            human(*max),
            if *met { "met" } else { "**missed**" }
        );
    }
    page.push('\n');
}

fn setting(page: &mut String, machine: &Machine, plan: &Plan) {
    let Machine { processor, cores, memory_gib, kernel, flush_micros, versions, postgres, redis } = machine;
    let _ = writeln!(
        page,
        "## Machine\n\n{processor}, {cores} cores, {memory_gib} GiB, Linux {kernel}. One flush of 8 kB to the servers' disk \
         (fdatasync) takes {flush_micros:.0} µs in the median. Rust's default release profile; {} rounds of {} ms a turn.\n",
        plan.rounds,
        plan.turn.as_millis()
    );
    let listed: Vec<String> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let _ = writeln!(page, "Versions: {}.\n", listed.join(", "));
    let _ = writeln!(page, "PostgreSQL says: {}.\n", settings(postgres));
    for (name, settings_of) in redis {
        let _ = writeln!(page, "Redis ({name}) says: {}.\n", settings(settings_of));
    }
    if redis.is_empty() {
        page.push_str("Redis was not installed, and is left out.\n\n");
    }
    page.push_str("```text\n./dev bench --redis            # this page\n./dev bench --redis --quick    # the targets alone, within three minutes\n```\n\n");
}

fn settings(settings: &std::collections::BTreeMap<String, String>) -> String {
    let said: Vec<String> = settings.iter().map(|(name, value)| format!("`{name} = {value:?}`")).collect();
    said.join(", ")
}

fn figures(page: &mut String, book: &Book) {
    page.push_str("## All figures\n\nThe median, and minimum … maximum over the rounds.\n");
    let mut under: Option<(&str, &str)> = None;
    for series in book.series() {
        let Series { workload, case, contender, metric, spread, .. } = series;
        if under != Some((workload, case)) {
            under = Some((workload, case));
            let _ = writeln!(
                page,
                "\n### {workload}: {case}\n\n| contender | | median | min … max |\n|---|---|--:|--:|"
            );
        }
        let _ = writeln!(
            page,
            "| {contender} | {} | {} | {} … {} |",
            metric.unit(),
            human(spread.median),
            human(spread.min),
            human(spread.max)
        );
    }
}
