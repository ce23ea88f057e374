//! Pins, and what the nodes' observers have counted.

use uuid::Uuid;

use super::{A, B, MS, S, Tale, row, seen, shows};
use crate::clock::Nanos;
use crate::history::{Change, Entry, Gauge, Outcome, Pinned, Read, op, process_of};

impl Tale {
    /// A pin on B.
    fn pin(&mut self, alive: Nanos, ended: Option<Nanos>) -> &mut Self {
        let ended = ended.map(|at| (at * MS, "logout".to_owned()));
        let pinned = Pinned { session: S, alive: alive * MS, ended, unproved: 0 };
        self.entry(process_of(op(B, 0, 0)), Entry::Pinned(pinned))
    }
}

#[test]
fn a_pin_says_alive_for_the_window_and_250_ms_and_no_longer() {
    let mut tale = Tale::begin();
    tale.delete(op(A, 0, 2), 100, 110).pin(1_360, None).pin(112, Some(115)).is_good();
    tale.pin(1_361, None).breaks("pins end");
}

#[test]
fn a_pin_of_a_rotated_session_ends_with_the_rotation() {
    let mut tale = Tale::begin();
    let rotate = Change::Rotate { session: S, user: Some(3), keeps: true, grace: 9_000 * MS };
    let seen = seen(2, op(A, 0, 2));
    tale.acknowledge(op(A, 0, 2), 100, 110, rotate, Outcome::Made { session: Uuid::from_u128(8), seen });
    tale.pin(1_361, None).breaks("pins end");
}

#[test]
fn a_pin_does_not_end_before_its_session() {
    let mut tale = Tale::begin();
    tale.pin(100, Some(200)).read(B, 1_199, shows(1, 1)).is_good();
    // It has joined the query of an earlier caller.
    let joined =
        Read { session: S, from: 1_199 * MS, to: 1_300 * MS, at_least: 0, cached: false, found: shows(1, 1) };
    tale.entry(process_of(op(B, 0, 0)), Entry::Read(joined)).is_good();
    tale.read(B, 1_201, shows(1, 1)).breaks("pins live");
    let mut tale = Tale::begin();
    tale.pin(100, Some(200)).is_good();
    tale.0.tables.sessions.push(row(1));
    tale.breaks("pins live");
}

#[test]
fn a_hit_that_a_node_found_too_old_is_a_violation() {
    let gauge = |hits_stale| Entry::Gauge(Gauge { hits_compared: 100, hits_stale, ..Gauge::default() });
    let mut tale = Tale::begin();
    tale.entry(process_of(op(B, 0, 0)), gauge(0)).is_good();
    tale.entry(process_of(op(B, 0, 0)), gauge(1)).breaks("observer");
}
