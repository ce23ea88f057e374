//! Histories made by hand: good ones, and for each promise one that breaks it.

mod everywhere;
mod pins;
mod rewound;
mod sql;

use uuid::Uuid;

use super::{Report, all};
use crate::clock::Nanos;
use crate::history::{
    Answer, Change, Elevates, Entry, Fault, Found, History, Intent, Listed, Op, Outcome, Read, Row, Sample,
    Seen, Taken, Written, op, process_of,
};

const MS: Nanos = 1_000_000;
/// Session, nodes and operations of the stories.
const S: Uuid = Uuid::from_u128(7);
const A: usize = 0;
const B: usize = 1;

fn row(version: i64) -> Row {
    Row { session: S, user: None, version, n: 0, rotated: false, misplaced: 0 }
}

/// A history, line by line; times in milliseconds, the wall clock being the monotonic one.
#[derive(Default)]
struct Tale(History);

impl Tale {
    /// A creates the session, which all nodes then know.
    fn begin() -> Self {
        let mut tale = Self::default();
        tale.entry(0, Entry::Wall { at: 0, wall: 0 });
        tale.change(op(A, 0, 1), 0, 10, Change::Create { user: Some(3) }, 1);
        tale
    }

    fn entry(&mut self, process: u64, entry: Entry) -> &mut Self {
        self.0.processes.entry(process).or_default().push(entry);
        self
    }

    /// Acknowledged and committed.
    fn change(&mut self, op: Op, from: Nanos, to: Nanos, change: Change, version: i64) -> &mut Self {
        self.0.tables.writes.push(Written { n: 0, session: S, version, op });
        self.acknowledge(op, from, to, change, Outcome::Made { session: S, seen: seen(version, op) })
    }

    /// The same, of one that does something with the attribute that not every change writes.
    fn elevate(&mut self, from: Nanos, elevates: Elevates, shown: Seen) -> &mut Self {
        self.0.tables.writes.push(Written { n: 0, session: S, version: shown.version, op: shown.a });
        let made = Outcome::Made { session: S, seen: shown };
        self.acknowledge(shown.a, from, from + 10, Change::Update { session: S, elevates }, made)
    }

    fn acknowledge(&mut self, op: Op, from: Nanos, to: Nanos, change: Change, outcome: Outcome) -> &mut Self {
        self.entry(process_of(op), Entry::Intent(Intent { op, at: from * MS, change }));
        self.entry(process_of(op), Entry::Answer(Answer { op, at: to * MS, outcome }))
    }

    fn update(&mut self, op: Op, from: Nanos, to: Nanos, version: i64) -> &mut Self {
        self.change(op, from, to, Change::Update { session: S, elevates: Elevates::AsBefore }, version)
    }

    fn delete(&mut self, op: Op, from: Nanos, to: Nanos) -> &mut Self {
        self.acknowledge(op, from, to, Change::Delete { session: S }, Outcome::Gone)
    }

    fn read(&mut self, node: usize, from: Nanos, found: Found) -> &mut Self {
        let (from, to) = (from * MS, (from + 1) * MS);
        let read = Read { session: S, from, to, at_least: 0, cached: true, found };
        self.entry(process_of(op(node, 0, 0)), Entry::Read(read))
    }

    fn lock(&mut self, op: Op, from: Nanos, to: Nanos, held: Nanos, fence: i64) -> &mut Self {
        self.entry(process_of(op), Entry::Taken(Taken { op, name: 1, from: from * MS, to: to * MS, fence }));
        self.entry(process_of(op), Entry::Held { op, at: held * MS })
    }

    fn report(&self) -> Report {
        all(self.0.clone(), 1_000 * MS)
    }

    #[track_caller]
    fn is_good(&self) {
        let report = self.report();
        assert!(report.is_good(), "{report}");
    }

    #[track_caller]
    fn breaks(&self, invariant: &str) {
        let report = self.report();
        assert!(report.breaks(invariant), "{report}");
    }
}

