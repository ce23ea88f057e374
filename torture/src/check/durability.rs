//! I5-I7: what was acknowledged is what the database committed, once; what is read belongs to one version; no user has
//! more sessions than allowed.

use std::collections::HashMap;

use uuid::Uuid;

use super::facts::{Facts, Kind};
use super::report::Finding;
use crate::history::{Change, Op, Outcome, Tables, Written};
use crate::plan::SESSIONS_PER_USER_MAX;

pub fn check(facts: &Facts, tables: &Tables) -> Vec<Finding> {
    let mut findings = writes(facts, tables);
    findings.push(counters(facts, tables));
    findings.push(wholeness(facts));
    findings.push(cap(facts, tables));
    findings
}

fn writes(facts: &Facts, tables: &Tables) -> Vec<Finding> {
    let mut lost = Finding::new("I5", "an acknowledged change is committed, as the acknowledged version");
    let mut twice = Finding::new("I5 once", "a change is committed at most once");
    let mut denied = Finding::new("I5 no", "what was said not to have happened did not");
    let mut committed: HashMap<Op, Vec<Written>> = HashMap::new();
    for written in &tables.writes {
        committed.entry(written.op).or_default().push(*written);
    }
    for (op, writes) in &committed {
        twice.check(writes.len() == 1, || format!("operation {op:x} was committed {} times", writes.len()));
        let answer = facts.doings.get(op).and_then(|doing| doing.answer.as_ref());
        if let Some((_, outcome)) = answer {
            let may_be = matches!(outcome, Outcome::Made { .. } | Outcome::Wrote { .. } | Outcome::Unknown);
            denied.check(may_be, || {
                format!("operation {op:x} was committed although its answer was {outcome:?}")
            });
        }
    }
    for (op, doing) in &facts.doings {
        let (session, version) = match &doing.answer {
            Some((_, Outcome::Made { session, seen })) => (*session, seen.version),
            // An UPDATE by hand writes no attribute that names it.
            Some((_, Outcome::Wrote { session, version }))
                if !matches!(doing.change, Change::ByHand { .. }) =>
            {
                (*session, *version)
            }
            _ => continue,
        };
        let is_there = committed.get(op).is_some_and(|writes| {
            writes.iter().any(|write| write.session == session && write.version == version)
        });
        lost.check(is_there, || format!("operation {op:x} was acknowledged as version {version}"));
    }
    vec![lost, twice, denied]
}

/// The counter that `modify` counts: as many as were committed, which are those that were acknowledged and some of
/// those whose outcome is not known. A rotation takes it along.
fn counters(facts: &Facts, tables: &Tables) -> Finding {
    let mut finding = Finding::new("I5 count", "a counter shows every increment at the end, over rotations");
    for row in &tables.sessions {
        let modifies = increments(facts, row.session);
        finding.check(row.n == modifies, || {
            format!("{modifies} increments were committed, the counter is {}", row.n)
        });
        let newest = facts.story(row.session).and_then(|story| story.written.last());
        let newest = newest.map_or(0, |&(version, _)| version);
        finding.check(row.version >= newest, || {
            format!("version {newest} was committed, the row has {}", row.version)
        });
    }
    finding
}

/// Those of the session and of those that it was before.
fn increments(facts: &Facts, mut session: Uuid) -> i64 {
    let mut sum = 0;
    while let Some(story) = facts.story(session) {
        let changes =
            story.written.iter().filter_map(|(_, op)| facts.doings.get(op)).map(|doing| doing.change);
        let modifies = changes.clone().filter(|change| matches!(change, Change::Modify { .. })).count();
        sum += i64::try_from(modifies).unwrap_or(i64::MAX);
        match changes.clone().next() {
            Some(Change::Rotate { session: before, keeps: true, .. }) => session = before,
            _ => break,
        }
    }
    sum
}

/// The row's version and the attributes: every change writes both attributes, so the newest change up to the row's
/// version gives the values and their version. (The clean-up of attributes makes versions, too, and writes nothing.)
fn wholeness(facts: &Facts) -> Finding {
    let mut finding = Finding::new("I6", "row and attributes that are shown together belong to one version");
    for story in facts.sessions.values() {
        for look in &story.looks {
            let Some(seen) = look.seen else { continue };
            let newest = story.written.partition_point(|&(version, _)| version <= seen.version);
            let written = newest.checked_sub(1).and_then(|newest| story.written.get(newest));
            let is_whole = seen.a == seen.b
                && seen.a_version - seen.b_version == facts.versions_of(seen.a) - 1
                && written == Some(&(seen.a_version, seen.a));
            let kind = if look.kind == Kind::Change { "change" } else { "read" };
            finding.check(is_whole, || format!("a {kind} showed {seen:?}, the database wrote {written:?}"));
        }
    }
    finding
}

fn cap(facts: &Facts, tables: &Tables) -> Finding {
    let mut finding = Finding::new("I7", "no user has more live sessions than allowed");
    let most = SESSIONS_PER_USER_MAX as usize;
    for &(user, count) in &facts.listed {
        finding.check(count <= most, || format!("user {user} had {count} sessions"));
    }
    let mut users: HashMap<Uuid, usize> = HashMap::new();
    for row in tables.sessions.iter().filter(|row| !row.rotated) {
        if let Some(user) = row.user {
            *users.entry(user).or_default() += 1;
        }
    }
    for count in users.into_values() {
        finding.check(count <= most, || format!("at the end, a user has {count} sessions"));
    }
    finding
}
