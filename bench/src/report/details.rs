//! docs/history/benchmarks.md: the targets, the slopes, every figure, how they were measured, and what they do not show.

use std::fmt::Write;

use super::charts::Named;
use super::human;
use super::json::Run;
use crate::book::{Book, Series};
use crate::curves::Fitted;
use crate::floors;
use crate::machine::Machine;
use crate::ratios::Outcome;

const METHOD: &str = include_str!("method.md");
const LIMITS: &str = include_str!("limits.md");
const CAVEATS: &str = include_str!("caveats.md");

/// The page: all of the first run, and the slopes of every run.
pub(crate) fn page(run: &Run, runs: &[Run], charts: &[Named]) -> String {
    let mut page = String::from("# Benchmarks\n\n");
    page.push_str(
        "Written by `./dev bench`; edit `bench/src/report` and run it again. The summary is [one page](../benchmarks.md).\n\n",
    );
    failures(&mut page, &run.book);
    targets(&mut page, run);
    slopes(&mut page, runs);
    for named in charts {
        let _ = writeln!(page, "![{}](../charts/{})\n", named.title, named.file);
    }
    page.push_str(LIMITS);
    page.push('\n');
    page.push_str(CAVEATS);
    page.push('\n');
    page.push_str(METHOD);
    page.push('\n');
    setting(&mut page, run);
    figures(&mut page, &run.book);
    page
}

// Writing to a string cannot fail.

fn failures(page: &mut String, book: &Book) {
    for failure in book.failures() {
        let _ = writeln!(page, "**Not measured, or not in full:** {failure}.\n");
    }
}

fn slopes(page: &mut String, runs: &[Run]) {
    page.push_str("## Growth\n\nThe slope is the exponent that fits best: 0 is constant, 1 is proportional, 2 is quadratic.\n\n");
    page.push_str("| curve | server | points | slope |\n|---|---|---|--:|\n");
    for run in runs {
        for Fitted { curve, line, points, slope } in &run.curves {
            let points: Vec<String> = points
                .iter()
                .map(|point| format!("{} at {}", human(point.spread.median), human(point.at)))
                .collect();
            let _ = writeln!(
                page,
                "| {curve}: {line} | PostgreSQL {} | {} | {slope:.2} |",
                run.postgres_major(),
                points.join(", ")
            );
        }
    }
    page.push('\n');
}

fn targets(page: &mut String, run: &Run) {
    let outcomes = &run.outcomes;
    let met = outcomes.iter().filter(|outcome| outcome.met).count();
    let _ = writeln!(page, "## Targets\n\n{met} of {} are met.\n", outcomes.len());
    page.push_str(
        "| ratio | case | median | min … max | target | | floor |\n|---|---|--:|--:|--:|---|---|\n",
    );
    for outcome in outcomes {
        let Outcome { name, case, value, min, max, target, met, above, below } = outcome;
        let between = match below {
            Some(below) => format!("{above} / {below}"),
            None => above.clone(),
        };
        let _ = writeln!(
            page,
            "| `{name}`<br>{between} | {case} | **{}** | {} … {} | {target} | {} | {} |",
            human(*value),
            human(*min),
            human(*max),
            if *met { "met" } else { "**missed**" },
            floors::of(outcome, &run.book)
                .map_or(String::new(), |(what, value)| format!("{}: {what}", human(value))),
        );
    }
    page.push('\n');
}

fn setting(page: &mut String, run: &Run) {
    let Machine { commit, processor, cores, memory_gib, kernel, flush_micros, versions, postgres, redis } =
        &run.machine;
    let _ = writeln!(
        page,
        "## Machine\n\nCommit {commit}. {processor}, {cores} cores, {memory_gib} GiB, Linux {kernel}. One flush of 8 kB to the servers' disk \
         (fdatasync) takes {flush_micros:.0} µs in the median. Rust's default release profile; {} rounds of {} ms a turn.\n",
        run.rounds, run.turn_ms
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
    page.push_str("```text\n./dev bench --redis            # this page\n./dev bench --redis --quick    # the targets alone, within three minutes\n./dev bench --pages FILE       # pages and charts from the file of a run\n```\n\n");
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
