//! I9: memory, connections and queues stay within their bounds; and every node is trusted again soon after a fault.

use std::collections::BTreeMap;
use std::time::Duration;

use super::report::Finding;
use crate::clock::{Nanos, millis, nanos};
use crate::history::{Entry, Fault, Gauge, History, Sample, node_of};
use crate::plan::{POOL_CONNECTIONS, SLOTS, TRUST_WINDOW, WRITE_QUEUE_MAX};

/// How long a node may take to be trusted again: the intervals of two beats, the listener's longest backoff, and what a
/// busy machine takes to connect and to schedule.
const RECOVERY_MAX: Duration = Duration::from_millis(2 * TRUST_WINDOW.as_millis() as u64 / 3 + 5_000 + 1_500);

/// Memory of a node's process: a few times what it takes in peace.
const RESIDENT_KIB_MAX: u64 = 96 * 1024;
/// Queues of writes: update lanes, creates, deletes, sweeps.
const WRITE_QUEUES: usize = 5;

pub fn check(history: &History) -> Vec<Finding> {
    let mut memory = Finding::new("I9 memory", "a node's process stays below 96 MiB");
    let mut connections =
        Finding::new("I9 conns", "the nodes have no more connections than their pools and listeners");
    let mut queues = Finding::new("I9 queues", "writes and touches that wait stay within their queues");
    let mut recovery = Finding::new("recovery", "a node is trusted again within two beats and the backoff");
    let nodes = samples(history).map(|sample| sample.node as u64 + 1).max().unwrap_or(1);
    // A connection that was cut lives on in the server until it notices; as many again may be new.
    let connections_max = 2 * nodes * (POOL_CONNECTIONS as u64 + 1);
    for sample in samples(history) {
        memory.check(sample.resident_kib <= RESIDENT_KIB_MAX, || {
            format!("node {} takes {} KiB", sample.node, sample.resident_kib)
        });
        connections
            .check(sample.connections <= connections_max, || format!("{} connections", sample.connections));
    }
    for gauge in gauges(history) {
        let fits =
            gauge.writes_waiting <= WRITE_QUEUES * WRITE_QUEUE_MAX && gauge.touches_waiting <= SLOTS * 100;
        queues.check(fits, || format!("{gauge:?}"));
    }
    for Recovery { fault, node, took } in recoveries(history) {
        recovery.check(took <= nanos(RECOVERY_MAX), || {
            format!("after {fault}, node {node} was trusted only after {:.0} ms", millis(took))
        });
    }
    let mut others = Finding::new("conduct", "what the controller expected of nodes and faults came true");
    for entry in history.processes.values().flatten() {
        if let Entry::Reported { held, what } = entry {
            others.check(*held, || what.clone());
        }
    }
    vec![memory, connections, queues, recovery, others]
}

/// The highest values, and how long recovery took.
pub fn figures(history: &History) -> Vec<String> {
    let mut took: Vec<Nanos> = recoveries(history).iter().map(|recovery| recovery.took).collect();
    took.sort_unstable();
    let at =
        |percent: usize| took.get(took.len().saturating_sub(1) * percent / 100).map_or(0.0, |&n| millis(n));
    vec![
        format!(
            "at most: {} KiB of memory in a node, {} connections of all nodes, {} writes waiting, {} touches waiting",
            samples(history).map(|sample| sample.resident_kib).max().unwrap_or(0),
            samples(history).map(|sample| sample.connections).max().unwrap_or(0),
            gauges(history).map(|gauge| gauge.writes_waiting).max().unwrap_or(0),
            gauges(history).map(|gauge| gauge.touches_waiting).max().unwrap_or(0),
        ),
        format!(
            "trusted again after a fault ({} times lost): p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, at most {:.0} ms",
            took.len(),
            at(50),
            at(90),
            at(99),
            at(100)
        ),
    ]
}

/// A node that was not trusted during a fault or after it.
struct Recovery<'a> {
    fault: &'a str,
    node: u64,
    /// From the fault's end until it was trusted for good; 0 if that was before the end.
    took: Nanos,
}

fn recoveries(history: &History) -> Vec<Recovery<'_>> {
    let mut gained: BTreeMap<u64, Vec<Nanos>> = BTreeMap::new();
    for (&process, entries) in &history.processes {
        let Some(node) = node_of(process) else { continue };
        let times = gained.entry(node).or_default();
        times.extend(entries.iter().filter_map(|entry| match entry {
            Entry::Trust { at, trusted: true } => Some(*at),
            _ => None,
        }));
    }
    gained.values_mut().for_each(|times| times.sort_unstable());
    let mut recoveries = Vec::new();
    for fault in faults(history) {
        for (&node, times) in &gained {
            let last = times[..times.partition_point(|&at| at <= fault.over)].last();
            if let Some(&at) = last.filter(|&&at| at >= fault.begin) {
                recoveries.push(Recovery { fault: &fault.name, node, took: at.saturating_sub(fault.end) });
            }
        }
    }
    recoveries
}

fn samples(history: &History) -> impl Iterator<Item = &Sample> {
    history.processes.values().flatten().filter_map(|entry| match entry {
        Entry::Sample(sample) => Some(sample),
        _ => None,
    })
}

fn gauges(history: &History) -> impl Iterator<Item = &Gauge> {
    history.processes.values().flatten().filter_map(|entry| match entry {
        Entry::Gauge(gauge) => Some(gauge),
        _ => None,
    })
}

fn faults(history: &History) -> impl Iterator<Item = &Fault> {
    history.processes.values().flatten().filter_map(|entry| match entry {
        Entry::Fault(fault) => Some(fault),
        _ => None,
    })
}
