//! The checkers: what a history shows of the invariants. Each is a function of the history and nothing else; each is
//! shown to see what it looks for in histories made by hand.
//!
//! - [`coherence`]: I1 and I3 (nothing stale beyond the window), I2 (never backwards), I4 (nothing revived).
//! - [`durability`]: I5 (nothing lost, nothing twice), I6 (row and attributes of one version), I7 (the cap).
//! - [`places`]: I4 and I6 of an attribute that moves between the places that the database has for it.
//! - [`pins`]: no pin says longer than the window that an ended session lives, and none ends without its session.
//! - [`rollback`]: no notification names a change in SQL that was rolled back.
//! - [`locks`]: I8 (fences, exclusion).
//! - [`bounds`]: I9 (memory, connections, queues) and the time to recover.
//!
//! I1 cannot be seen from outside but by its consequence: an entry older than an invalidation that was handled is
//! served beyond the window.

mod bounds;
mod coherence;
mod durability;
mod facts;
mod locks;
mod pins;
mod places;
mod report;
mod rollback;
#[cfg(test)]
mod tests;

pub use self::report::Report;
use crate::clock::Nanos;
use crate::history::History;
use facts::Facts;

/// Everything, over a run that took `length`.
pub fn all(history: History, length: Nanos) -> Report {
    let others = [
        locks::check(&history),
        bounds::check(&history),
        vec![pins::observed(&history), rollback::check(&history)],
    ]
    .concat();
    let mut figures = bounds::figures(&history);
    figures.push(rollback::figures(&history));
    let (mut facts, mut findings, mut of_pins) = (Vec::new(), Vec::new(), Vec::new());
    for epoch in history.epochs() {
        let found = Facts::of(&epoch, &facts);
        let tables = &epoch.history.tables;
        findings.extend(
            [coherence::check(&found), durability::check(&found, tables), places::check(&found, tables)]
                .concat(),
        );
        findings.extend(pins::check(&found, &epoch.history));
        of_pins.push(pins::figures(&found, &epoch.history));
        facts.push(found);
    }
    findings.extend(others);
    let mut report = Report::new(&facts, length);
    report.add(findings);
    report.note(vec![report::faults_made(&facts)]);
    report.note(coherence::propagation(&facts));
    report.note(vec![coherence::rotations(&facts), coherence::everywhere(&facts)]);
    report.note(of_pins);
    report.note(figures);
    report
}
