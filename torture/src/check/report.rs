//! What the checkers found, and how much they looked at.

use std::collections::BTreeMap;
use std::fmt;

use super::facts::Facts;
use crate::clock::Nanos;

/// Violations that are shown of each kind.
const SHOWN: usize = 5;

/// One promise: how often it was looked at, and where it was broken.
#[derive(Clone, Debug)]
pub struct Finding {
    pub invariant: &'static str,
    pub promise: &'static str,
    pub checked: u64,
    pub violations: u64,
    examples: Vec<String>,
}

impl Finding {
    pub fn new(invariant: &'static str, promise: &'static str) -> Self {
        Self { invariant, promise, checked: 0, violations: 0, examples: Vec::new() }
    }

    /// Looks at one case; `what` says what is wrong with it.
    pub fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.violations += 1;
            if self.examples.len() < SHOWN {
                self.examples.push(what());
            }
        }
    }

    fn join(&mut self, other: Self) {
        self.checked += other.checked;
        self.violations += other.violations;
        self.examples.extend(other.examples);
        self.examples.truncate(SHOWN);
    }
}

impl Finding {
    /// Adds what others have looked at.
    pub fn count(&mut self, checked: u64, violations: u64, what: impl FnOnce() -> String) {
        self.checked += checked;
        self.violations += violations;
        if violations > 0 && self.examples.len() < SHOWN {
            self.examples.push(what());
        }
    }
}

/// How often each fault was made, also beside another.
pub(super) fn faults_made(facts: &[Facts]) -> String {
    let mut made: BTreeMap<&str, u64> = BTreeMap::new();
    // Each part of the run knows the faults of all.
    let faults = facts.first().map(|facts| &facts.faults[..]).unwrap_or_default();
    for name in faults.iter().flat_map(|fault| fault.name.split(" + ")) {
        *made.entry(name).or_default() += 1;
    }
    let made: Vec<String> = made.iter().map(|(name, count)| format!("{name} {count}")).collect();
    format!("faults: {}", made.join(", "))
}

/// All findings of a run.
#[derive(Debug)]
pub struct Report {
    heading: String,
    pub findings: Vec<Finding>,
    notes: Vec<String>,
}

impl Report {
    pub(super) fn new(facts: &[Facts], length: Nanos) -> Self {
        let seconds = length as f64 / 1e9;
        let sum = |count: fn(&Facts) -> u64| facts.iter().map(count).sum::<u64>();
        let (operations, reads) = (sum(|facts| facts.operations), sum(|facts| facts.reads));
        let heading = format!(
            "{} operations in {seconds:.0} s ({:.0}/s): {} reads ({} from memory), {} changes; {} operations failed; {} faults",
            operations,
            operations as f64 / seconds.max(1.0),
            reads,
            sum(|facts| facts.cached),
            operations - reads,
            sum(|facts| facts.failed),
            facts.first().map_or(0, |facts| facts.faults.len()),
        );
        Self { heading, findings: Vec::new(), notes: Vec::new() }
    }

    /// Adds findings; those of one promise in several parts of a run become one.
    pub(super) fn add(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            let same = |before: &&mut Finding| {
                (before.invariant, before.promise) == (finding.invariant, finding.promise)
            };
            match self.findings.iter_mut().find(same) {
                Some(before) => before.join(finding),
                None => self.findings.push(finding),
            }
        }
    }

    pub(super) fn note(&mut self, notes: Vec<String>) {
        self.notes.extend(notes);
    }

    /// Whether nothing was broken.
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.violations == 0)
    }

    /// Whether `invariant` was seen to be broken.
    pub fn breaks(&self, invariant: &str) -> bool {
        self.findings.iter().any(|finding| finding.invariant == invariant && finding.violations > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.heading)?;
        writeln!(f, "{:<9} {:<66} {:>9} {:>10}  95 % bound", "", "promise", "checked", "violations")?;
        for Finding { invariant, promise, checked, violations, examples } in &self.findings {
            let bound = match (violations, checked) {
                (_, 0) => "not looked at".to_owned(),
                // The rule of three: after n cases without one, the rate is below 3/n in 95 of 100 such runs.
                (0, n) => format!("< {:.1e}", 3.0 / *n as f64),
                _ => "BROKEN".to_owned(),
            };
            writeln!(f, "{invariant:<9} {promise:<66} {checked:>9} {violations:>10}  {bound}")?;
            for example in examples {
                writeln!(f, "          - {example}")?;
            }
        }
        writeln!(f)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}
