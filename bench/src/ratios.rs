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

/// All of them, in the order in which they are reported.
pub(crate) const RATIOS: &[Ratio] = &[
    Ratio {
        name: "hit_vs_bare_cache",
        case: "1 000 sessions, 1 thread",
        metric: Metric::NanosEach,
        above: &[hit("ours, 1k sessions, 1 thread")],
        below: &[hit("bare cache, 1k sessions, 1 thread")],
        target: Target::AtMost(2.0),
    },
    Ratio {
        name: "hit_vs_bare_cache",
        case: "100 000 sessions, 1 thread",
        metric: Metric::NanosEach,
        above: &[hit("ours, 100k sessions, 1 thread")],
        below: &[hit("bare cache, 100k sessions, 1 thread")],
        target: Target::AtMost(2.0),
    },
    Ratio {
        name: "hit_two_threads_scaling",
        case: "100 000 sessions",
        metric: Metric::PerSecond,
        above: &[hit("ours, 100k sessions, 2 threads")],
        below: &[hit("ours, 100k sessions, 1 thread")],
        target: Target::AtLeast(1.6),
    },
    Ratio {
        name: "request_vs_jwt_hs256",
        case: "1 000 users, 1 thread",
        metric: Metric::NanosEach,
        above: &[request("ours, 1k users, 1 thread")],
        below: &[request("JWT HS256, 1k users, 1 thread")],
        target: Target::AtMost(0.35),
    },
    Ratio {
        name: "request_vs_jwt_hs256",
        case: "100 000 users, 1 thread",
        metric: Metric::NanosEach,
        above: &[request("ours, 100k users, 1 thread")],
        below: &[request("JWT HS256, 100k users, 1 thread")],
        target: Target::AtMost(0.9),
    },
    Ratio {
        name: "hit_vs_redis",
        case: "1 000 sessions, 1 in flight",
        metric: Metric::PerSecond,
        above: &[hit("ours, 1k sessions, 1 thread")],
        below: &[hit(name::REDIS), hit(name::REDIS_POOL)],
        target: Target::AtLeast(300.0),
    },
    Ratio {
        name: "hit_vs_redis",
        case: "100 000 sessions, 1 in flight",
        metric: Metric::PerSecond,
        above: &[hit("ours, 100k sessions, 1 thread")],
        below: &[hit(name::REDIS), hit(name::REDIS_POOL)],
        target: Target::AtLeast(300.0),
    },
    Ratio {
        name: "pin_check_vs_clock",
        case: "1 000 pins",
        metric: Metric::NanosEach,
        above: &[pin(pin::CHECK[0])],
        below: &[pin(pin::CLOCK)],
        target: Target::AtMost(2.0),
    },
    Ratio {
        name: "pin_check_vs_clock",
        case: "100 000 pins",
        metric: Metric::NanosEach,
        above: &[pin(pin::CHECK[1])],
        below: &[pin(pin::CLOCK)],
        target: Target::AtMost(2.0),
    },
    Ratio {
        name: "pin_check_vs_clock",
        case: "1 000 000 pins",
        metric: Metric::NanosEach,
        above: &[pin(pin::CHECK[2])],
        below: &[pin(pin::CLOCK)],
        target: Target::AtMost(2.0),
    },
    Ratio {
        name: "axum_vs_no_sessions",
        case: "requests/s at the limit, reads alone",
        metric: Metric::PerSecond,
        above: &[axum(axum::READS, axum::OURS)],
        below: &[axum(axum::READS, axum::NONE)],
        target: Target::AtLeast(0.9),
    },
    Ratio {
        name: "axum_vs_no_sessions",
        case: "requests/s at the limit, 19 reads to a durable write",
        metric: Metric::PerSecond,
        above: &[axum(axum::LIMIT, axum::OURS)],
        below: &[axum(axum::LIMIT, axum::NONE)],
        target: Target::AtLeast(0.9),
    },
    Ratio {
        name: "axum_vs_tower_sessions_redis",
        case: "requests/s at the limit, 19 reads to a durable write",
        metric: Metric::PerSecond,
        above: &[axum(axum::LIMIT, axum::OURS)],
        below: &[axum(axum::LIMIT, axum::REDIS_FSYNC)],
        target: Target::AtLeast(2.0),
    },
    Ratio {
        name: "update_vs_redis_fsync",
        case: "64 in flight",
        metric: Metric::PerSecond,
        above: &[update("64 in flight", name::OURS)],
        below: &[update("64 in flight", name::REDIS_FSYNC), update("64 in flight", name::REDIS_FSYNC_POOL)],
        target: Target::AtLeast(1.0),
    },
    Ratio {
        name: "update_vs_redis_fsync",
        case: "256 in flight",
        metric: Metric::PerSecond,
        above: &[update("256 in flight", name::OURS)],
        below: &[update("256 in flight", name::REDIS_FSYNC), update("256 in flight", name::REDIS_FSYNC_POOL)],
        target: Target::AtLeast(1.0),
    },
    Ratio {
        name: "update_vs_redis_same_promises",
        case: "64 in flight",
        metric: Metric::PerSecond,
        above: &[update("64 in flight", name::OURS)],
        below: &[
            update("64 in flight", name::REDIS_PROMISES),
            update("64 in flight", name::REDIS_PROMISES_POOL),
        ],
        target: Target::AtLeast(1.2),
    },
    Ratio {
        name: "update_vs_redis_same_promises",
        case: "256 in flight",
        metric: Metric::PerSecond,
        above: &[update("256 in flight", name::OURS)],
        below: &[
            update("256 in flight", name::REDIS_PROMISES),
            update("256 in flight", name::REDIS_PROMISES_POOL),
        ],
        target: Target::AtLeast(1.0),
    },
    Ratio {
        name: "update_combined_vs_single",
        case: "64 in flight",
        metric: Metric::PerSecond,
        above: &[update("64 in flight", name::OURS)],
        below: &[update("64 in flight", name::UNCOMBINED)],
        target: Target::AtLeast(12.0),
    },
    Ratio {
        name: "update_combined_vs_single",
        case: "64 in flight, beside the bare statement on 32 connections",
        metric: Metric::PerSecond,
        above: &[update("64 in flight", name::OURS)],
        below: &[update("64 in flight", name::BARE_POOL)],
        target: Target::AtLeast(12.0),
    },
    Ratio {
        name: "update_one_vs_bare_statement",
        case: "latency, 1 in flight",
        metric: Metric::P50Micros,
        above: &[update("1 in flight", name::OURS)],
        below: &[update("1 in flight", name::BARE_ONE)],
        target: Target::AtMost(1.25),
    },
    Ratio {
        name: "update_one_vs_notify_inside",
        case: "latency, 1 in flight",
        metric: Metric::P50Micros,
        above: &[update("1 in flight", name::OURS)],
        below: &[update("1 in flight", name::INSIDE)],
        target: Target::AtMost(1.05),
    },
    Ratio {
        name: "updates_64_vs_notify_inside",
        case: "64 in flight",
        metric: Metric::PerSecond,
        above: &[update("64 in flight", name::OURS)],
        below: &[update("64 in flight", name::INSIDE)],
        target: Target::AtLeast(1.0),
    },
    Ratio {
        name: "nodes_16_slow_flush_vs_notify_inside",
        case: "4 in flight on each",
        metric: Metric::PerSecond,
        above: &[entry("notify", notify::SLOW[2], notify::AFTER)],
        below: &[entry("notify", notify::SLOW[2], notify::INSIDE)],
        target: Target::AtLeast(5.0),
    },
    Ratio {
        name: "nodes_16_slow_flush_p99_vs_notify_inside",
        case: "4 in flight on each",
        metric: Metric::P99Micros,
        above: &[entry("notify", notify::SLOW[2], notify::AFTER)],
        below: &[entry("notify", notify::SLOW[2], notify::INSIDE)],
        target: Target::AtMost(0.25),
    },
    Ratio {
        name: "proving_cost_256_vs_64_listeners",
        case: "the server's time for a proof of every node",
        metric: Metric::ServerMicrosEach,
        above: &[proving(proving::SHARED[3])],
        below: &[proving(proving::SHARED[2])],
        target: Target::AtMost(5.0),
    },
    Ratio {
        name: "everywhere_p50_64_nodes_ms",
        case: "a logout, 64 nodes in one process",
        metric: Metric::Millis,
        above: &[entry(everywhere::NAME, everywhere::CASE, everywhere::NODES[3])],
        below: &[],
        target: Target::AtMost(20.0),
    },
    Ratio {
        name: "update_big_session_vs_small",
        case: "64 in flight",
        metric: Metric::PerSecond,
        above: &[entry("update_big", "64 in flight", name::OURS)],
        below: &[entry("update_big", "64 in flight", update_big::OURS_SMALL)],
        target: Target::AtLeast(0.5),
    },
    Ratio {
        name: "cold_vs_tower_sessions_sqlx",
        case: "64 in flight",
        metric: Metric::PerSecond,
        above: &[entry("cold", "64 in flight", name::OURS)],
        below: &[entry("cold", "64 in flight", name::TOWER)],
        target: Target::AtLeast(4.0),
    },
    Ratio {
        name: "create_vs_tower_sessions_sqlx",
        case: "64 in flight",
        metric: Metric::PerSecond,
        above: &[entry("create", "64 in flight", name::OURS)],
        below: &[entry("create", "64 in flight", name::TOWER)],
        target: Target::AtLeast(8.0),
    },
    Ratio {
        name: "propagation_p50_vs_bare_notify",
        case: "idle",
        metric: Metric::P50Micros,
        above: &[entry("propagation", propagation::IDLE, propagation::OURS)],
        below: &[entry("propagation", propagation::IDLE, propagation::NOTIFY)],
        target: Target::AtMost(1.5),
    },
    Ratio {
        name: "bytes_per_cached_session",
        case: memory::ONE,
        metric: Metric::Bytes,
        above: &[entry("memory", memory::ONE, memory::HELD)],
        below: &[],
        target: Target::AtMost(450.0),
    },
    Ratio {
        name: "bytes_per_cached_session",
        case: memory::FIVE,
        metric: Metric::Bytes,
        above: &[entry("memory", memory::FIVE, memory::HELD)],
        below: &[],
        target: Target::AtMost(450.0),
    },
    Ratio {
        name: "hit_1m_vs_100k_sessions",
        case: "1 thread",
        metric: Metric::NanosEach,
        above: &[hit("ours, 1m sessions, 1 thread")],
        below: &[hit("ours, 100k sessions, 1 thread")],
        target: Target::AtMost(1.6),
    },
    Ratio {
        name: "update_1m_vs_10k_rows",
        case: "64 in flight",
        metric: Metric::PerSecond,
        above: &[entry("update_rows", update_rows::CASE, update_rows::LARGE)],
        below: &[entry("update_rows", update_rows::CASE, update_rows::SMALL)],
        target: Target::AtLeast(0.7),
    },
    Ratio {
        name: "four_nodes_vs_one",
        case: "updates together, 64 in flight each",
        metric: Metric::PerSecond,
        above: &[entry("nodes", nodes::UPDATES, nodes::FOUR)],
        below: &[entry("nodes", nodes::UPDATES, nodes::ONE)],
        target: Target::AtLeast(0.9),
    },
];

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
