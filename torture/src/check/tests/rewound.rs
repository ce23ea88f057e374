//! Histories of runs whose database went back to an older state.

use super::*;
use crate::history::Rewound;

/// The session is created, A updates it, and the database goes back to before the update, or before both.
fn rewound(is_left: bool) -> Tale {
    let mut tale = Tale::begin();
    tale.update(op(A, 0, 2), 20, 30, 2);
    let lost = tale.0.tables.writes.split_off(usize::from(is_left));
    let after = if is_left { vec![row(1)] } else { Vec::new() };
    let rewound = Rewound { from: 1_100 * MS, to: 1_200 * MS, lost, before: vec![row(2)], after, last: 0 };
    tale.entry(0, Entry::Rewound(Box::new(rewound)));
    tale
}

#[test]
fn a_lost_commit_is_not_seen_after_the_database_went_back() {
    rewound(true).read(B, 90, shows(2, 2)).read(B, 1_210, shows(1, 1)).is_good();
    rewound(true).read(B, 1_210, shows(2, 2)).breaks("I6");
    rewound(true).read(B, 1_210, Found::Gone).read(B, 1_220, shows(1, 1)).breaks("I4");
}

#[test]
fn a_lost_session_is_gone_after_the_database_went_back() {
    rewound(false).read(B, 90, shows(2, 2)).read(B, 1_210, Found::Gone).is_good();
    rewound(false).read(B, 1_210, shows(1, 1)).breaks("I4");
}

#[test]
fn only_what_was_lost_may_be_missing_before() {
    let mut tale = rewound(true);
    tale.acknowledge(
        op(A, 0, 3),
        40,
        50,
        Change::Modify { session: S },
        Outcome::Made { session: S, seen: seen(3, op(A, 0, 3)) },
    );
    tale.breaks("I5");
}

#[test]
fn a_version_is_used_again_only_after_the_database_went_back() {
    let mut tale = rewound(true);
    tale.0.tables.writes.push(Written { n: 9, session: S, version: 2, op: op(B, 0, 7) });
    let again = Outcome::Made { session: S, seen: seen(2, op(B, 0, 7)) };
    tale.acknowledge(
        op(B, 0, 7),
        1_300,
        1_310,
        Change::Update { session: S, elevates: Elevates::AsBefore },
        again,
    );
    tale.is_good();
    tale.read(A, 1_400, Found::Seen(seen(2, op(B, 0, 7)))).is_good();
    tale.read(A, 1_500, shows(2, 2)).breaks("I6");
}

#[test]
fn fences_grow_when_the_lock_s_row_was_lost() {
    rewound(true).lock(op(A, 0, 8), 40, 50, 1_250, 3).lock(op(B, 0, 8), 1_210, 1_220, 1_230, 4).is_good();
    rewound(true).lock(op(A, 0, 8), 40, 50, 1_250, 3).lock(op(B, 0, 8), 1_210, 1_220, 1_230, 3).breaks("I8");
}

#[test]
fn a_node_killed_before_it_notified_gives_the_others_more_time() {
    let killed = || {
        let mut tale = Tale::begin();
        let update = op(A, 0, 2);
        tale.0.tables.writes.push(Written { n: 2, session: S, version: 2, op: update });
        let change = Change::Update { session: S, elevates: Elevates::AsBefore };
        tale.entry(process_of(update), Entry::Intent(Intent { op: update, at: 50 * MS, change }));
        tale.entry(0, Entry::KilledInGap { node: A, at: 100 * MS });
        tale.read(B, 200, shows(2, 2));
        tale
    };
    killed().read(2, 3_100, shows(1, 1)).is_good();
    killed().read(2, 3_300, shows(1, 1)).breaks("I3");
}
