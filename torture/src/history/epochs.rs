//! A run whose database lost commits is several runs, one after the other: each has its own state of the database.

use std::collections::{HashMap, HashSet};

use super::{Entry, History, Rewound, Row, Tables};
use crate::clock::Nanos;

/// A part of the run in which no commit was lost.
#[derive(Debug)]
pub struct Epoch {
    /// What was asked and answered in it. A change that began before it has no answer.
    pub history: History,
    /// Since when it lasts, and the sessions that it began with; `None` for the first.
    pub begin: Option<(Nanos, Vec<Row>)>,
}

impl History {
    /// The run in parts, the first one first.
    pub fn epochs(self) -> Vec<Epoch> {
        let mut rewound: Vec<Rewound> = Vec::new();
        for entry in self.processes.values().flatten() {
            if let Entry::Rewound(found) = entry {
                rewound.push((**found).clone());
            }
        }
        if rewound.is_empty() {
            return vec![Epoch { history: self, begin: None }];
        }
        rewound.sort_by_key(|rewound| rewound.from);
        let mut tables = self.tables;
        let mut epochs = Vec::new();
        let mut until = Nanos::MAX;
        for Rewound { from, to, lost, before, after, last } in rewound.into_iter().rev() {
            // All writes that this part inherited, and then those that it lost.
            let inherited = tables.writes.iter().filter(|write| write.n <= last);
            let writes = inherited.copied().chain(lost).collect();
            let earlier = Tables { writes, sessions: before, accepted: Vec::new() };
            let tables = std::mem::replace(&mut tables, earlier);
            let processes = part(&self.processes, to, until);
            epochs.push(Epoch { history: History { processes, tables }, begin: Some((to, after)) });
            until = from;
        }
        let processes = part(&self.processes, 0, until);
        epochs.push(Epoch { history: History { processes, tables }, begin: None });
        epochs.reverse();
        epochs
    }
}

type Processes = HashMap<u64, Vec<Entry>>;

/// What happened between two times.
fn part(processes: &Processes, begin: Nanos, end: Nanos) -> Processes {
    let mut parts = Processes::new();
    for (&process, entries) in processes {
        let mut asked = HashSet::new();
        let part = entries.iter().filter(|entry| match entry {
            Entry::Read(read) => begin <= read.from && read.to <= end,
            // An earlier change may have been committed in this part.
            Entry::Intent(intent) => {
                if begin <= intent.at {
                    asked.insert(intent.op);
                }
                intent.at <= end
            }
            Entry::Answer(answer) => asked.contains(&answer.op) && answer.at <= end,
            Entry::Everywhere { op, .. } => asked.contains(op),
            Entry::Pinned(pinned) => {
                let last = pinned.ended.as_ref().map_or(pinned.alive, |(at, _)| *at);
                begin <= pinned.alive && last <= end
            }
            // They have no time, and none is needed.
            Entry::Listed(_) => begin == 0,
            Entry::Fault(_) | Entry::KilledInGap { .. } | Entry::Wall { .. } => true,
            _ => false,
        });
        parts.insert(process, part.cloned().collect());
    }
    parts
}
