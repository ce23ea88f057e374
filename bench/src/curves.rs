//! The curves: how a figure grows with nodes, listeners, rows or load, and the fitted slope of each line.

use serde::Serialize;

use crate::book::{Book, Metric, Spread};
use crate::names::{everywhere, notify, open, proving, update_rows};
use crate::ratios::{Entry, entry};

/// Lines that share a chart.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What grows from point to point.
    pub(crate) across: &'static str,
    /// What the figures are.
    pub(crate) unit: &'static str,
    lines: &'static [Line],
}

#[derive(Debug)]
struct Line {
    label: &'static str,
    metric: Metric,
    points: &'static [(f64, Entry)],
}

/// A line with its figures.
#[derive(Debug, Serialize)]
pub(crate) struct Fitted {
    pub(crate) curve: &'static str,
    pub(crate) line: &'static str,
    pub(crate) points: Vec<Point>,
    /// The exponent that fits best: 0 is constant, 1 is proportional, 2 is quadratic.
    pub(crate) slope: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) at: f64,
    #[serde(flatten)]
    pub(crate) spread: Spread,
}

/// The same number of nodes in each of the cases.
const fn nodes(cases: [&'static str; 3], contender: &'static str) -> [(f64, Entry); 3] {
    [
        (1.0, entry(notify::NAME, cases[0], contender)),
        (4.0, entry(notify::NAME, cases[1], contender)),
        (16.0, entry(notify::NAME, cases[2], contender)),
    ]
}

const fn listeners(contenders: [&'static str; 4]) -> [(f64, Entry); 4] {
    [
        (4.0, entry(proving::NAME, proving::CASE, contenders[0])),
        (16.0, entry(proving::NAME, proving::CASE, contenders[1])),
        (64.0, entry(proving::NAME, proving::CASE, contenders[2])),
        (256.0, entry(proving::NAME, proving::CASE, contenders[3])),
    ]
}

const fn load(case: &'static str) -> [(f64, Entry); 5] {
    [
        (1_000.0, entry(open::NAME, case, open::RATES[0])),
        (2_000.0, entry(open::NAME, case, open::RATES[1])),
        (4_000.0, entry(open::NAME, case, open::RATES[2])),
        (8_000.0, entry(open::NAME, case, open::RATES[3])),
        (16_000.0, entry(open::NAME, case, open::RATES[4])),
    ]
}

const fn rows(contender: &'static str) -> Entry {
    entry(update_rows::NAME, update_rows::CASE, contender)
}

const fn logout(contender: &'static str) -> Entry {
    entry(everywhere::NAME, everywhere::CASE, contender)
}

/// All of them, in the order in which they are reported.
pub(crate) const CURVES: &[Curve] = &[
    Curve {
        name: "nodes",
        title: "Durable updates of all nodes together, 4 in flight on each",
        across: "nodes",
        unit: "updates per second",
        lines: &[
            Line {
                label: "as applications run it",
                metric: Metric::PerSecond,
                points: &nodes(notify::NORMAL, notify::AFTER),
            },
            Line {
                label: "the same, flush 3 ms slower",
                metric: Metric::PerSecond,
                points: &nodes(notify::SLOW, notify::AFTER),
            },
            Line {
                label: "notify inside, flush 3 ms slower",
                metric: Metric::PerSecond,
                points: &nodes(notify::SLOW, notify::INSIDE),
            },
        ],
    },
    Curve {
        name: "listeners",
        title: "The server's time for one proof of every node",
        across: "nodes",
        unit: "microseconds of the server's processors",
        lines: &[
            Line {
                label: "shared tick",
                metric: Metric::ServerMicrosEach,
                points: &listeners(proving::SHARED),
            },
            Line {
                label: "private barriers (before)",
                metric: Metric::ServerMicrosEach,
                points: &listeners(proving::PRIVATE),
            },
        ],
    },
    Curve {
        name: "everywhere",
        title: "A logout that waits until no node serves the session",
        across: "nodes",
        unit: "milliseconds, median",
        lines: &[Line {
            label: "delete().everywhere()",
            metric: Metric::Millis,
            points: &[
                (1.0, logout(everywhere::NODES[0])),
                (4.0, logout(everywhere::NODES[1])),
                (16.0, logout(everywhere::NODES[2])),
                (64.0, logout(everywhere::NODES[3])),
            ],
        }],
    },
    Curve {
        name: "rows",
        title: "Durable updates as the table grows, 64 in flight",
        across: "rows",
        unit: "updates per second",
        lines: &[Line {
            label: "one node",
            metric: Metric::PerSecond,
            points: &[
                (1e4, rows(update_rows::SMALL)),
                (1e5, rows(update_rows::MEDIUM)),
                (1e6, rows(update_rows::LARGE)),
                (1e7, rows(update_rows::HUGE)),
            ],
        }],
    },
    Curve {
        name: "load",
        title: "Latency of durable updates that arrive by a timetable",
        across: "updates a second",
        unit: "microseconds from the planned arrival",
        lines: &[
            Line { label: "p50", metric: Metric::P50Micros, points: &load(open::NORMAL) },
            Line { label: "p99", metric: Metric::P99Micros, points: &load(open::NORMAL) },
            Line { label: "p50, flush 3 ms slower", metric: Metric::P50Micros, points: &load(open::SLOW) },
            Line { label: "p99, flush 3 ms slower", metric: Metric::P99Micros, points: &load(open::SLOW) },
        ],
    },
];

/// Every line of which at least two points were measured.
pub(crate) fn evaluate(book: &Book) -> Vec<Fitted> {
    let lines = CURVES.iter().flat_map(|curve| curve.lines.iter().map(|line| (curve.name, line)));
    lines.filter_map(|(curve, line)| line.fit(curve, book)).collect()
}

impl Line {
    fn fit(&self, curve: &'static str, book: &Book) -> Option<Fitted> {
        let measured = self.points.iter().filter_map(|&(at, Entry { workload, case, contender })| {
            let series = book.find(workload, case, contender, self.metric)?;
            Some(Point { at, spread: series.spread })
        });
        let points: Vec<Point> = measured.collect();
        (points.len() >= 2).then(|| Fitted { curve, line: self.label, slope: slope(&points), points })
    }
}

/// The least squares of the logarithms of the medians.
fn slope(points: &[Point]) -> f64 {
    let logs: Vec<(f64, f64)> =
        points.iter().map(|point| (point.at.ln(), point.spread.median.ln())).collect();
    #[allow(clippy::cast_precision_loss, reason = "a handful of points")]
    let count = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|log| log.0), mean(|log| log.1));
    let (above, below) = logs.iter().fold((0.0, 0.0), |(above, below), log| {
        (above + (log.0 - x) * (log.1 - y), below + (log.0 - x).powi(2))
    });
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(of: fn(f64) -> f64) -> Vec<Point> {
        [4.0, 16.0, 64.0, 256.0].map(|at| Point { at, spread: Spread::of(&[of(at)]) }).to_vec()
    }

    #[test]
    fn slope_is_the_exponent() {
        assert!(slope(&line(|_| 7.0)).abs() < 1e-9);
        assert!((slope(&line(|at| 3.0 * at)) - 1.0).abs() < 1e-9);
        assert!((slope(&line(|at| 0.1 * at * at)) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_line_needs_two_points() {
        let mut book = Book::default();
        let figure = |millis| vec![(Metric::Millis, millis)];
        book.add(everywhere::NAME, everywhere::CASE, everywhere::NODES[0], figure(1.0));
        assert!(evaluate(&book).is_empty());
        book.add(everywhere::NAME, everywhere::CASE, everywhere::NODES[3], figure(8.0));
        let fitted = evaluate(&book);
        assert_eq!(fitted.len(), 1);
        assert!((fitted[0].slope - 0.5).abs() < 1e-9);
    }
}
