//! [`Metrics`]: the numbers of a node for monitoring, from one table.
//!
//! A name has the base unit, and `_total` if it counts. No metric has a label: ids, users and groups must not get into a
//! monitoring system.

use std::fmt;
use std::time::Duration;

use super::SessionManager;
use super::status::Status;
use crate::config::Config;

/// One number of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// The name in Prometheus, like `pg_session_cache_hits_total`.
    pub name: &'static str,
    /// Whether the number counts since the start of the node.
    pub kind: MetricKind,
    /// The base unit: `seconds`, `bytes`, or what is counted.
    pub unit: &'static str,
    /// What the number says, as a sentence.
    pub help: &'static str,
    /// The number.
    pub value: f64,
}

/// The kind of a [`Metric`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// Grows from 0 at the start of the node.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        })
    }
}

/// All numbers of a node at one moment. `Display` is Prometheus' text format.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics(Vec<Metric>);

impl Metrics {
    /// The content type of the text.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// The numbers, in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Metric> {
        self.0.iter()
    }
}

#[cfg(feature = "metrics")]
impl Metrics {
    /// Hands the numbers to the recorder of the facade `metrics`. Call it before each export, at the moment of the numbers.
    ///
    /// ```no_run
    /// # fn f(sessions: &pg_session::SessionManager) {
    /// sessions.metrics().record();
    /// # }
    /// ```
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a counter is whole and not negative"
    )]
    pub fn record(&self) {
        for &Metric { name, kind, unit, help, value } in self {
            let unit = match unit {
                "seconds" => metrics::Unit::Seconds,
                "bytes" => metrics::Unit::Bytes,
                _ => metrics::Unit::Count,
            };
            match kind {
                MetricKind::Counter => {
                    metrics::describe_counter!(name, unit, help);
                    metrics::counter!(name).absolute(value as u64);
                }
                MetricKind::Gauge => {
                    metrics::describe_gauge!(name, unit, help);
                    metrics::gauge!(name).set(value);
                }
            }
        }
    }
}

impl<'a> IntoIterator for &'a Metrics {
    type Item = &'a Metric;
    type IntoIter = std::slice::Iter<'a, Metric>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Metric { name, kind, help, value, .. } in self {
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")?;
        }
        Ok(())
    }
}

impl SessionManager {
    /// The numbers of this node for a monitoring system. Costs no query, whatever the number of cached sessions.
    ///
    /// ```no_run
    /// # fn f(sessions: &pg_session::SessionManager) {
    /// let body = sessions.metrics().to_string(); // the answer to GET /metrics
    /// let content_type = pg_session::Metrics::CONTENT_TYPE;
    /// # }
    /// ```
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let reading = Reading { status: self.status(), config: self.config() };
        let metric = |row: &Row| Metric {
            name: row.name,
            kind: row.kind,
            unit: row.unit,
            help: row.help,
            value: (row.value)(&reading),
        };
        Metrics(TABLE.iter().map(metric).collect())
    }
}

struct Reading<'a> {
    status: Status,
    config: &'a Config,
}

