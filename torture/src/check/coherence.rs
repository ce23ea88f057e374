//! I1-I4: what a read may show, given what was known before it began.
//!
//! A version is known once it was acknowledged to a writer or shown to a reader: then it is committed. A read that
//! begins at `t` must show at least what any node knew before `t - window`. It must show what its own node knew before
//! `t`.

use std::collections::HashMap;
use std::time::Duration;

use super::facts::{CLOCK_SLACK, Facts, GONE, Kind, Look, Story};
use super::report::Finding;
use crate::clock::{Nanos, millis, nanos};
use crate::plan::TRUST_WINDOW;

pub fn check(facts: &Facts) -> Vec<Finding> {
    let window = nanos(TRUST_WINDOW);
    let mut stale = Finding::new("I3", "a read shows what was known a trust window before it began");
    let mut cached = Finding::new("I3 hits", "the same, of those answered from memory");
    let mut own = Finding::new("I2", "on one node, a read shows what was known there before it began");
    let mut at_least = Finding::new("I3 cookie", "a read shows at least the version that it asked for");
    let mut revived = Finding::new("I4", "what has ended is not seen again: deleted, revoked, expired");
    let mut elevated = Finding::new("I4 attr", "an attribute is not seen past its own end");
    let mut old_ids = Finding::new("I4 ids", "a retired id says so, and is rotated once");
    let mut everywhere = Finding::new("everywhere", "after its return no node shows the old state");
    let mut ended = Finding::new("I4 write", "what has ended or was rotated is not changed any more");
    for story in facts.sessions.values() {
        for (look, known) in sweep(&story.looks.iter().collect::<Vec<_>>(), |look| look.known + window) {
            if known == GONE {
                revived.check(look.version == GONE, || shown(look, "it was gone a window before"));
            } else {
                stale.check(look.version >= known, || {
                    shown(look, &format!("{known} was known a window before"))
                });
                if matches!(look.kind, Kind::Read { cached: true, .. }) {
                    cached.check(look.version >= known, || shown(look, "see above"));
                }
            }
        }
        for looks in by_process(story) {
            for (look, known) in sweep(&looks, |look| look.to) {
                let what = || shown(look, &format!("its node knew {}", name(known)));
                if known == GONE {
                    revived.check(look.version == GONE, what);
                } else {
                    own.check(look.version >= known, what);
                }
            }
        }
        for look in &story.looks {
            if let Kind::Read { at_least: asked, .. } = look.kind
                && asked > 0
                && (facts.since.is_none() || is_known(story, look, asked))
            {
                at_least.check(look.version >= asked, || shown(look, &format!("{asked} was asked for")));
            }
            ends(facts, look, &mut revived, &mut elevated);
        }
        after_everywhere(story, &mut everywhere);
        rotated(story, &mut old_ids);
        changed(story, &mut ended);
    }
    vec![stale, cached, own, at_least, revived, elevated, old_ids, everywhere, returns(facts), ended]
}

/// How late `everywhere()` may return: the trust window, the allowance for clocks that drift, and what a busy machine takes
/// to schedule.
const EVERYWHERE_MAX: Duration = Duration::from_millis(TRUST_WINDOW.as_millis() as u64 * 1_001 / 1_000 + 250);

/// A stopped process returns nothing, so such time does not count.
fn returns(facts: &Facts) -> Finding {
    let mut finding =
        Finding::new("everywhere time", "everywhere() returns within the trust window and 250 ms");
    let stops: Vec<_> = facts.faults.iter().filter(|fault| fault.name.contains("node-stop")).collect();
    for doing in facts.doings.values() {
        let (Some(took), Some((to, _))) = (doing.everywhere, &doing.answer) else { continue };
        let from = to.saturating_sub(took);
        let stopped: Nanos =
            stops.iter().map(|stop| stop.end.min(*to).saturating_sub(stop.begin.max(from))).sum();
        finding.check(took.saturating_sub(stopped) <= nanos(EVERYWHERE_MAX), || {
            format!("it took {:.0} ms, until {:.3} s", millis(took), millis(*to) / 1e3)
        });
    }
    finding
}

