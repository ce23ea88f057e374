//! I6, of an attribute that only some changes write or remove, with and without an expiry. So it moves between the
//! session's row and its own: what is seen of it is what was written last, and nothing that an earlier place still
//! held.

use std::collections::HashMap;

use uuid::Uuid;

use super::coherence::shown;
use super::facts::{Facts, GONE, Kind, Look};
use super::report::Finding;
use crate::clock::{Nanos, nanos};
use crate::history::{Change, Elevates, Op, Outcome, Seen, Tables};
use crate::plan::TRUST_WINDOW;

pub fn check(facts: &Facts, tables: &Tables) -> Vec<Finding> {
    let mut newest = Finding::new("I6 attr", "an attribute that moves is seen as it was last written");
    for (&session, story) in &facts.sessions {
        for seen in story.looks.iter().filter_map(|look| look.seen) {
            let Some(expected) = last_set(facts, session, seen.version) else { continue };
            newest.check(expected.admits(&seen), || format!("{seen:?}, but {expected:?}"));
        }
    }
    let mut placed =
        Finding::new("I6 place", "at the end, each attribute is in one place, where it is found");
    for row in &tables.sessions {
        placed.check(row.misplaced == 0, || format!("{} of session {} do not", row.misplaced, row.session));
    }
    vec![newest, placed, removed(facts)]
}

/// What a session of some version has of the attribute.
#[derive(Debug)]
struct Expected {
    /// Who set it last, and the version that shows; `None` if it was removed since, or never set.
    set: Option<(Op, i64)>,
    ends: bool,
    /// Versions that no operation of the history made: of the clean-up, or a removal from all of a user's sessions.
    others: bool,
}

impl Expected {
    fn admits(&self, seen: &Seen) -> bool {
        if seen.elevated == 0 {
            return self.set.is_none() || self.ends || self.others;
        }
        self.set == Some((seen.elevated, seen.elevated_version)) && seen.elevated_until.is_some() == self.ends
    }
}

/// From the version back to the operation that set or removed it, through rotations, which make it their own.
fn last_set(facts: &Facts, mut session: Uuid, version: i64) -> Option<Expected> {
    let none = Expected { set: None, ends: false, others: false };
    let (mut until, mut changes, mut carried) = (version, 0, None);
    loop {
        let story = facts.story(session)?;
        let written = &story.written[..story.written.partition_point(|&(written, _)| written <= until)];
        let mut before = None;
        for &(written, op) in written.iter().rev() {
            let ends = match facts.doings.get(&op)?.change {
                Change::Update { elevates: Elevates::ForAWhile, .. } => true,
                Change::Update { elevates: Elevates::ToTheEnd, .. } => false,
                Change::Update { elevates: Elevates::AsBefore, .. } | Change::Modify { .. } => {
                    changes += facts.versions_of(op);
                    continue;
                }
                Change::Rotate { session, keeps: true, .. } => {
                    changes += 1;
                    carried = carried.or(Some(written));
                    before = Some((session, written - 1));
                    break;
                }
                _ => return Some(none),
            };
            let set = Some((op, carried.unwrap_or(written)));
            return Some(Expected { set, ends, others: version - written > changes });
        }
        (session, until) = before?;
    }
}

/// I4 of an attribute that was removed from all sessions of a user: one that certainly was there before is not seen
/// afterwards, under whatever id the session goes on.
fn removed(facts: &Facts) -> Finding {
    let mut finding =
        Finding::new("I4 every", "what was removed from all of a user's sessions is not seen again");
    let mut removals: HashMap<usize, Vec<(Nanos, Nanos)>> = HashMap::new();
    for doing in facts.doings.values() {
        if let (Change::Unelevate { user }, Some((to, Outcome::Gone))) = (doing.change, &doing.answer) {
            removals.entry(user).or_default().push((doing.from, *to));
        }
    }
    let looks = facts.sessions.values().flat_map(|story| &story.looks);
    for look in looks.filter(|look| matches!(look.kind, Kind::Read { .. }) && look.version != GONE) {
        let Some((user, since)) = look.seen.and_then(|seen| elevation(facts, &seen)) else { continue };
        let Some(removals) = removals.get(&user) else { continue };
        let is_over = |&(from, to): &(Nanos, Nanos)| since < from && to + nanos(TRUST_WINDOW) < look.from;
        finding.check(!removals.iter().any(is_over), || said(look, since));
    }
    finding
}

/// The user of the session in which the attribute was set, and when that was acknowledged.
fn elevation(facts: &Facts, seen: &Seen) -> Option<(usize, Nanos)> {
    let doing = facts.doings.get(&seen.elevated)?;
    let Change::Update { session, .. } = doing.change else { return None };
    let (since, _) = doing.answer.as_ref()?;
    Some((facts.story(session)?.user?, *since))
}

fn said(look: &Look, since: Nanos) -> String {
    shown(
        look,
        &format!("what was set at {:.3} s was removed a window before", crate::clock::millis(since) / 1e3),
    )
}