fn seen(version: i64, by: Op) -> Seen {
    Seen {
        version,
        ends: Nanos::MAX / 2,
        rotated: false,
        a: by,
        b: by,
        a_version: version,
        b_version: version,
        n: 0,
        elevated: 0,
        elevated_version: 0,
        elevated_until: None,
    }
}

/// What A's operations of the tale wrote.
fn shows(version: i64, number: u64) -> Found {
    Found::Seen(seen(version, op(A, 0, number)))
}

#[test]
fn a_read_may_be_behind_for_as_long_as_the_window_and_no_longer() {
    let mut tale = Tale::begin();
    tale.update(op(A, 0, 2), 100, 110, 2).read(B, 1_109, shows(1, 1)).is_good();
    tale.read(B, 1_112, shows(1, 1)).breaks("I3");
}

#[test]
fn what_another_node_was_shown_counts_as_known() {
    let mut tale = Tale::begin();
    // The writer's answer is missing, but its version was seen.
    tale.0.tables.writes.push(Written { n: 0, session: S, version: 2, op: op(A, 0, 2) });
    tale.entry(
        process_of(op(A, 0, 2)),
        Entry::Intent(Intent {
            op: op(A, 0, 2),
            at: 50 * MS,
            change: Change::Update { session: S, elevates: Elevates::AsBefore },
        }),
    );
    tale.read(B, 200, shows(2, 2)).is_good();
    tale.read(2, 1_300, shows(1, 1)).breaks("I3");
}

#[test]
fn a_node_does_not_go_back_not_even_within_the_window() {
    let mut tale = Tale::begin();
    tale.update(op(A, 0, 2), 100, 110, 2).read(B, 120, shows(2, 2)).is_good();
    tale.read(B, 125, shows(1, 1)).breaks("I2");
    let mut tale = Tale::begin();
    tale.update(op(A, 0, 2), 100, 110, 2).read(A, 112, shows(1, 1)).breaks("I2");
}

#[test]
fn reads_that_overlap_may_see_one_or_the_other() {
    Tale::begin().update(op(A, 0, 2), 100, 110, 2).read(A, 109, shows(1, 1)).is_good();
}

#[test]
fn what_was_deleted_is_not_seen_again() {
    let mut tale = Tale::begin();
    tale.delete(op(A, 0, 2), 100, 110).read(B, 500, shows(1, 1)).is_good();
    tale.read(B, 600, Found::Gone).is_good();
    tale.read(B, 700, shows(1, 1)).breaks("I4");
    Tale::begin().delete(op(A, 0, 2), 100, 110).read(B, 1_200, shows(1, 1)).breaks("I4");
}

/// What S goes on as.
const NEW: Uuid = Uuid::from_u128(8);

/// A rotates S, acknowledged at 110 ms.
fn rotated(grace: Nanos) -> Tale {
    let mut tale = Tale::begin();
    rotate(&mut tale, grace, 2);
    tale
}

fn rotate(tale: &mut Tale, grace: Nanos, version: i64) {
    let (rotation, grace) = (op(A, 0, 2), grace * MS);
    tale.0.tables.writes.push(Written { n: 0, session: NEW, version, op: rotation });
    let change = Change::Rotate { session: S, user: Some(3), keeps: true, grace };
    let made = Outcome::Made { session: NEW, seen: seen(version, rotation) };
    tale.acknowledge(rotation, 100, 110, change, made);
}

/// What the rotation has left of S.
fn left() -> Found {
    Found::Seen(Seen { version: 2, rotated: true, ..seen(1, op(A, 0, 1)) })
}

#[test]
fn what_was_rotated_is_not_seen_again_under_its_old_id() {
    let mut tale = rotated(0);
    tale.read(B, 600, shows(1, 1)).is_good();
    tale.read(B, 1_200, shows(1, 1)).breaks("I4");
}

#[test]
fn a_rotation_leaves_something_for_its_grace() {
    let mut tale = rotated(3_000);
    tale.read(B, 600, shows(1, 1)).read(A, 600, left()).read(B, 1_200, left()).is_good();
    rotated(3_000).read(B, 1_200, shows(1, 1)).breaks("I3");
    rotated(3_000).read(A, 3_200, left()).breaks("I4");
    rotated(3_000).read(B, 4_200, left()).breaks("I4");
    rotated(3_000).read(B, 4_000, left()).is_good();
}

