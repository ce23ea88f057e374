//! Which charts there are: what each shows of the book.

use super::json::Run;
use super::lines::{Drawn, LineChart};
use super::svg::{Bar, Chart, Kind, Scale};
use crate::book::{Book, Metric, Spread};
use crate::curves::{CURVES, Curve};
use crate::names::{axum, contenders as name, request};
use crate::ratios::Outcome;

pub(crate) struct Named {
    pub(crate) file: String,
    pub(crate) title: &'static str,
    pub(crate) svg: String,
}

/// All charts that the first run has figures for. The curves have those of every run.
pub(crate) fn all(runs: &[Run]) -> Vec<Named> {
    let Some(Run { book, outcomes, .. }) = runs.first() else { return Vec::new() };
    let bars = [
        ("targets", targets(outcomes)),
        ("requests", requests(book)),
        ("axum", axum(book)),
        ("reads", reads(book)),
        ("updates-64", updates(book, "64 in flight", "Durable updates, 64 in flight")),
        ("updates-256", updates(book, "256 in flight", "Durable updates, 256 in flight")),
    ];
    let bars = bars.into_iter().filter(|(_, chart)| !chart.bars.is_empty());
    let bars = bars.map(|(file, chart)| Named {
        file: format!("{file}.svg"),
        title: chart.title,
        svg: chart.render(),
    });
    let curves = CURVES.iter().filter_map(|curve| {
        let chart = growth(curve, runs);
        let file = format!("growth-{}.svg", curve.name);
        (!chart.lines.is_empty()).then(|| Named { file, title: curve.title, svg: chart.render() })
    });
    bars.chain(curves).collect()
}

fn growth<'a>(curve: &'a Curve, runs: &'a [Run]) -> LineChart<'a> {
    let lines = runs.iter().enumerate().flat_map(|(number, run)| {
        let fitted = run.curves.iter().filter(|fitted| fitted.curve == curve.name);
        fitted.enumerate().map(move |(colour, fitted)| Drawn {
            label: if number == 0 {
                fitted.line.to_owned()
            } else {
                format!("{}, PG {}", fitted.line, run.postgres_major())
            },
            points: &fitted.points,
            slope: fitted.slope,
            colour,
            dashed: number > 0,
        })
    });
    LineChart { title: curve.title, unit: curve.unit, across: curve.across, lines: lines.collect() }
}

/// How far each ratio is beyond its target, whichever way it points.
fn targets(outcomes: &[Outcome]) -> Chart<'static> {
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

fn requests(book: &Book) -> Chart<'static> {
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

fn axum(book: &Book) -> Chart<'static> {
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

fn reads(book: &Book) -> Chart<'static> {
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

fn updates(book: &Book, case: &str, title: &'static str) -> Chart<'static> {
    let contenders = [
        (name::OURS, Kind::Ours),
        (name::REDIS_FSYNC, Kind::Peer),
        (name::REDIS_FSYNC_POOL, Kind::Peer),
        (name::REDIS_FSYNC_PUBLISH, Kind::Peer),
        (name::REDIS_FSYNC_PUBLISH_POOL, Kind::Peer),
        (name::REDIS_PROMISES, Kind::Peer),
        (name::REDIS_PROMISES_POOL, Kind::Peer),
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
