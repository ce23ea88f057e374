//! The ratios that count, and their targets: each between contenders that took turns in the same rounds.

use serde::Serialize;

use crate::book::{Book, Metric, Series, Spread};
use crate::names::{
    axum, contenders as name, everywhere, memory, nodes, notify, pin, propagation, proving, request,
    update_big, update_rows,
};

/// One contender of one case of one workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) workload: &'static str,
    pub(crate) case: &'static str,
    pub(crate) contender: &'static str,
}

impl Entry {
    pub(crate) fn is(&self, workload: &str, case: &str, contender: &str) -> bool {
        self.workload == workload && self.case == case && self.contender == contender
    }
}

/// What a ratio should be.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(tag = "direction", content = "target", rename_all = "snake_case")]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

/// A ratio to be computed from the book: the best of `above` over the best of `below`, round by round. Without `below`
/// it is the figure itself.
#[derive(Debug)]
pub(crate) struct Ratio {
    pub(crate) name: &'static str,
    pub(crate) case: &'static str,
    pub(crate) metric: Metric,
    pub(crate) above: &'static [Entry],
    pub(crate) below: &'static [Entry],
    pub(crate) target: Target,
}

pub(crate) const fn entry(workload: &'static str, case: &'static str, contender: &'static str) -> Entry {
    Entry { workload, case, contender }
}

const fn hit(contender: &'static str) -> Entry {
    entry("hit", "uniform", contender)
}

const fn request(contender: &'static str) -> Entry {
    entry("request", request::UNIFORM, contender)
}

const fn axum(case: &'static str, contender: &'static str) -> Entry {
    entry(axum::NAME, case, contender)
}

const fn pin(contender: &'static str) -> Entry {
    entry(pin::NAME, pin::CASE, contender)
}

const fn proving(contender: &'static str) -> Entry {
    entry(proving::NAME, proving::CASE, contender)
}

const fn update(case: &'static str, contender: &'static str) -> Entry {
    entry("update", case, contender)
}

/// A row for each: name, case, metric and target; the contenders above and below.
macro_rules! ratios {
    ($($name:literal, $case:expr, $metric:ident $direction:ident $target:literal:
        [$($above:expr),+] / [$($below:expr),*];)*) => {
        &[$(Ratio {
            name: $name,
            case: $case,
            metric: Metric::$metric,
            above: &[$($above),+],
            below: &[$($below),*],
            target: Target::$direction($target),
        }),*]
    };
}

