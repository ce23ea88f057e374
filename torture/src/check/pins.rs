//! What pins promise: a pin shows a session alive for at most the window after its acknowledged end, and ends only with it.
//! And what the nodes' own observers have counted.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::facts::{Facts, GONE, Kind, Story};
use super::report::Finding;
use crate::clock::{Nanos, millis, nanos};
use crate::history::{Entry, Gauge, History, Pinned};
use crate::plan::TRUST_WINDOW;

/// What a pin may take beside the window.
const LATE_MAX: Nanos = 250_000_000;

pub fn check(facts: &Facts, history: &History) -> Vec<Finding> {
    let mut ends =
        Finding::new("pins end", "no pin says alive a window and 250 ms after an acknowledged end");
    let mut lives = Finding::new("pins live", "no pin of a session ends while it lives");
    let alive_at_the_end: HashSet<Uuid> =
        history.tables.sessions.iter().filter(|row| !row.rotated).map(|row| row.session).collect();
    for (process, pinned) in pins(history) {
        let Some(story) = facts.story(pinned.session) else { continue };
        if let Some(end) = end_of(story) {
            ends.check(pinned.alive <= end + nanos(TRUST_WINDOW) + LATE_MAX, || {
                let late = millis(pinned.alive.saturating_sub(end));
                format!("process {process:x}: a pin said alive {late:.0} ms after the end")
            });
        }
        if let Some((at, cause)) = &pinned.ended {
            let is_left = alive_at_the_end.contains(&pinned.session);
            let look = story.looks.iter().find(|look| lives_at(look, *at));
            lives.check(!is_left && look.is_none(), || {
                let at = millis(*at) / 1e3;
                let shown = look.map_or("it is there at the end of the run".to_owned(), |look| {
                    let (reader, from, kind) = (look.process, millis(look.from) / 1e3, look.kind);
                    format!("process {reader:x} read it at {from:.3} s ({kind:?})")
                });
                format!(
                    "process {process:x} at {at:.3} s: a pin ended ({cause}), and the session lives: {shown}"
                )
            });
        }
    }
    vec![ends, lives]
}

/// When the end was known: an answer to the caller that ended it, or to a reader.
fn end_of(story: &Story) -> Option<Nanos> {
    let gone = story.looks.iter().filter(|look| look.version == GONE).map(|look| look.to);
    gone.chain(story.rotations.iter().map(|rotation| rotation.to)).min()
}

/// A read may show what is a window old: from memory, or as the answer of an earlier caller's query that it has joined.
fn lives_at(look: &super::facts::Look, ended: Nanos) -> bool {
    matches!(look.kind, Kind::Read { .. })
        && look.from > ended + nanos(TRUST_WINDOW)
        && look.seen.is_some_and(|seen| !seen.rotated)
}

/// A hit that a node has found too old itself.
pub fn observed(history: &History) -> Finding {
    let mut finding = Finding::new("observer", "no hit that a node compared with the database was too old");
    for (process, entries) in &history.processes {
        let mut gauges = entries.iter().filter_map(|entry| match entry {
            Entry::Gauge(gauge) => Some(gauge),
            _ => None,
        });
        let Some(&Gauge { hits_compared, hits_stale, .. }) = gauges.next_back() else { continue };
        finding.count(hits_compared, hits_stale, || format!("process {process:x}: {hits_stale} hits"));
    }
    finding
}

/// How soon pins ended after what was acknowledged, and why.
pub fn figures(facts: &Facts, history: &History) -> String {
    let mut causes: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut took, mut count, mut unproved): (Vec<Nanos>, u64, u64) = (Vec::new(), 0, 0);
    for (_, pinned) in pins(history) {
        count += 1;
        unproved += u64::from(pinned.unproved > 0);
        let Some((at, cause)) = &pinned.ended else { continue };
        *causes.entry(cause).or_default() += 1;
        let end = facts.story(pinned.session).and_then(end_of);
        took.extend(end.map(|end| at.saturating_sub(end)));
    }
    took.sort_unstable();
    let at =
        |percent: usize| millis(took.get(took.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0));
    let causes: Vec<String> = causes.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    format!(
        "{count} pins, {unproved} unproved for a while, ended by {}; behind the answer p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms",
        causes.join(", "),
        at(50),
        at(99),
        at(100)
    )
}

fn pins(history: &History) -> impl Iterator<Item = (u64, &Pinned)> {
    history.processes.iter().flat_map(|(&process, entries)| {
        entries.iter().filter_map(move |entry| match entry {
            Entry::Pinned(pinned) => Some((process, pinned)),
            _ => None,
        })
    })
}
