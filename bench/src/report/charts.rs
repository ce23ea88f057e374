//! Which charts there are: what each shows of the book.

use super::svg::{Bar, Chart, Kind, Scale};
use crate::book::{Book, Metric, Spread};
use crate::names::{axum, contenders as name, request};
use crate::ratios::Outcome;

/// A chart with the name of its file.
pub(crate) struct Named<'a> {
    pub(crate) file: &'static str,
    pub(crate) chart: Chart<'a>,
}

/// All charts that the book has figures for.
pub(crate) fn all<'a>(book: &Book, outcomes: &[Outcome]) -> Vec<Named<'a>> {
    let charts = [
        Named { file: "targets.svg", chart: targets(outcomes) },
        Named { file: "requests.svg", chart: requests(book) },
        Named { file: "axum.svg", chart: axum(book) },
        Named { file: "reads.svg", chart: reads(book) },
        Named {
            file: "updates-64.svg",
            chart: updates(book, "64 in flight", "Durable updates, 64 in flight"),
        },
        Named {
            file: "updates-256.svg",
            chart: updates(book, "256 in flight", "Durable updates, 256 in flight"),
        },
    ];
    charts.into_iter().filter(|named| !named.chart.bars.is_empty()).collect()
}

/// How far each ratio is beyond its target, whichever way it points.
fn targets<'a>(outcomes: &[Outcome]) -> Chart<'a> {
    let bars = outcomes.iter().map(|outcome| {
        let [median, min, max] = [outcome.value, outcome.min, outcome.max].map(|value| outcome.beyond(value));
        Bar {
            label: format!("{} ({})", outcome.name, outcome.case),
            spread: Spread { median, min: min.min(max), max: max.max(min) },
            kind: if outcome.met { Kind::Ours } else { Kind::Missed },
        }
    });
    Chart {
        title: "The targets",
        unit: "times better than the target; the line is the target itself (logarithmic)",
        scale: Scale::Log,
        mark: Some(1.0),
        bars: bars.collect(),
    }
}

fn requests<'a>(book: &Book) -> Chart<'a> {
    let contenders = [
        ("ours, 1k users, 1 thread", Kind::Ours),
        ("ours, 100k users, 1 thread", Kind::Ours),
        ("JWT HS256, 1k users, 1 thread", Kind::Peer),
        ("JWT HS256, 100k users, 1 thread", Kind::Peer),
        ("JWT EdDSA, 1k users, 1 thread", Kind::Peer),
        ("JWT RS256, 1k users, 1 thread", Kind::Peer),
    ];
    Chart {
        title: "From the token's text to the user and one attribute",
        unit: "requests per second",
        scale: Scale::Linear,
        mark: None,
        bars: bars(book, request::NAME, request::UNIFORM, &contenders),
    }
}

fn axum<'a>(book: &Book) -> Chart<'a> {
    let contenders = [
        (axum::NONE, Kind::Floor),
        (axum::JWT, Kind::Peer),
        (axum::OURS, Kind::Ours),
        (axum::MOKA, Kind::Peer),
        (axum::REDIS, Kind::Peer),
        (axum::REDIS_FSYNC, Kind::Peer),
        (axum::SQLX, Kind::Peer),
    ];
    Chart {
        title: "An axum application, 19 reads to a write of the session",
        unit: "requests per second; the client shares the processors with the application and its store",
        scale: Scale::Linear,
        mark: None,
        bars: bars(book, axum::NAME, axum::LIMIT, &contenders),
    }
}

fn reads<'a>(book: &Book) -> Chart<'a> {
    let contenders = [
        ("bare cache, 1k sessions, 1 thread", Kind::Floor),
        ("ours, 1k sessions, 1 thread", Kind::Ours),
        ("bare cache, 100k sessions, 1 thread", Kind::Floor),
        ("ours, 100k sessions, 1 thread", Kind::Ours),
        ("bare cache, 1m sessions, 1 thread", Kind::Floor),
        ("ours, 1m sessions, 1 thread", Kind::Ours),
        (name::TOWER_MOKA, Kind::Peer),
        (name::REDIS, Kind::Peer),
        (name::REDIS_POOL, Kind::Peer),
    ];
    Chart {
        title: "Reads of sessions in memory, one at a time",
        unit: "reads per second (logarithmic)",
        scale: Scale::Log,
        mark: None,
        bars: bars(book, "hit", "uniform", &contenders),
    }
}

fn updates<'a>(book: &Book, case: &str, title: &'a str) -> Chart<'a> {
    let contenders = [
        (name::OURS, Kind::Ours),
        (name::REDIS_FSYNC, Kind::Peer),
        (name::REDIS_FSYNC_POOL, Kind::Peer),
        (name::REDIS_FSYNC_PUBLISH, Kind::Peer),
        (name::REDIS_FSYNC_PUBLISH_POOL, Kind::Peer),
        (name::TOWER, Kind::Peer),
        (name::UNCOMBINED, Kind::Floor),
        (name::BARE_POOL, Kind::Floor),
    ];
    Chart {
        title,
        unit: "acknowledged updates per second; ours and those with publish notify the other nodes",
        scale: Scale::Linear,
        mark: None,
        bars: bars(book, "update", case, &contenders),
    }
}

fn bars(book: &Book, workload: &str, case: &str, contenders: &[(&str, Kind)]) -> Vec<Bar> {
    let found = contenders.iter().filter_map(|&(contender, kind)| {
        let series = book.find(workload, case, contender, Metric::PerSecond)?;
        Some(Bar { label: contender.to_owned(), spread: series.spread, kind })
    });
    found.collect()
}