/// All of them, in the order in which they are reported.
pub(crate) const RATIOS: &[Ratio] = ratios! {
    "hit_vs_bare_cache", "1 000 sessions, 1 thread", NanosEach AtMost 2.0:
        [hit("ours, 1k sessions, 1 thread")] / [hit("bare cache, 1k sessions, 1 thread")];
    "hit_vs_bare_cache", "100 000 sessions, 1 thread", NanosEach AtMost 2.0:
        [hit("ours, 100k sessions, 1 thread")] / [hit("bare cache, 100k sessions, 1 thread")];
    "hit_two_threads_scaling", "100 000 sessions", PerSecond AtLeast 1.6:
        [hit("ours, 100k sessions, 2 threads")] / [hit("ours, 100k sessions, 1 thread")];
    "request_vs_jwt_hs256", "1 000 users, 1 thread", NanosEach AtMost 0.35:
        [request("ours, 1k users, 1 thread")] / [request("JWT HS256, 1k users, 1 thread")];
    "request_vs_jwt_hs256", "100 000 users, 1 thread", NanosEach AtMost 0.9:
        [request("ours, 100k users, 1 thread")] / [request("JWT HS256, 100k users, 1 thread")];
    "hit_vs_redis", "1 000 sessions, 1 in flight", PerSecond AtLeast 300.0:
        [hit("ours, 1k sessions, 1 thread")] / [hit(name::REDIS), hit(name::REDIS_POOL)];
    "hit_vs_redis", "100 000 sessions, 1 in flight", PerSecond AtLeast 300.0:
        [hit("ours, 100k sessions, 1 thread")] / [hit(name::REDIS), hit(name::REDIS_POOL)];
    "pin_check_vs_clock", "1 000 pins", NanosEach AtMost 2.0:
        [pin(pin::CHECK[0])] / [pin(pin::CLOCK)];
    "pin_check_vs_clock", "100 000 pins", NanosEach AtMost 2.0:
        [pin(pin::CHECK[1])] / [pin(pin::CLOCK)];
    "pin_check_vs_clock", "1 000 000 pins", NanosEach AtMost 2.0:
        [pin(pin::CHECK[2])] / [pin(pin::CLOCK)];
    "axum_vs_no_sessions", "requests/s at the limit, reads alone", PerSecond AtLeast 0.9:
        [axum(axum::READS, axum::OURS)] / [axum(axum::READS, axum::NONE)];
    "axum_vs_no_sessions", "requests/s at the limit, 19 reads to a durable write", PerSecond AtLeast 0.9:
        [axum(axum::LIMIT, axum::OURS)] / [axum(axum::LIMIT, axum::NONE)];
    "axum_vs_tower_sessions_redis", "requests/s at the limit, 19 reads to a durable write",
        PerSecond AtLeast 2.0:
        [axum(axum::LIMIT, axum::OURS)] / [axum(axum::LIMIT, axum::REDIS_FSYNC)];
    "update_vs_redis_fsync", "64 in flight", PerSecond AtLeast 1.0:
        [update("64 in flight", name::OURS)]
        / [update("64 in flight", name::REDIS_FSYNC), update("64 in flight", name::REDIS_FSYNC_POOL)];
    "update_vs_redis_fsync", "256 in flight", PerSecond AtLeast 1.0:
        [update("256 in flight", name::OURS)]
        / [update("256 in flight", name::REDIS_FSYNC), update("256 in flight", name::REDIS_FSYNC_POOL)];
    "update_vs_redis_same_promises", "64 in flight", PerSecond AtLeast 1.2:
        [update("64 in flight", name::OURS)]
        / [update("64 in flight", name::REDIS_PROMISES), update("64 in flight", name::REDIS_PROMISES_POOL)];
    "update_vs_redis_same_promises", "256 in flight", PerSecond AtLeast 1.0:
        [update("256 in flight", name::OURS)]
        / [update("256 in flight", name::REDIS_PROMISES), update("256 in flight", name::REDIS_PROMISES_POOL)];
    "update_combined_vs_single", "64 in flight", PerSecond AtLeast 12.0:
        [update("64 in flight", name::OURS)] / [update("64 in flight", name::UNCOMBINED)];
    "update_combined_vs_single", "64 in flight, beside the bare statement on 32 connections",
        PerSecond AtLeast 12.0:
        [update("64 in flight", name::OURS)] / [update("64 in flight", name::BARE_POOL)];
    "update_one_vs_bare_statement", "latency, 1 in flight", P50Micros AtMost 1.25:
        [update("1 in flight", name::OURS)] / [update("1 in flight", name::BARE_ONE)];
    "update_one_vs_notify_inside", "latency, 1 in flight", P50Micros AtMost 1.05:
        [update("1 in flight", name::OURS)] / [update("1 in flight", name::INSIDE)];
    "updates_64_vs_notify_inside", "64 in flight", PerSecond AtLeast 1.0:
        [update("64 in flight", name::OURS)] / [update("64 in flight", name::INSIDE)];
    "nodes_16_slow_flush_vs_notify_inside", "4 in flight on each", PerSecond AtLeast 5.0:
        [entry("notify", notify::SLOW[2], notify::AFTER)]
        / [entry("notify", notify::SLOW[2], notify::INSIDE)];
    "nodes_16_slow_flush_p99_vs_notify_inside", "4 in flight on each", P99Micros AtMost 0.25:
        [entry("notify", notify::SLOW[2], notify::AFTER)]
        / [entry("notify", notify::SLOW[2], notify::INSIDE)];
    "proving_cost_256_vs_64_listeners", "the server's time for a proof of every node",
        ServerMicrosEach AtMost 5.0:
        [proving(proving::SHARED[3])] / [proving(proving::SHARED[2])];
    "everywhere_p50_64_nodes_ms", "a logout, 64 nodes in one process", Millis AtMost 20.0:
        [entry(everywhere::NAME, everywhere::CASE, everywhere::NODES[3])] / [];
    "update_big_session_vs_small", "64 in flight", PerSecond AtLeast 0.5:
        [entry("update_big", "64 in flight", name::OURS)]
        / [entry("update_big", "64 in flight", update_big::OURS_SMALL)];
    "cold_vs_tower_sessions_sqlx", "64 in flight", PerSecond AtLeast 4.0:
        [entry("cold", "64 in flight", name::OURS)] / [entry("cold", "64 in flight", name::TOWER)];
    "create_vs_tower_sessions_sqlx", "64 in flight", PerSecond AtLeast 8.0:
        [entry("create", "64 in flight", name::OURS)] / [entry("create", "64 in flight", name::TOWER)];
    "propagation_p50_vs_bare_notify", "idle", P50Micros AtMost 1.5:
        [entry("propagation", propagation::IDLE, propagation::OURS)]
        / [entry("propagation", propagation::IDLE, propagation::NOTIFY)];
    "bytes_per_cached_session", memory::ONE, Bytes AtMost 450.0:
        [entry("memory", memory::ONE, memory::HELD)] / [];
    "bytes_per_cached_session", memory::FIVE, Bytes AtMost 450.0:
        [entry("memory", memory::FIVE, memory::HELD)] / [];
    "hit_1m_vs_100k_sessions", "1 thread", NanosEach AtMost 1.6:
        [hit("ours, 1m sessions, 1 thread")] / [hit("ours, 100k sessions, 1 thread")];
    "update_1m_vs_10k_rows", "64 in flight", PerSecond AtLeast 0.7:
        [entry("update_rows", update_rows::CASE, update_rows::LARGE)]
        / [entry("update_rows", update_rows::CASE, update_rows::SMALL)];
    "four_nodes_vs_one", "updates together, 64 in flight each", PerSecond AtLeast 0.9:
        [entry("nodes", nodes::UPDATES, nodes::FOUR)] / [entry("nodes", nodes::UPDATES, nodes::ONE)];
};

