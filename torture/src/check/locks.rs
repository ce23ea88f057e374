//! I8: fences grow from holder to holder, and no two hold one lock at once. The resource never takes a write of an
//! overtaken holder.

use std::collections::HashMap;

use super::report::Finding;
use crate::clock::Nanos;
use crate::history::{Entry, History, Op, Taken};

/// A holder: from the end of the acquisition to the last moment at which its guard said that it holds.
struct Holding<'a> {
    taken: &'a Taken,
    held_until: Nanos,
}

pub fn check(history: &History) -> Vec<Finding> {
    let mut fences = Finding::new("I8", "the next holder of a lock has a higher fence");
    let mut alone = Finding::new("I8 alone", "no two guards of a lock say at one time that they hold it");
    let rewound: Vec<Nanos> = rewound(history).collect();
    for holdings in by_lock(history).values() {
        for pair in holdings.windows(2) {
            let [before, after] = pair else { continue };
            // Those that overlap may have been granted in either order.
            if before.taken.to < after.taken.from {
                fences.check(after.taken.fence > before.taken.fence, || {
                    format!("fence {} after {}", after.taken.fence, before.taken.fence)
                });
            }
        }
        // Sorted by the end of the acquisition, it is enough to look at the latest end so far.
        let mut latest: Option<&Holding<'_>> = None;
        for holding in holdings {
            if let Some(before) = latest {
                // A lock that was lost with its commit may be taken again; its fence is what counts.
                let is_lost = rewound.iter().any(|&at| before.taken.to < at && at < holding.taken.to);
                alone.check(is_lost || before.held_until <= holding.taken.to, || {
                    format!(
                        "operations {:x} and {:x} held lock {}",
                        before.taken.op, holding.taken.op, holding.taken.name
                    )
                });
            }
            if latest.is_none_or(|before| before.held_until < holding.held_until) {
                latest = Some(holding);
            }
        }
    }
    vec![fences, alone, accepted(history)]
}

/// When the database lost commits.
fn rewound(history: &History) -> impl Iterator<Item = Nanos> {
    history.processes.values().flatten().filter_map(|entry| match entry {
        Entry::Rewound(rewound) => Some(rewound.to),
        _ => None,
    })
}

fn by_lock(history: &History) -> HashMap<u64, Vec<Holding<'_>>> {
    let mut locks: HashMap<u64, Vec<Holding<'_>>> = HashMap::new();
    let mut held: HashMap<Op, Nanos> = HashMap::new();
    for entry in history.processes.values().flatten() {
        if let Entry::Held { op, at } = entry {
            let latest = held.entry(*op).or_default();
            *latest = (*at).max(*latest);
        }
    }
    for entry in history.processes.values().flatten() {
        if let Entry::Taken(taken) = entry {
            let held_until = held.get(&taken.op).copied().unwrap_or(taken.to);
            locks.entry(taken.name).or_default().push(Holding { taken, held_until });
        }
    }
    for holdings in locks.values_mut() {
        holdings.sort_by_key(|holding| holding.taken.to);
    }
    locks
}

/// A write is accepted with a fence as high as the highest before. The same fence is only the same holder's.
fn accepted(history: &History) -> Finding {
    let mut finding = Finding::new("I8 used", "a resource accepts no write of a holder who was overtaken");
    let mut highest: HashMap<u64, (i64, Op)> = HashMap::new();
    for &(name, fence, op) in &history.tables.accepted {
        let before = highest.insert(name, (fence, op));
        if let Some((fence_before, op_before)) = before {
            let is_next = fence > fence_before || (fence == fence_before && op == op_before);
            finding.check(is_next, || {
                format!(
                    "lock {name}: holder {op:x} with fence {fence} after {op_before:x} with {fence_before}"
                )
            });
        }
    }
    finding
}
