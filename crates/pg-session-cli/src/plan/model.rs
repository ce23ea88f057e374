//! From what was measured to the limits of a load.

/// Writes that one statement of a node combines at most: the default of `write_batch_max`.
const BATCH: f64 = 512.0;
/// Beats of each node in a second: four in each trust window of 6 s. They flush nothing.
const BEATS: f64 = 4.0 / 6.0;
/// What a commit holds the lock of commits that notify for, beside its flush.
const COMMIT: f64 = 20e-6;
/// The least work of a server for a statement, beside its rows.
const STATEMENT: f64 = 50e-6;

/// A share that no load falls below, so that its multiple is a number.
const USED_MIN: f64 = 1e-9;

/// In seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) round_trip: f64,
    pub(super) flush: f64,
    /// Of each further row in a batch.
    pub(super) row: f64,
    /// Of each node and notification.
    pub(super) listener: f64,
}

/// What is planned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) nodes: f64,
    /// Per second, of all nodes.
    pub(super) writes: f64,
    pub(super) pool: f64,
    pub(super) max_connections: f64,
    pub(super) cores: f64,
}

/// What a load uses of a resource.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    pub(super) name: &'static str,
    /// The share that the load uses. 1.0 is all.
    pub(super) used: f64,
    pub(super) meaning: String,
}

impl Limit {
    /// How many times the load reaches it.
    pub(super) fn load_factor(&self) -> f64 {
        1.0 / self.used.max(USED_MIN)
    }
}

/// The limits that the load meets.
pub(super) fn limits(measured: Measured, load: Load) -> Vec<Limit> {
    let held = measured.flush + COMMIT;
    let commits = commits(measured, load);
    let deliveries = commits * load.nodes + BEATS * load.nodes;
    let rows = load.writes * measured.row;
    let busy = rows + commits * STATEMENT + deliveries * measured.listener + BEATS * load.nodes * STATEMENT;
    let connections = load.nodes * (load.pool + 1.0);
    vec![
        Limit {
            name: "single commits",
            used: load.writes * held,
            meaning: format!(
                "all nodes together commit {:.0} times a second; from there on a node combines writes, and each waits up to {:.1} ms",
                1.0 / held,
                load.nodes * held * 1e3
            ),
        },
        Limit {
            name: "combined commits",
            used: load.writes * held / BATCH,
            meaning: format!("with full batches, {:.0} writes a second", BATCH / held),
        },
        Limit {
            name: "server cores",
            used: busy / load.cores,
            meaning: format!(
                "{:.2} of {} cores; {:.2} for notifications",
                busy,
                load.cores,
                deliveries * measured.listener
            ),
        },
        Limit {
            name: "connections",
            used: connections / load.max_connections,
            meaning: format!("{connections:.0} of {:.0}; leave room for others", load.max_connections),
        },
    ]
}

/// Commits a second. Above what the lock allows, writes share commits.
fn commits(measured: Measured, load: Load) -> f64 {
    load.writes.min(1.0 / (measured.flush + COMMIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURED: Measured = Measured { round_trip: 1e-4, flush: 4e-3 - COMMIT, row: 2e-5, listener: 1e-5 };
    const LOAD: Load = Load { nodes: 10.0, writes: 125.0, pool: 8.0, max_connections: 100.0, cores: 2.0 };

    fn used(measured: Measured, load: Load) -> Vec<(&'static str, f64)> {
        limits(measured, load).iter().map(|limit| (limit.name, (limit.used * 1e4).round() / 1e4)).collect()
    }

    #[test]
    fn a_slow_flush_limits_commits_before_all_else() {
        let expected = [
            ("single commits", 0.5),
            ("combined commits", 0.001),
            // Rows 0.0025, statements 0.00625, deliveries 1 257 * 0.00001, beats 0.00033.
            ("server cores", 0.0108),
            ("connections", 0.9),
        ];
        assert_eq!(used(MEASURED, LOAD), expected);
    }

    #[test]
    fn deliveries_grow_with_nodes_and_commits_up_to_the_lock() {
        let many = Load { nodes: 1_000.0, writes: 100_000.0, ..LOAD };
        let limits = limits(MEASURED, many);
        // At most 250 commits a second, for 1 000 nodes: 2.5 cores. Their beats add 0.007 and 0.033.
        assert!(limits[2].meaning.starts_with("4.5"), "{limits:?}");
        assert!((limits[0].load_factor() - 0.0025).abs() < 1e-6);
    }
}
