//! The history from the sessions' point of view: what was known of each, when, and where; and what was read.

use std::collections::HashMap;

use uuid::Uuid;

use crate::clock::{Nanos, nanos};
use crate::history::{
    Change, Entry, Epoch, Fault, Found, Intent, Op, Outcome, Row, Seen, is_in_sql, node_of, process_of,
};
use crate::plan::TRUST_WINDOW;

/// Later than any version.
pub const GONE: i64 = i64::MAX;

/// How long other nodes may not learn of an update whose node died before it notified and before it answered. Then the
/// node's row is silent for a window, the next tick removes it, and all nodes verify.
const UNNOTIFIED_MAX: Nanos = 2 * TRUST_WINDOW.as_nanos() as Nanos;

/// How exactly the two clocks can be compared, beyond how much they were seen to move.
pub const CLOCK_SLACK: i128 = 2_000_000;

/// One session, as all nodes saw it.
#[derive(Debug, Default)]
pub struct Story {
    /// The user; `None` without one, or if the creation was not acknowledged.
    pub user: Option<usize>,
    pub looks: Vec<Look>,
    /// By the database: which operation made which version.
    pub written: Vec<(i64, Op)>,
    /// Acknowledged ones of this id; there may be one.
    pub rotations: Vec<Rotation>,
    pub everywhere: Vec<Everywhere>,
}

/// A call of `everywhere()` that concerned the session has returned.
#[derive(Clone, Copy, Debug)]
pub struct Everywhere {
    /// What was known before this is shown by every read that begins after `returned`.
    pub known_before: Nanos,
    pub returned: Nanos,
}

/// A session has gone on under another id.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    pub from: Nanos,
    pub to: Nanos,
    pub successor: Uuid,
    /// That of the new row, and of what is left under the old id: both are the next one.
    pub version: i64,
    pub grace: Nanos,
    /// When the successor ends, on the database's clock.
    pub ends: Nanos,
}

/// One answer about a session: a read, or an acknowledged change.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub process: u64,
    pub from: Nanos,
    pub to: Nanos,
    /// Since when every node can know it.
    pub known: Nanos,
    /// The version that was shown, or [`GONE`].
    pub version: i64,
    pub seen: Option<Seen>,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Read {
        cached: bool,
        at_least: i64,
    },
    Change,
    /// By a function of the SQL contract.
    Wrote,
}

/// One change, from its intent to its answer.
#[derive(Debug)]
pub struct Doing {
    pub change: Change,
    pub from: Nanos,
    /// Missing if the process did not live to see it.
    pub answer: Option<(Nanos, Outcome)>,
    /// How long it waited until no node could serve the old state.
    pub everywhere: Option<Nanos>,
}

/// The history, sorted.
#[derive(Debug, Default)]
pub struct Facts {
    pub sessions: HashMap<Uuid, Story>,
    pub doings: HashMap<Op, Doing>,
    pub listed: Vec<(usize, usize)>,
    pub faults: Vec<Fault>,
    /// Nodes that were killed between the commits of updates and their notifications.
    pub killed: Vec<(usize, Nanos)>,
    /// When the database went on from an older state; `None` in a run's first part.
    pub since: Option<Nanos>,
    /// Wall clock minus monotonic clock: lowest and highest that was seen.
    pub wall_ahead: Option<(i128, i128)>,
    pub operations: u64,
    pub reads: u64,
    pub cached: u64,
    pub failed: u64,
    /// Answers of nodes to `everywhere()`, and nodes that did not answer.
    pub acknowledged: usize,
    pub lapsed: usize,
}

impl Facts {
    /// The facts of a part of the run. Sessions of `earlier` parts that are not there any more are gone.
    pub fn of(epoch: &Epoch, earlier: &[Self]) -> Self {
        let history = &epoch.history;
        let mut facts = Self { since: epoch.begin.as_ref().map(|(at, _)| *at), ..Self::default() };
        if let Some((at, sessions)) = &epoch.begin {
            facts.begin(*at, sessions, earlier);
        }
        for (&process, entries) in &history.processes {
            entries.iter().for_each(|entry| facts.add(process, entry));
        }
        facts.conclude();
        for written in &history.tables.writes {
            let story = facts.sessions.entry(written.session).or_default();
            story.written.push((written.version, written.op));
        }
        for story in facts.sessions.values_mut() {
            for look in &mut story.looks {
                let Some(seen) = look.seen else { continue };
                let doing = facts.doings.get(&seen.a);
                if doing.is_some_and(|doing| doing.may_be_unnotified(seen.a, &facts.killed)) {
                    look.known += UNNOTIFIED_MAX;
                }
                // Its node notifies as soon as the fault lets it.
                if doing.is_some_and(Doing::is_unknown) {
                    let ends = facts.faults.iter().filter(|fault| fault.begin <= look.to);
                    look.known = look.known.max(ends.map(|fault| fault.over).max().unwrap_or_default());
                }
            }
            story.looks.sort_by_key(|look| look.from);
            story.written.sort_unstable();
        }
        facts.faults.sort_by_key(|fault| fault.begin);
        facts
    }

