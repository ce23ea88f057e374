//! What is measured in this run, and for how long: everything, what the ratios need, or what was asked for.

use std::time::Duration;

use anyhow::bail;

use crate::names::WORKLOADS;
use crate::ratios::{Entry, RATIOS};

/// The run's scope and scale.
#[derive(Debug)]
pub(crate) struct Plan {
    scope: Scope,
    pub(crate) quick: bool,
    /// Times that each contender has its turn; the medians are over these.
    pub(crate) rounds: usize,
    /// How long a turn lasts.
    pub(crate) turn: Duration,
    /// The turn before the first round, which is not counted.
    pub(crate) warm_up: Duration,
}

#[derive(Debug)]
enum Scope {
    All,
    /// The workloads by name, and what these ratios compare.
    Only {
        workloads: Vec<&'static str>,
        entries: Vec<Entry>,
    },
}

impl Plan {
    /// # Errors
    /// If a name is neither a ratio's nor a workload's.
    pub(crate) fn new(quick: bool, only: &[String]) -> anyhow::Result<Self> {
        let scope = match (only, quick) {
            ([], false) => Scope::All,
            ([], true) => Scope::Only { workloads: Vec::new(), entries: entries_of(|_| true) },
            (names, _) => scope_of(names)?,
        };
        let (rounds, turn, warm_up) = if quick { (3, 300, 200) } else { (5, 500, 300) };
        Ok(Self {
            scope,
            quick,
            rounds,
            turn: Duration::from_millis(turn),
            warm_up: Duration::from_millis(warm_up),
        })
    }

    pub(crate) fn is_partial(&self) -> bool {
        matches!(self.scope, Scope::Only { .. })
    }

    /// Whether this contender has a turn in this case.
    pub(crate) fn wants(&self, workload: &str, case: &str, contender: &str) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Only { workloads, entries } => {
                workloads.contains(&workload)
                    || entries.iter().any(|entry| entry.is(workload, case, contender))
            }
        }
    }

    /// Whether this contender has a turn in any case of the workload.
    pub(crate) fn wants_contender(&self, workload: &str, contender: &str) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Only { workloads, entries } => {
                workloads.contains(&workload)
                    || entries.iter().any(|entry| entry.workload == workload && entry.contender == contender)
            }
        }
    }

    /// Whether anything of this workload is measured.
    pub(crate) fn wants_workload(&self, workload: &str) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Only { workloads, entries } => {
                workloads.contains(&workload) || entries.iter().any(|entry| entry.workload == workload)
            }
        }
    }
}

fn entries_of(wanted: impl Fn(&str) -> bool) -> Vec<Entry> {
    let ratios = RATIOS.iter().filter(|ratio| wanted(ratio.name));
    ratios.flat_map(|ratio| ratio.above.iter().chain(ratio.below)).copied().collect()
}

fn scope_of(names: &[String]) -> anyhow::Result<Scope> {
    let mut workloads = Vec::new();
    let mut entries = Vec::new();
    for name in names {
        let workload = WORKLOADS.iter().find(|workload| *workload == name);
        let of_ratio = entries_of(|ratio| ratio == name);
        if workload.is_none() && of_ratio.is_empty() {
            bail!("no ratio and no workload is called {name}; --list shows those that there are");
        }
        workloads.extend(workload);
        entries.extend(of_ratio);
    }
    Ok(Scope::Only { workloads, entries })
}

/// Prints every name that `--only` takes.
pub(crate) fn list() {
    println!("workloads: {}", WORKLOADS.join(" "));
    let mut names: Vec<&str> = RATIOS.iter().map(|ratio| ratio.name).collect();
    names.dedup();
    println!("ratios: {}", names.join(" "));
}