struct Row {
    name: &'static str,
    kind: MetricKind,
    unit: &'static str,
    help: &'static str,
    value: fn(&Reading<'_>) -> f64,
}

/// One line for the number and one for its help. Prometheus has floating-point numbers only: they are exact up to 2^53.
macro_rules! table {
    (|$reading:ident| $($kind:ident $name:literal in $unit:literal, $value:expr, $help:literal;)*) => {
        &[$(Row {
            name: $name,
            kind: table!($kind),
            unit: $unit,
            help: $help,
            value: |$reading| $value,
        }),*]
    };
    (counter) => { MetricKind::Counter };
    (gauge) => { MetricKind::Gauge };
}

const TABLE: &[Row] = table! { |r|
    gauge "pg_session_trusted" in "nodes", f64::from(u8::from(r.status.trusted_for.is_some())),
        "Whether the node answers from memory: 1 or 0.";
    gauge "pg_session_trust_remaining_seconds" in "seconds", r.status.trusted_for.map_or(0.0, |left| left.as_secs_f64()),
        "How long the node may answer from memory without a further proof.";
    gauge "pg_session_trust_window_seconds" in "seconds", Duration::as_secs_f64(&r.config.trust_window),
        "The setting trust_window.";
    counter "pg_session_cache_hits_total" in "reads", r.status.cache.hits as f64,
        "Reads that were answered from memory.";
    counter "pg_session_cache_misses_total" in "reads", r.status.cache.misses as f64,
        "Reads that needed the database.";
    counter "pg_session_cache_ended_total" in "reads", r.status.cache.ended as f64,
        "Reads of sessions that the node remembers as ended, without a query.";
    counter "pg_session_cache_fills_total" in "sessions", r.status.cache.fills as f64,
        "Sessions that were put into memory.";
    counter "pg_session_cache_rejected_fills_total" in "sessions", r.status.cache.rejected_fills as f64,
        "Sessions that were not put into memory, because an invalidation or a lost connection came between.";
    counter "pg_session_cache_invalidations_total" in "invalidations", r.status.cache.invalidations as f64,
        "Invalidations that the node has handled.";
    gauge "pg_session_cache_sessions" in "sessions", r.status.cache.sessions as f64,
        "Sessions in memory.";
    gauge "pg_session_cache_limit_sessions" in "sessions", r.config.cache_sessions_max as f64,
        "The setting cache_sessions_max.";
    gauge "pg_session_cache_bytes" in "bytes", r.status.cache.bytes as f64,
        "Bytes that the sessions in memory count for.";
    gauge "pg_session_cache_limit_bytes" in "bytes", r.config.cache_bytes() as f64,
        "The most bytes that the sessions in memory may count for: the setting cache_bytes_max.";
    counter "pg_session_loaded_sessions_total" in "sessions", r.status.loads.sessions as f64,
        "Sessions that the database was asked for.";
    counter "pg_session_load_statements_total" in "statements", r.status.loads.statements as f64,
        "Statements that asked the database for sessions.";
    counter "pg_session_lost_versions_total" in "reads", r.status.loads.lost_versions as f64,
        "Reads that asked for a version which the database has lost.";
    counter "pg_session_updates_total" in "updates", r.status.writes.updates as f64,
        "Updates that were committed.";
    counter "pg_session_update_statements_total" in "statements", r.status.writes.update_statements as f64,
        "Statements that carried the updates.";
    counter "pg_session_creates_total" in "sessions", r.status.writes.creates as f64,
        "Sessions that were created.";
    counter "pg_session_create_statements_total" in "statements", r.status.writes.create_statements as f64,
        "Statements that carried the creates.";
    counter "pg_session_rotations_total" in "rotations", r.status.writes.rotations as f64,
        "Sessions that were rotated.";
    counter "pg_session_rotation_statements_total" in "statements", r.status.writes.rotation_statements as f64,
        "Statements that carried the rotations.";
    counter "pg_session_evictions_total" in "sessions", r.status.writes.evictions as f64,
        "Sessions that logins ended to keep sessions_per_user_max.";
    gauge "pg_session_writes_waiting" in "writes", r.status.writes.waiting as f64,
        "Writes that wait for a statement.";
    gauge "pg_session_write_queue_limit" in "writes", r.config.write_queue_max as f64,
        "Writes of one kind that may wait: the setting write_queue_max.";
    gauge "pg_session_touches_waiting" in "sessions", r.status.touches_waiting as f64,
        "Sessions whose last access waits to be written.";
    counter "pg_session_touch_failures_total" in "flushes", r.status.touch_failures as f64,
        "Flushes of last accesses that failed.";
    gauge "pg_session_locks" in "locks", r.status.locks as f64,
        "Locks that the node holds, waits for, or gives back.";
    counter "pg_session_observer_compared_total" in "reads", r.status.observer.compared as f64,
        "Reads answered from memory that were compared with the database afterwards.";
    counter "pg_session_observer_stale_total" in "reads", r.status.observer.stale as f64,
        "Reads answered from memory with a state older than the promise allows. This must stay 0.";
    counter "pg_session_observer_skipped_total" in "reads", r.status.observer.skipped as f64,
        "Reads that were to be compared and were not: too many waited, or the database did not answer.";
    gauge "pg_session_pins" in "sessions", r.status.pins as f64,
        "Sessions that are pinned on the node.";
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_have_the_prefix_base_unit_and_total() {
        let mut names = BTreeSet::new();
        for Row { name, kind, unit, help, .. } in TABLE {
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("pg_session_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            for base in ["seconds", "bytes"] {
                assert_eq!(name.ends_with(base), *unit == base, "{name} in {unit}");
            }
            for other in ["millis", "_ms", "micros", "kilo", "percent", "minutes"] {
                assert!(!name.contains(other), "{name} is not in a base unit");
            }
            // A backslash or a line break would need an escape.
            assert!(help.ends_with('.') && !help.contains(['\\', '\n']), "{name}: {help}");
        }
    }
}