    pub fn story(&self, session: Uuid) -> Option<&Story> {
        self.sessions.get(&session)
    }

    /// How many versions a change makes: the SQL client makes one for each attribute, the last for `a`, the first for `b`.
    pub fn versions_of(&self, op: Op) -> i64 {
        match self.doings.get(&op).map(|doing| doing.change) {
            Some(Change::Update { .. }) if is_in_sql(op) => 2,
            Some(Change::Modify { .. }) if is_in_sql(op) => 3,
            _ => 1,
        }
    }

    /// What the database held when it went on from an older state.
    fn begin(&mut self, at: Nanos, sessions: &[Row], earlier: &[Self]) {
        let alive = sessions.iter().map(|row| (row.session, row.version));
        let known = earlier.iter().flat_map(|facts| &facts.sessions);
        let known = known.filter(|(_, story)| !story.looks.is_empty()).map(|(&session, _)| (session, GONE));
        // Those that are alive replace what was known.
        let begin: HashMap<Uuid, i64> = known.chain(alive).collect();
        for (session, version) in begin {
            let (seen, kind) = (None, Kind::Change);
            // All nodes were shut out for longer than a window.
            let known = at.saturating_sub(nanos(TRUST_WINDOW));
            let look = Look { process: 0, from: at, to: at, known, version, seen, kind };
            self.sessions.entry(session).or_default().looks.push(look);
        }
    }

    fn add(&mut self, process: u64, entry: &Entry) {
        match entry {
            Entry::Read(read) => {
                self.operations += 1;
                self.reads += 1;
                self.cached += u64::from(read.cached);
                let (version, seen) = match &read.found {
                    Found::Seen(seen) => (seen.version, Some(*seen)),
                    Found::Version(version) => (*version, None),
                    Found::Gone => (GONE, None),
                    Found::Failed(_) => {
                        self.failed += 1;
                        return;
                    }
                };
                let kind = Kind::Read { cached: read.cached, at_least: read.at_least };
                let (from, to) = (read.from, read.to);
                let look = Look { process, from, to, known: to, version, seen, kind };
                self.sessions.entry(read.session).or_default().looks.push(look);
            }
            Entry::Intent(Intent { op, at, change }) => {
                // Earlier ones were counted in an earlier part.
                self.operations += u64::from(self.since.is_none_or(|since| since <= *at));
                self.doings.insert(*op, Doing { change: *change, from: *at, answer: None, everywhere: None });
            }
            Entry::Answer(answer) => {
                self.failed += u64::from(matches!(answer.outcome, Outcome::Unknown | Outcome::Refused(_)));
                if let Some(doing) = self.doings.get_mut(&answer.op) {
                    doing.answer = Some((answer.at, answer.outcome.clone()));
                }
            }
            Entry::Everywhere { op, took, acknowledged, lapsed } => {
                self.acknowledged += acknowledged;
                self.lapsed += lapsed;
                if let Some(doing) = self.doings.get_mut(op) {
                    doing.everywhere = Some(*took);
                }
            }
            Entry::Listed(listed) => {
                self.operations += 1;
                self.listed.push((listed.user, listed.count));
            }
            Entry::Taken(_) => self.operations += 1,
            Entry::KilledInGap { node, at } => self.killed.push((*node, *at)),
            Entry::Fault(fault) => self.faults.push(fault.clone()),
            Entry::Wall { at, wall } => {
                let ahead = i128::from(*wall) - i128::from(*at);
                let (low, high) = self.wall_ahead.unwrap_or((ahead, ahead));
                self.wall_ahead = Some((low.min(ahead), high.max(ahead)));
            }
            Entry::Held { .. }
            | Entry::Trust { .. }
            | Entry::Gauge(_)
            | Entry::Rewound(_)
            | Entry::Pinned(_)
            | Entry::Notified { .. }
            | Entry::Sample(_)
            | Entry::Reported { .. } => {}
        }
    }

