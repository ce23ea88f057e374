//! What nodes show after `everywhere()`, and when it returns.

use super::{A, B, MS, Tale, shows};
use crate::clock::Nanos;
use crate::history::{Change, Entry, Fault, Outcome, op, process_of};

/// A deletion that has waited for all nodes returns at 110.
fn deleted_everywhere() -> Tale {
    let mut tale = Tale::begin();
    let deletion = op(A, 0, 2);
    let entry = Entry::Everywhere { op: deletion, took: 5 * MS, acknowledged: 2, lapsed: 0 };
    tale.delete(deletion, 100, 110).entry(process_of(deletion), entry);
    tale
}

#[test]
fn after_everywhere_no_node_shows_what_has_ended() {
    deleted_everywhere().read(B, 109, shows(1, 1)).is_good();
    deleted_everywhere().read(B, 111, shows(1, 1)).breaks("everywhere");
}

#[test]
fn everywhere_returns_in_time_unless_its_node_is_stopped() {
    let returned_after = |took: Nanos, stopped: Option<&str>| {
        let mut tale = Tale::begin();
        let deletion = op(A, 0, 2);
        let entry = Entry::Everywhere { op: deletion, took: took * MS, acknowledged: 1, lapsed: 1 };
        tale.delete(deletion, 100, 110 + took).entry(process_of(deletion), entry);
        if let Some(name) = stopped {
            let (begin, end) = (200 * MS, 700 * MS);
            tale.entry(0, Entry::Fault(Fault { name: name.to_owned(), begin, end, over: end }));
        }
        tale
    };
    returned_after(1_200, None).is_good();
    returned_after(1_300, None).breaks("everywhere time");
    returned_after(1_700, Some("node-stop-2x")).is_good();
    returned_after(1_700, Some("delay-1s")).breaks("everywhere time");
    returned_after(1_800, Some("node-stop-2x")).breaks("everywhere time");
}

#[test]
fn after_an_eviction_everywhere_no_node_shows_an_old_version() {
    let evicted = |known_at| {
        let mut tale = Tale::begin();
        let eviction = op(A, 0, 3);
        tale.update(op(A, 0, 2), known_at - 10, known_at, 2);
        tale.acknowledge(eviction, 100, 110, Change::EvictUser { user: 3 }, Outcome::Gone);
        let entry = Entry::Everywhere { op: eviction, took: 5 * MS, acknowledged: 2, lapsed: 0 };
        tale.entry(process_of(eviction), entry).read(B, 111, shows(1, 1));
        tale
    };
    evicted(90).breaks("everywhere");
    evicted(105).is_good();
}