/// What came of a ratio.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) case: &'static str,
    /// The median over the rounds.
    pub(crate) value: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    #[serde(flatten)]
    pub(crate) target: Target,
    pub(crate) met: bool,
    /// Between which contenders, the faster ones where there was a choice.
    pub(crate) above: String,
    pub(crate) below: Option<String>,
}

impl Outcome {
    /// How many times better than the target a value is; below one it misses it.
    pub(crate) fn beyond(&self, value: f64) -> f64 {
        match self.target {
            Target::AtMost(most) => most / value,
            Target::AtLeast(least) => value / least,
        }
    }
}

/// Every ratio whose contenders were measured.
pub(crate) fn evaluate(book: &Book) -> Vec<Outcome> {
    RATIOS.iter().filter_map(|ratio| ratio.evaluate(book)).collect()
}

impl Ratio {
    fn evaluate(&self, book: &Book) -> Option<Outcome> {
        let above = self.best(book, self.above)?;
        let below = if self.below.is_empty() { None } else { Some(self.best(book, self.below)?) };
        let by_round: Vec<f64> = match below {
            Some(below) => above.rounds.iter().zip(&below.rounds).map(|(a, b)| a / b).collect(),
            None => above.rounds.clone(),
        };
        let Spread { median, min, max } = Spread::of(&by_round);
        Some(Outcome {
            name: self.name,
            case: self.case,
            value: median,
            min,
            max,
            target: self.target,
            met: self.target.is_met(median),
            above: above.contender.clone(),
            below: below.map(|series| series.contender.clone()),
        })
    }

    /// The contender whose median is best.
    fn best<'a>(&self, book: &'a Book, entries: &[Entry]) -> Option<&'a Series> {
        let series = entries.iter().filter_map(|e| book.find(e.workload, e.case, e.contender, self.metric));
        series.max_by(|a, b| {
            let (a, b) = (a.spread.median, b.spread.median);
            if self.metric == Metric::PerSecond { a.total_cmp(&b) } else { b.total_cmp(&a) }
        })
    }
}