#[test]
fn what_is_left_says_so() {
    let unmarked = Seen { rotated: false, ..seen(2, op(A, 0, 1)) };
    let unmarked = Seen { a_version: 1, b_version: 1, ..unmarked };
    rotated(3_000).read(B, 300, Found::Seen(unmarked)).breaks("I4 ids");
    let early = Seen { rotated: true, ..seen(1, op(A, 0, 1)) };
    rotated(3_000).read(B, 300, Found::Seen(early)).breaks("I4 ids");
    // What the session has become must not be seen under the old id.
    let planted = Seen { version: 2, rotated: true, ..seen(2, op(A, 0, 2)) };
    rotated(3_000).read(B, 300, Found::Seen(planted)).breaks("I6");
}

#[test]
fn an_id_is_rotated_once_and_not_changed_afterwards() {
    let mut tale = rotated(3_000);
    let (again, third) = (op(B, 0, 3), Uuid::from_u128(9));
    tale.0.tables.writes.push(Written { n: 0, session: third, version: 2, op: again });
    let change = Change::Rotate { session: S, user: Some(3), keeps: true, grace: 0 };
    tale.acknowledge(again, 100, 120, change, Outcome::Made { session: third, seen: seen(2, again) });
    tale.breaks("I4 ids");
    rotated(3_000).update(op(B, 0, 3), 105, 120, 3).is_good();
    rotated(3_000).update(op(B, 0, 3), 111, 120, 3).breaks("I4 write");
    Tale::begin().delete(op(A, 0, 2), 100, 110).update(op(B, 0, 3), 111, 120, 2).breaks("I4 write");
}

#[test]
fn a_logout_by_an_old_id_ends_the_session() {
    let new = |from| Read {
        session: NEW,
        from: from * MS,
        to: from * MS,
        at_least: 0,
        cached: true,
        found: made(),
    };
    fn made() -> Found {
        Found::Seen(seen(2, op(A, 0, 2)))
    }
    let mut tale = rotated(3_000);
    tale.delete(op(B, 0, 3), 200, 210);
    tale.entry(process_of(op(A, 0, 0)), Entry::Read(new(1_200))).is_good();
    tale.entry(process_of(op(A, 0, 0)), Entry::Read(new(1_220))).breaks("I4");
    // When the grace is over, nothing may be left that knows the session.
    let mut tale = rotated(3_000);
    tale.delete(op(B, 0, 3), 3_200, 3_210);
    tale.entry(process_of(op(A, 0, 0)), Entry::Read(new(9_000))).is_good();
    // Nor when the end is over that the session had when it was rotated, which was moved afterwards.
    let ending = |tale: &mut Tale| {
        let short = Found::Seen(Seen { ends: 1_000 * MS, ..seen(1, op(A, 0, 1)) });
        tale.read(B, 50, short);
    };
    let mut tale = rotated(3_000);
    ending(&mut tale);
    tale.delete(op(B, 0, 3), 1_010, 1_020);
    tale.entry(process_of(op(A, 0, 0)), Entry::Read(new(2_100))).is_good();
    let mut tale = rotated(3_000);
    ending(&mut tale);
    tale.delete(op(B, 0, 3), 900, 910);
    tale.entry(process_of(op(A, 0, 0)), Entry::Read(new(2_100))).breaks("I4");
}

#[test]
fn a_rotation_takes_the_counter_along() {
    let count = |n| {
        let mut tale = Tale::begin();
        tale.change(op(A, 0, 3), 50, 60, Change::Modify { session: S }, 2);
        rotate(&mut tale, 0, 3);
        tale.0.tables.writes.push(Written { n: 0, session: NEW, version: 4, op: op(A, 0, 4) });
        let made = Outcome::Made { session: NEW, seen: seen(4, op(A, 0, 4)) };
        tale.acknowledge(op(A, 0, 4), 200, 210, Change::Modify { session: NEW }, made);
        tale.0.tables.sessions.push(Row { session: NEW, n, ..row(4) });
        tale.report()
    };
    assert!(count(2).is_good(), "{}", count(2));
    assert!(count(1).breaks("I5 count"));
}

