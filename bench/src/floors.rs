//! Floors: what bounds a ratio from outside the library, measured in the same rounds.

use crate::book::{Book, Metric};
use crate::names::{axum, contenders as name, pin};
use crate::ratios::{Entry, Outcome, entry};

struct Floor {
    ratio: &'static str,
    case: &'static str,
    what: &'static str,
    metric: Metric,
    above: Entry,
    below: Entry,
}

const fn hit(contender: &'static str) -> Entry {
    entry("hit", "uniform", contender)
}

const FLOORS: &[Floor] = &[
    Floor {
        ratio: "axum_vs_no_sessions",
        case: "requests/s at the limit, reads alone",
        what: "a signed cookie (JWT HS256)",
        metric: Metric::PerSecond,
        above: entry(axum::NAME, axum::READS, axum::JWT),
        below: entry(axum::NAME, axum::READS, axum::NONE),
    },
    Floor {
        ratio: "axum_vs_no_sessions",
        case: "requests/s at the limit, 19 reads to a durable write",
        what: "a signed cookie (JWT HS256), nothing stored",
        metric: Metric::PerSecond,
        above: entry(axum::NAME, axum::LIMIT, axum::JWT),
        below: entry(axum::NAME, axum::LIMIT, axum::NONE),
    },
    Floor {
        ratio: "hit_vs_redis",
        case: "100 000 sessions, 1 in flight",
        what: "the bare cache",
        metric: Metric::PerSecond,
        above: hit("bare cache, 100k sessions, 1 thread"),
        below: hit(name::REDIS),
    },
    Floor {
        ratio: "hit_1m_vs_100k_sessions",
        case: "1 thread",
        what: "the bare cache",
        metric: Metric::NanosEach,
        above: hit("bare cache, 1m sessions, 1 thread"),
        below: hit("bare cache, 100k sessions, 1 thread"),
    },
    Floor {
        ratio: "pin_check_vs_clock",
        case: "100 000 pins",
        what: "one line of memory each, then the clock",
        metric: Metric::NanosEach,
        above: entry(pin::NAME, pin::CASE, pin::LINE[1]),
        below: entry(pin::NAME, pin::CASE, pin::CLOCK),
    },
    Floor {
        ratio: "pin_check_vs_clock",
        case: "1 000 000 pins",
        what: "one line of memory each, then the clock",
        metric: Metric::NanosEach,
        above: entry(pin::NAME, pin::CASE, pin::LINE[2]),
        below: entry(pin::NAME, pin::CASE, pin::CLOCK),
    },
    Floor {
        ratio: "update_vs_redis_fsync",
        case: "64 in flight",
        what: "bare batches",
        metric: Metric::PerSecond,
        above: entry("update", "64 in flight", name::BARE_BATCHES),
        below: entry("update", "64 in flight", name::REDIS_FSYNC),
    },
    Floor {
        ratio: "update_vs_redis_fsync",
        case: "256 in flight",
        what: "bare batches",
        metric: Metric::PerSecond,
        above: entry("update", "256 in flight", name::BARE_BATCHES),
        below: entry("update", "256 in flight", name::REDIS_FSYNC),
    },
    Floor {
        ratio: "create_vs_tower_sessions_sqlx",
        case: "64 in flight",
        what: "bare batches, three indices",
        metric: Metric::PerSecond,
        above: entry("create", "64 in flight", name::BARE_INSERTS),
        below: entry("create", "64 in flight", name::TOWER),
    },
];

/// What the floor below a ratio is, and its value, if there is one and it was measured.
pub(crate) fn of(outcome: &Outcome, book: &Book) -> Option<(&'static str, f64)> {
    let floor = FLOORS.iter().find(|floor| floor.ratio == outcome.name && floor.case == outcome.case)?;
    let median = |entry: Entry| {
        Some(book.find(entry.workload, entry.case, entry.contender, floor.metric)?.spread.median)
    };
    Some((floor.what, median(floor.above)? / median(floor.below)?))
}

#[cfg(test)]
mod tests {
    use super::FLOORS;
    use crate::ratios::RATIOS;

    #[test]
    fn each_floor_is_below_a_ratio() {
        for floor in FLOORS {
            assert!(
                RATIOS.iter().any(|ratio| ratio.name == floor.ratio && ratio.case == floor.case),
                "{} has no case {:?}",
                floor.ratio,
                floor.case
            );
        }
    }
}