    /// From acknowledged changes to what is known of the sessions.
    fn conclude(&mut self) {
        let mut of_user: HashMap<usize, Vec<(Uuid, Nanos)>> = HashMap::new();
        let mut looks = Vec::new();
        for (&op, doing) in &self.doings {
            let Some((to, outcome)) = &doing.answer else { continue };
            let look = |version, seen| doing.look(op, *to, version, seen);
            match (outcome, doing.change) {
                (Outcome::Made { session, seen }, change) => {
                    looks.push((*session, look(seen.version, Some(*seen))));
                    if let Change::Create { user: Some(user) } | Change::Rotate { user: Some(user), .. } =
                        change
                    {
                        of_user.entry(user).or_default().push((*session, *to));
                        self.sessions.entry(*session).or_default().user = Some(user);
                    }
                    if let Change::Rotate { session: old, grace, .. } = change {
                        let version = seen.version;
                        looks.push((old, look(version, None)));
                        looks.push((old, doing.look(op, *to + grace, GONE, None)));
                        let rotation = Rotation {
                            from: doing.from,
                            to: *to,
                            successor: *session,
                            version,
                            grace,
                            ends: seen.ends,
                        };
                        self.sessions.entry(old).or_default().rotations.push(rotation);
                    }
                }
                (Outcome::Wrote { session, version }, change) => {
                    let is_by_hand = matches!(change, Change::ByHand { .. });
                    let kind = if is_by_hand { Kind::Change } else { Kind::Wrote };
                    looks.push((*session, Look { kind, ..look(*version, None) }));
                    if let Change::Create { user: Some(user) } = change {
                        of_user.entry(user).or_default().push((*session, *to));
                        self.sessions.entry(*session).or_default().user = Some(user);
                    }
                }
                (
                    Outcome::Gone,
                    Change::Update { session, .. }
                    | Change::Modify { session }
                    | Change::Rotate { session, .. }
                    | Change::Delete { session },
                ) => looks.push((session, look(GONE, None))),
                _ => {}
            }
        }
        for (session, look) in looks.drain(..) {
            self.sessions.entry(session).or_default().looks.push(look);
        }
        let mut everywhere = Vec::new();
        for (&op, doing) in &self.doings {
            let Some((to, Outcome::Gone)) = doing.answer else { continue };
            // Those that certainly existed when it began. Later ones may have come after it.
            let sessions_of = |user| -> Vec<Uuid> {
                let all = of_user.get(&user).into_iter().flatten();
                all.filter(|&&(_, created)| created < doing.from).map(|&(session, _)| session).collect()
            };
            let ended = match doing.change {
                Change::DeleteUser { user } => sessions_of(user),
                Change::Delete { session } => self.successors(session, doing.from, to),
                _ => Vec::new(),
            };
            if doing.everywhere.is_some() {
                let (sessions, known_before) = match doing.change {
                    Change::Delete { session } => ([&[session], &ended[..]].concat(), to + 1),
                    Change::EvictUser { user } => (sessions_of(user), doing.from),
                    _ => (ended.clone(), to + 1),
                };
                let call = Everywhere { known_before, returned: to };
                everywhere.extend(sessions.into_iter().map(|session| (session, call)));
            }
            looks.extend(ended.into_iter().map(|session| (session, doing.look(op, to, GONE, None))));
        }
        for (session, look) in looks {
            self.sessions.entry(session).or_default().looks.push(look);
        }
        for (session, call) in everywhere {
            self.sessions.entry(session).or_default().everywhere.push(call);
        }
    }

    /// What `old` had certainly become when its deletion began at `from`, if its retired ids certainly lived until that
    /// ended at `to`: then the deletion ends them all.
    fn successors(&self, old: Uuid, from: Nanos, to: Nanos) -> Vec<Uuid> {
        let mut successors = Vec::new();
        let mut session = old;
        while let Some([rotation]) = self.sessions.get(&session).map(|story| &story.rotations[..])
            && rotation.to < from
            && self.is_left_until(session, rotation).is_some_and(|end| i128::from(to) < end)
        {
            session = rotation.successor;
            successors.push(session);
        }
        successors
    }

    /// Until when something is certainly left of `old`: for its grace, but not beyond the end that the session had before, or
    /// had afterwards. An update of the successor that moves its end later moves no other.
    fn is_left_until(&self, old: Uuid, rotation: &Rotation) -> Option<i128> {
        let seen = self.sessions.get(&old)?.looks.iter().filter_map(|look| look.seen);
        let before = seen.filter(|seen| seen.version < rotation.version).map(|seen| seen.ends).min()?;
        let (_, ahead) = self.wall_ahead?;
        let end = i128::from(before.min(rotation.ends)) - ahead - CLOCK_SLACK;
        Some(end.min(i128::from(rotation.from + rotation.grace)))
    }
}

impl Doing {
    fn look(&self, op: Op, to: Nanos, version: i64, seen: Option<Seen>) -> Look {
        let process = process_of(op);
        Look { process, from: self.from, to, known: to, version, seen, kind: Kind::Change }
    }

    /// An update of which its node does not know whether it was committed, and notified.
    fn is_unknown(&self) -> bool {
        matches!(self.answer, Some((_, Outcome::Unknown)))
            && matches!(self.change, Change::Update { .. } | Change::Modify { .. })
    }

    /// The process did not live to answer, and perhaps not to notify.
    fn may_be_unnotified(&self, op: Op, killed: &[(usize, Nanos)]) -> bool {
        let node = node_of(process_of(op));
        self.answer.is_none()
            && matches!(self.change, Change::Update { .. } | Change::Modify { .. })
            && killed.iter().any(|&(killed, at)| node == Some(killed as u64) && self.from <= at)
    }
}