#[test]
fn a_user_s_deletion_counts_for_the_sessions_that_were_there() {
    let logout = |from, read| {
        let mut tale = Tale::begin();
        tale.acknowledge(op(A, 0, 2), from, 110, Change::DeleteUser { user: 3 }, Outcome::Gone);
        tale.read(B, read, shows(1, 1)).report()
    };
    assert!(logout(100, 1_200).breaks("I4"));
    assert!(logout(5, 1_200).is_good(), "it may have come before the session");
}

#[test]
fn nothing_is_seen_past_its_end() {
    let ending = |ends: Nanos, elevated: Nanos| {
        let seen = Seen { ends: ends * MS, elevated_until: Some(elevated * MS), ..seen(1, op(A, 0, 1)) };
        let mut tale = Tale::begin();
        tale.read(B, 100, Found::Seen(seen)).report()
    };
    assert!(ending(101, 101).is_good());
    assert!(ending(90, 101).breaks("I4"));
    assert!(ending(101, 90).breaks("I4 attr"));
}

#[test]
fn an_acknowledged_change_has_to_be_in_the_database_once() {
    let mut lost = Tale::begin();
    lost.update(op(A, 0, 2), 100, 110, 2);
    lost.0.tables.writes.pop();
    lost.breaks("I5");
    let mut moved = Tale::begin();
    moved.update(op(A, 0, 2), 100, 110, 2);
    moved.0.tables.writes[1].version = 3;
    moved.breaks("I5");
    let mut twice = Tale::begin();
    twice.update(op(A, 0, 2), 100, 110, 2);
    twice.0.tables.writes.push(Written { n: 0, session: S, version: 3, op: op(A, 0, 2) });
    twice.breaks("I5 once");
}

#[test]
fn an_unknown_outcome_may_be_either_and_a_refusal_may_not() {
    let commit = |outcome: Outcome, committed: bool| {
        let mut tale = Tale::begin();
        tale.acknowledge(
            op(A, 0, 2),
            100,
            110,
            Change::Update { session: S, elevates: Elevates::AsBefore },
            outcome,
        );
        if committed {
            tale.0.tables.writes.push(Written { n: 0, session: S, version: 2, op: op(A, 0, 2) });
        }
        tale.report()
    };
    assert!(commit(Outcome::Unknown, true).is_good());
    assert!(commit(Outcome::Unknown, false).is_good());
    assert!(commit(Outcome::Refused("Conflict".to_owned()), false).is_good());
    assert!(commit(Outcome::Refused("Conflict".to_owned()), true).breaks("I5 no"));
}

#[test]
fn a_counter_counts_every_increment() {
    let count = |n| {
        let mut tale = Tale::begin();
        tale.change(op(A, 0, 2), 100, 110, Change::Modify { session: S }, 2);
        tale.0.tables.sessions.push(Row { n, ..row(2) });
        tale.report()
    };
    assert!(count(1).is_good());
    assert!(count(0).breaks("I5 count"));
    assert!(count(2).breaks("I5 count"));
}

#[test]
fn row_and_attributes_belong_together() {
    let mut tale = Tale::begin();
    tale.update(op(A, 0, 2), 100, 110, 2);
    let torn = Seen { b: op(A, 0, 1), b_version: 1, ..seen(2, op(A, 0, 2)) };
    tale.read(B, 200, Found::Seen(torn)).breaks("I6");
    // The row of the one, the attributes of the other.
    let mut tale = Tale::begin();
    let old = Seen { version: 2, ..seen(1, op(A, 0, 1)) };
    tale.update(op(A, 0, 2), 100, 110, 2).read(B, 200, Found::Seen(old)).breaks("I6");
    // A version that the clean-up made, and that wrote nothing.
    let mut tale = Tale::begin();
    tale.read(B, 200, Found::Seen(Seen { version: 2, ..seen(1, op(A, 0, 1)) })).is_good();
}

