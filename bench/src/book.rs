//! The raw figures: for each contender of each case, one figure a round.

use serde::{Deserialize, Serialize};

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Book {
    series: Vec<Series>,
    failures: Vec<String>,
}

/// One contender's figures of one metric, in the order of the rounds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) workload: String,
    pub(crate) case: String,
    pub(crate) contender: String,
    pub(crate) metric: Metric,
    pub(crate) rounds: Vec<f64>,
    #[serde(flatten)]
    pub(crate) spread: Spread,
}

/// What a figure counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    PerSecond,
    /// Nanoseconds for one operation, from the rate of many.
    NanosEach,
    /// Half of the operations took at most as many microseconds.
    P50Micros,
    /// All but one in a hundred took at most as many microseconds.
    P99Micros,
    /// All but one in a thousand took at most as many microseconds.
    P999Micros,
    /// Microseconds of a processor that the process of the contender needed for one operation.
    ProcessorMicrosEach,
    /// Microseconds of a processor that all processes of PostgreSQL needed for one operation.
    ServerMicrosEach,
    /// Milliseconds for the whole.
    Millis,
    Bytes,
    /// What one operation adds to PostgreSQL's write-ahead log.
    WalBytesEach,
}

impl Metric {
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::PerSecond => "/s",
            Self::NanosEach => "ns each",
            Self::P50Micros => "µs p50",
            Self::P99Micros => "µs p99",
            Self::P999Micros => "µs p999",
            Self::ProcessorMicrosEach => "µs of a processor each",
            Self::ServerMicrosEach => "µs of the server's processors each",
            Self::Millis => "ms",
            Self::Bytes => "bytes",
            Self::WalBytesEach => "bytes of log each",
        }
    }
}

/// The figures of one turn.
pub(crate) type Figures = Vec<(Metric, f64)>;

/// Median and extremes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one figure; zeros of none.
    pub(crate) fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
            return Self { median: 0.0, min: 0.0, max: 0.0 };
        };
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Self { median, min, max }
    }
}

impl Book {
    pub(crate) fn of(series: Vec<Series>, failures: Vec<String>) -> Self {
        Self { series, failures }
    }

    pub(crate) fn add(&mut self, workload: &str, case: &str, contender: &str, figures: Figures) {
        for (metric, figure) in figures {
            let known = self.series.iter_mut().find(|series| {
                series.workload == workload
                    && series.case == case
                    && series.contender == contender
                    && series.metric == metric
            });
            if let Some(series) = known {
                series.rounds.push(figure);
                series.spread = Spread::of(&series.rounds);
                continue;
            }
            self.series.push(Series {
                workload: workload.to_owned(),
                case: case.to_owned(),
                contender: contender.to_owned(),
                metric,
                rounds: vec![figure],
                spread: Spread::of(&[figure]),
            });
        }
    }

    /// A workload was not measured, or not in full.
    pub(crate) fn fail(&mut self, workload: &str, reason: &str) {
        eprintln!("bench: {workload} failed: {reason}");
        self.failures.push(format!("{workload}: {reason}"));
    }

    /// Workloads that failed, and why.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    pub(crate) fn series(&self) -> &[Series] {
        &self.series
    }

    pub(crate) fn find(
        &self,
        workload: &str,
        case: &str,
        contender: &str,
        metric: Metric,
    ) -> Option<&Series> {
        self.series.iter().find(|series| {
            series.workload == workload
                && series.case == case
                && series.contender == contender
                && series.metric == metric
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        let spread = Spread::of(&[3.0, 1.0]);
        assert_eq!((spread.min, spread.max), (1.0, 3.0));
    }
}