/// Whether a version was shown before, so that it is not one that the database has lost.
fn is_known(story: &Story, look: &Look, version: i64) -> bool {
    story.looks.iter().any(|before| before.version == version && before.to <= look.from)
}

/// No window is allowed for.
fn after_everywhere(story: &Story, finding: &mut Finding) {
    for call in &story.everywhere {
        let known = story.looks.iter().filter(|look| look.to < call.known_before).map(|look| look.version);
        let Some(newest) = known.max() else { continue };
        let reads = story.looks.iter().filter(|look| matches!(look.kind, Kind::Read { .. }));
        for look in reads.filter(|look| look.from > call.returned) {
            finding.check(look.version >= newest, || {
                let returned = millis(call.returned) / 1e3;
                shown(
                    look,
                    &format!("{} was known, and everywhere() had returned at {returned:.3} s", name(newest)),
                )
            });
        }
    }
}

/// Of an id that was rotated, versions up to its last are the session. The version after it is the retired id.
fn rotated(story: &Story, finding: &mut Finding) {
    let Some(rotation) = story.rotations.first() else { return };
    finding
        .check(story.rotations.len() == 1, || format!("an id was rotated {} times", story.rotations.len()));
    for look in &story.looks {
        let (Some(seen), Kind::Read { .. }) = (look.seen, look.kind) else { continue };
        let is_left = seen.version >= rotation.version;
        finding.check(seen.rotated == is_left, || {
            shown(look, &format!("it was rotated with version {}: {seen:?}", rotation.version))
        });
    }
}

/// The database decides about changes, so no window is allowed for.
fn changed(story: &Story, finding: &mut Finding) {
    let gone = story.looks.iter().filter(|look| look.version == GONE).map(|look| look.to);
    let Some(end) = gone.chain(story.rotations.iter().map(|rotation| rotation.to)).min() else { return };
    let is_change =
        |look: &&Look| look.kind == Kind::Wrote || look.kind == Kind::Change && look.seen.is_some();
    for look in story.looks.iter().filter(is_change) {
        finding.check(look.from <= end, || {
            format!(
                "process {:x} at {:.3} s: a change was made after it",
                look.process,
                millis(look.from) / 1e3
            )
        });
    }
}

/// By the database's clock, which is the machine's: nothing that is read shows its end behind the read's beginning.
fn ends(facts: &Facts, look: &Look, session: &mut Finding, attribute: &mut Finding) {
    let (Some(seen), Some((ahead, _)), Kind::Read { .. }) = (look.seen, facts.wall_ahead, look.kind) else {
        return;
    };
    // The earliest that it can have been on the wall's clock.
    let began = i128::from(look.from) + ahead - CLOCK_SLACK;
    let late = |end: Nanos| format!("{:.1} ms after its end", (began - i128::from(end)) as f64 / 1e6);
    session.check(began < i128::from(seen.ends), || shown(look, &late(seen.ends)));
    if let Some(end) = seen.elevated_until {
        attribute.check(began < i128::from(end), || shown(look, &late(end)));
    }
}

/// Each read with the newest version that has to be known since before it began; reads before that are left out.
fn sweep<'a>(looks: &[&'a Look], since: impl Fn(&Look) -> Nanos) -> Vec<(&'a Look, i64)> {
    let mut known: Vec<(Nanos, i64)> = looks.iter().map(|look| (since(look), look.version)).collect();
    known.sort_unstable();
    let (mut next, mut newest) = (0, 0);
    let mut pairs = Vec::new();
    // Sorted by their beginnings.
    for look in looks {
        while let Some(&(since, version)) = known.get(next)
            && since < look.from
        {
            newest = newest.max(version);
            next += 1;
        }
        if newest > 0 && matches!(look.kind, Kind::Read { .. }) {
            pairs.push((*look, newest));
        }
    }
    pairs
}

fn by_process(story: &Story) -> impl Iterator<Item = Vec<&Look>> {
    let mut processes: HashMap<u64, Vec<&Look>> = HashMap::new();
    for look in &story.looks {
        processes.entry(look.process).or_default().push(look);
    }
    processes.into_values()
}