/// What A's operation of the number of a version wrote.
fn at(version: i64) -> Seen {
    seen(version, op(A, 0, version.unsigned_abs()))
}

/// And beside it the attribute that not every change writes, as operation `number` of A set it.
fn elevated(version: i64, number: u64, own_version: i64, until: Option<Nanos>) -> Seen {
    Seen {
        elevated: op(A, 0, number),
        elevated_version: own_version,
        elevated_until: until.map(|until| until * MS),
        ..at(version)
    }
}

#[test]
fn an_attribute_that_moves_is_seen_as_it_was_last_written() {
    let end = Some(9_000);
    // For a while, to the end, and no more.
    let moved = |from, shown| {
        let mut tale = Tale::begin();
        tale.elevate(100, Elevates::ForAWhile, elevated(2, 2, 2, end));
        tale.elevate(200, Elevates::ToTheEnd, elevated(3, 3, 3, None));
        tale.elevate(300, Elevates::AsBefore, elevated(4, 3, 3, None));
        tale.elevate(400, Elevates::NoMore, at(5));
        tale.read(B, from, Found::Seen(shown)).report()
    };
    assert!(moved(120, elevated(2, 2, 2, end)).is_good());
    assert!(moved(120, at(2)).is_good(), "it may have ended");
    assert!(moved(120, elevated(2, 2, 2, None)).breaks("I6 attr"));
    assert!(moved(220, elevated(3, 3, 3, None)).is_good());
    assert!(moved(320, elevated(4, 3, 3, None)).is_good());
    assert!(moved(320, elevated(4, 2, 2, end)).breaks("I6 attr"));
    assert!(moved(320, elevated(4, 3, 4, None)).breaks("I6 attr"));
    assert!(moved(320, at(4)).breaks("I6 attr"));
    assert!(moved(420, at(5)).is_good());
    assert!(moved(420, elevated(5, 3, 3, None)).breaks("I6 attr"));
}

#[test]
fn version_of_unknown_operation_may_remove_attribute() {
    let mut tale = Tale::begin();
    tale.elevate(100, Elevates::ToTheEnd, elevated(2, 2, 2, None));
    tale.read(B, 200, Found::Seen(Seen { version: 3, ..at(2) })).is_good();
    tale.read(B, 220, Found::Seen(Seen { version: 3, ..elevated(2, 2, 3, None) })).breaks("I6 attr");
}

#[test]
fn a_rotation_makes_what_it_keeps_its_own() {
    let rotated = |keeps, seen: Seen| {
        let mut tale = Tale::begin();
        tale.elevate(50, Elevates::ToTheEnd, elevated(2, 2, 2, None));
        let rotation = seen.a;
        tale.0.tables.writes.push(Written { n: 0, session: NEW, version: 3, op: rotation });
        let change = Change::Rotate { session: S, user: Some(3), keeps, grace: 0 };
        tale.acknowledge(rotation, 100, 110, change, Outcome::Made { session: NEW, seen });
        tale.report()
    };
    assert!(rotated(true, elevated(3, 2, 3, None)).is_good());
    assert!(rotated(true, elevated(3, 2, 2, None)).breaks("I6 attr"));
    assert!(rotated(true, at(3)).breaks("I6 attr"));
    assert!(rotated(false, at(3)).is_good());
    assert!(rotated(false, elevated(3, 2, 3, None)).breaks("I6 attr"));
}

#[test]
fn an_attribute_is_in_one_place() {
    let end = |misplaced| {
        let mut tale = Tale::begin();
        tale.0.tables.sessions.push(Row { misplaced, ..row(1) });
        tale.report()
    };
    assert!(end(0).is_good());
    assert!(end(1).breaks("I6 place"));
}

