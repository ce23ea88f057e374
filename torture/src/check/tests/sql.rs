//! Changes in SQL by the SQL client: what it commits counts as known, and what it rolls back must not show.

use super::{B, MS, S, Tale, seen, shows};
use crate::clock::Nanos;
use crate::history::{
    Change, Elevates, Entry, Found, Op, Outcome, Read, SQL_CLIENT, Seen, Written, op, process_of,
};

fn sql_client(number: u64) -> Op {
    op(SQL_CLIENT, 0, number)
}

fn update() -> Change {
    Change::Update { session: S, elevates: Elevates::AsBefore }
}

impl Tale {
    /// Answered at `from` + 10.
    fn in_sql(&mut self, number: u64, from: Nanos, change: Change, outcome: Outcome) -> &mut Self {
        self.acknowledge(sql_client(number), from, from + 10, change, outcome)
    }

    /// It makes a version for `b`, and this one for `a`.
    fn wrote(&mut self, number: u64, from: Nanos, version: i64) -> &mut Self {
        self.commit(number, version);
        self.in_sql(number, from, update(), Outcome::Wrote { session: S, version })
    }

    fn commit(&mut self, number: u64, version: i64) -> &mut Self {
        self.0.tables.writes.push(Written { n: 0, session: S, version, op: sql_client(number) });
        self
    }
}

/// What a node shows of a SQL client's update to version 3.
fn third(number: u64) -> Found {
    Found::Seen(Seen { b_version: 2, ..seen(3, sql_client(number)) })
}

#[test]
fn what_was_written_in_sql_is_known_to_the_nodes() {
    let mut tale = Tale::begin();
    tale.wrote(1, 100, 3).read(B, 1_109, shows(1, 1)).read(B, 1_200, third(1)).is_good();
    tale.read(0, 1_112, shows(1, 1)).breaks("I3");
    let mut tale = Tale::begin();
    let by_hand = Outcome::Wrote { session: S, version: 2 };
    tale.in_sql(1, 100, Change::ByHand { session: S }, by_hand).is_good();
    tale.read(B, 1_112, shows(1, 1)).breaks("I3");
}

#[test]
fn halves_of_a_transaction_are_not_seen() {
    let mut tale = Tale::begin();
    tale.wrote(1, 100, 3);
    tale.read(B, 200, Found::Seen(seen(3, sql_client(1)))).breaks("I6");
    let mut tale = Tale::begin();
    let half = Seen { b: sql_client(1), b_version: 2, ..seen(2, op(0, 0, 1)) };
    tale.wrote(1, 100, 3).read(B, 200, Found::Seen(half)).breaks("I6");
}

#[test]
fn what_was_rolled_back_is_neither_committed_nor_seen() {
    let mut tale = Tale::begin();
    tale.in_sql(1, 100, update(), Outcome::RolledBack).read(B, 200, shows(1, 1)).is_good();
    tale.read(B, 300, third(1)).breaks("I6");
    let mut tale = Tale::begin();
    tale.in_sql(1, 100, update(), Outcome::RolledBack).commit(1, 3).breaks("I5 no");
}

#[test]
fn what_was_rolled_back_is_not_notified() {
    let notified = |of_rolled_back| {
        let entry = Entry::Notified { notifications: 9, of_rolled_back, example: "1d07".to_owned() };
        let mut tale = Tale::begin();
        tale.entry(process_of(sql_client(0)), entry);
        tale
    };
    notified(0).is_good();
    notified(1).breaks("rollback");
}

#[test]
fn a_function_changes_nothing_that_has_ended() {
    let mut tale = Tale::begin();
    tale.delete(op(0, 0, 2), 100, 110).wrote(1, 105, 3).is_good();
    tale.wrote(2, 111, 5).breaks("I4 write");
}

#[test]
fn a_read_in_sql_shows_what_the_clerk_knew() {
    let mut tale = Tale::begin();
    let mut read = |from: Nanos, version| {
        let found = Found::Version(version);
        let (from, to) = (from * MS, (from + 1) * MS);
        let read = Read { session: S, from, to, at_least: 0, cached: false, found };
        tale.entry(process_of(sql_client(0)), Entry::Read(read)).report()
    };
    assert!(read(200, 2).is_good());
    assert!(read(205, 1).breaks("I2"));
}