pub(super) fn shown(look: &Look, but: &str) -> String {
    format!(
        "process {:x} at {:.3} s: a read ({:?}) showed {}, but {but}",
        look.process,
        millis(look.from) / 1e3,
        look.kind,
        name(look.version)
    )
}

fn name(version: i64) -> String {
    if version == GONE { "none".to_owned() } else { format!("version {version}") }
}

/// How far behind the reads were: for each read that did not show an acknowledged version, since when it could have.
pub fn propagation(parts: &[Facts]) -> Vec<String> {
    let (mut calm, mut disturbed) = (Vec::new(), Vec::new());
    let (mut calm_reads, mut disturbed_reads) = (0_u64, 0_u64);
    for (facts, story) in
        parts.iter().flat_map(|facts| facts.sessions.values().map(move |story| (facts, story)))
    {
        let mut known: Vec<(Nanos, i64)> = story.looks.iter().map(|look| (look.to, look.version)).collect();
        known.sort_unstable();
        // The first time that each newest version was known.
        let mut firsts: Vec<(Nanos, i64)> = Vec::new();
        for (to, version) in known {
            if firsts.last().is_none_or(|&(_, newest)| version > newest) {
                firsts.push((to, version));
            }
        }
        for look in story.looks.iter().filter(|look| matches!(look.kind, Kind::Read { .. })) {
            let in_a_fault = disturbance(facts, look.from);
            *(if in_a_fault { &mut disturbed_reads } else { &mut calm_reads }) += 1;
            let missed = firsts.partition_point(|&(_, version)| version <= look.version);
            let Some(&(since, _)) = firsts.get(missed).filter(|(since, _)| *since < look.from) else {
                continue;
            };
            (if in_a_fault { &mut disturbed } else { &mut calm }).push(look.from - since);
        }
    }
    vec![
        distribution("staleness of reads without a fault", &mut calm, calm_reads),
        distribution("staleness of reads during faults   ", &mut disturbed, disturbed_reads),
    ]
}

/// How long the calls of `everywhere()` took.
pub fn everywhere(facts: &[Facts]) -> String {
    let doings = facts.iter().flat_map(|facts| facts.doings.values());
    let mut took: Vec<Nanos> = doings.filter_map(|doing| doing.everywhere).collect();
    took.sort_unstable();
    let at =
        |percent: usize| millis(took.get(took.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0));
    format!(
        "{} calls of everywhere(): {} answers of nodes, {} without; took p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms",
        took.len(),
        facts.iter().map(|facts| facts.acknowledged).sum::<usize>(),
        facts.iter().map(|facts| facts.lapsed).sum::<usize>(),
        at(50),
        at(99),
        at(100)
    )
}

/// How much there was to see of old ids.
pub fn rotations(facts: &[Facts]) -> String {
    let stories = || facts.iter().flat_map(|facts| facts.sessions.values());
    let rotations: usize = stories().map(|story| story.rotations.len()).sum();
    let looks = stories().flat_map(|story| &story.looks);
    let left = looks.filter(|look| look.seen.is_some_and(|seen| seen.rotated)).count();
    format!("{rotations} rotations; {left} reads showed what one had left under the old id")
}

fn disturbance(facts: &Facts, at: Nanos) -> bool {
    let next = facts.faults.partition_point(|fault| fault.begin <= at);
    next.checked_sub(1)
        .and_then(|last| facts.faults.get(last))
        .is_some_and(|fault| at <= fault.over + nanos(TRUST_WINDOW))
}

fn distribution(what: &str, behind: &mut [Nanos], reads: u64) -> String {
    behind.sort_unstable();
    let at = |percent: usize| {
        behind.get((behind.len().saturating_sub(1)) * percent / 100).map_or(0.0, |&n| millis(n))
    };
    format!(
        "{what}: {} of {reads} behind an acknowledged change; by p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms",
        behind.len(),
        at(50),
        at(99),
        at(100)
    )
}