#[test]
fn what_was_removed_from_all_sessions_is_not_seen_again() {
    let removed = |from, read| {
        let mut tale = Tale::begin();
        let shown = elevated(2, 2, 2, None);
        tale.elevate(100, Elevates::ToTheEnd, shown);
        tale.acknowledge(op(A, 0, 3), from, 210, Change::Unelevate { user: 3 }, Outcome::Gone);
        tale.read(B, read, Found::Seen(shown)).report()
    };
    assert!(removed(200, 1_200).is_good());
    assert!(removed(200, 1_220).breaks("I4 every"));
    assert!(removed(105, 1_220).is_good(), "it may have come before");
}

#[test]
fn a_user_with_too_many_sessions_is_noticed() {
    let mut tale = Tale::begin();
    tale.entry(process_of(op(B, 0, 0)), Entry::Listed(Listed { user: 3, count: 3 })).is_good();
    tale.entry(process_of(op(B, 0, 0)), Entry::Listed(Listed { user: 3, count: 4 })).breaks("I7");
}

#[test]
fn fences_grow_and_holders_are_alone() {
    let hold = |from, fence| {
        let mut tale = Tale::begin();
        tale.lock(op(A, 0, 8), 100, 110, 200, 5).lock(op(B, 0, 9), from, from + 10, from + 50, fence);
        tale.report()
    };
    assert!(hold(205, 6).is_good());
    assert!(hold(205, 5).breaks("I8"));
    assert!(hold(150, 6).breaks("I8 alone"));
    // A holder in between does not hide the one before it.
    let mut tale = Tale::begin();
    tale.lock(op(A, 0, 8), 100, 110, 500, 5).lock(op(B, 0, 9), 600, 610, 620, 6);
    tale.lock(op(B, 0, 10), 300, 310, 320, 7).breaks("I8 alone");
}

#[test]
fn a_resource_does_not_take_an_overtaken_holder_s_write() {
    let uses = |accepted: &[(i64, Op)]| {
        let mut tale = Tale::begin();
        tale.0.tables.accepted = accepted.iter().map(|&(fence, op)| (1, fence, op)).collect();
        tale.report()
    };
    assert!(uses(&[(1, 8), (1, 8), (2, 9)]).is_good());
    assert!(uses(&[(2, 9), (1, 8)]).breaks("I8 used"));
    assert!(uses(&[(1, 8), (1, 9)]).breaks("I8 used"));
}

#[test]
fn a_node_that_recovers_too_late_is_noticed() {
    let recover = |at: Nanos| {
        let mut tale = Tale::begin();
        let fault = Fault { name: "cut".to_owned(), begin: 100 * MS, end: 200 * MS, over: 20_000 * MS };
        tale.entry(0, Entry::Fault(fault));
        let node = process_of(op(B, 0, 0));
        tale.entry(node, Entry::Trust { at: 50 * MS, trusted: true });
        tale.entry(node, Entry::Trust { at: 150 * MS, trusted: false });
        tale.entry(node, Entry::Trust { at: at * MS, trusted: true }).report()
    };
    assert!(recover(1_000).is_good());
    assert!(recover(9_000).breaks("recovery"));
}

#[test]
fn what_went_otherwise_than_expected_is_noticed() {
    let reported = |held| Tale::begin().entry(0, Entry::Reported { held, what: String::new() }).report();
    assert!(reported(true).is_good());
    assert!(reported(false).breaks("conduct"));
}

#[test]
fn too_many_connections_and_too_much_memory_are_noticed() {
    let sample = |resident_kib, connections| {
        let sample = Sample { node: 0, resident_kib, connections };
        Tale::begin().entry(0, Entry::Sample(sample)).report()
    };
    assert!(sample(50_000, 14).is_good());
    assert!(sample(50_000, 15).breaks("I9 conns"));
    assert!(sample(100_000, 14).breaks("I9 memory"));
}

#[test]
fn each_fault_is_counted() {
    let mut tale = Tale::begin();
    for name in ["listener-silent", "rows-locked + listener-silent", "rows-locked"] {
        tale.entry(0, Entry::Fault(Fault { name: name.to_owned(), begin: 0, end: 1, over: 2 }));
    }
    assert!(tale.report().to_string().contains("faults: listener-silent 2, rows-locked 2\n"));
}
