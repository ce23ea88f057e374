//! Every guard is needed: without it, there is a story in which a promise is broken, and it is printed.

use pg_session_model::guard::Guard;
use pg_session_model::policy::{Apart, Bounds, Ending, Policy};
use stateright::{Checker, HasDiscoveries, Model};

/// One node and a delete.
const DELETE: Bounds = Bounds {
    nodes: 1,
    elsewhere: true,
    updates: 1,
    ending: Some(Ending::Session),
    unknown: false,
    gives_up: false,
    apart: Apart::Nothing,
    again: false,
    death: false,
    disconnects: 0,
    window: 1,
    coarse: false,
};
const OWNER: Bounds = Bounds { ending: Some(Ending::Owner), ..DELETE };
const ALL: Bounds = Bounds { ending: Some(Ending::All), ..DELETE };
const EXPIRY: Bounds = Bounds { ending: Some(Ending::Expiry), ..DELETE };
const UPDATES: Bounds = Bounds { updates: 2, ending: None, ..DELETE };
const LOSS: Bounds = Bounds { ending: None, disconnects: 1, coarse: true, ..DELETE };

const APART: Bounds = Bounds { unknown: true, gives_up: true, apart: Apart::Updates, ending: None, ..DELETE };

/// The first update moves the session to the group that ends.
const NEW_GROUP: Bounds = Bounds { ending: Some(Ending::NewGroup), ..DELETE };
const NEW_GROUP_APART: Bounds = Bounds { apart: Apart::Updates, coarse: true, ..NEW_GROUP };

const DEATH: Bounds = Bounds { death: true, ..APART };

/// The shortest story in which a promise is broken: the promise, and the steps.
fn broken(bounds: Bounds, removed: &'static [Guard]) -> Option<(&'static str, Vec<String>)> {
    let policy = Policy::new(bounds, removed);
    let checker = policy.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (promise, path) = checker
        .discoveries()
        .into_iter()
        .min_by_key(|(promise, path)| (path.clone().into_actions().len(), *promise))?;
    Some((promise, path.into_actions().iter().map(|action| format!("{action:?}")).collect()))
}

/// Without this one guard, one of `promises` is the first to break.
#[track_caller]
fn needed(guard: &'static [Guard; 1], bounds: Bounds, promises: &[&str]) {
    let (promise, steps) =
        broken(bounds, guard).expect("nothing breaks without the guard: it guards nothing");
    println!("without {:?}, {} steps to break {promise:?}: {}", guard[0], steps.len(), steps.join(" "));
    assert!(promises.iter().any(|expected| promise.starts_with(expected)), "{promise}");
}

macro_rules! needed {
    ($($name:ident: $guard:ident in $bounds:ident breaks $($promise:literal)+;)+) => {
        /// What is taken away below.
        const TRIED: &[Guard] = &[$(Guard::$guard),+];

        $(
            #[test]
            fn $name() {
                needed(&[Guard::$guard], $bounds, &[$($promise),+]);
            }
        )+
    };
}

needed! {
    fill_ticket: FillTicket in DELETE breaks "I1";
    the_ticket_before_the_query: TicketBeforeQuery in DELETE breaks "I1";
    the_ticket_before_the_statement: TicketBeforeStatement in DELETE breaks "I1";
    invalidations_are_noted: Note in DELETE breaks "I1";
    forgotten_invalidations_refuse: Forgotten in DELETE breaks "I1";
    an_end_is_the_highest_version: Tombstone in DELETE breaks "I1";
    a_refused_record_drops_a_lower_one: SeenDropsLower in LOSS breaks "I2";
    a_write_remembers_what_was_shown: Writing in UPDATES breaks "I2";
    a_publish_refuses_older_loads: PublishNotes in DELETE breaks "I2";
    published_after_the_commit: PublishAfterCommit in DELETE breaks "I1" "only";
    published_before_the_answer: PublishBeforeAnswer in DELETE breaks "I2";
    what_an_update_did_not_find_is_dropped: NotFoundForgets in DELETE breaks "I4";
    what_came_between_is_read: Found in UPDATES breaks "I6";
    applied_to_its_base_only: Moved in UPDATES breaks "I6";
    a_delete_is_forgotten_before_the_answer: ForgetBeforeAnswer in DELETE breaks "I4";
    what_the_end_of_a_group_names_is_dropped: NamedForgets in NEW_GROUP breaks "I4";
    a_move_to_a_group_notifies_inside: MoveInside in NEW_GROUP_APART breaks "I4";
    what_a_load_did_not_find_is_noted: Discard in DELETE breaks "I4";
    a_drop_of_the_owner_refuses_older_loads: OwnerDropped in OWNER breaks "I1";
    a_drop_of_all_begins_a_generation: Generation in ALL breaks "I1";
    a_drop_of_the_owner_ends_joining: Unnamed in OWNER breaks "I4";
    only_the_trusted_join: JoinTrusted in DELETE breaks "I3" "I4";
    only_current_loads_are_joined: JoinCurrent in DELETE breaks "I4";
    the_trust_window: TrustWindow in DELETE breaks "I3" "I4";
    until_is_read_first: UntilFirst in DELETE breaks "I3" "I4";
    the_clock_is_read_last: ClockLast in DELETE breaks "I3" "I4";
    entries_are_verified: Verified in LOSS breaks "I3";
    no_hit_after_the_end: Expiry in EXPIRY breaks "I4";
    no_load_from_before_the_end: JoinLive in EXPIRY breaks "I4";
    an_update_is_notified_again: NotifyAgain in APART breaks "every node learns";
    a_silent_node_makes_others_verify: Silence in DEATH breaks "every node learns";
    settled_when_the_row_is_free: RowFree in APART breaks "every node learns";
    notified_before_the_answer: NotifyBeforeAnswer in APART breaks "I3";
    a_barrier_and_not_a_ping: Barrier in DELETE breaks "I3" "I4";
    the_time_before_sending: AsOfBeforeSending in DELETE breaks "I3" "I4";
    a_loss_begins_an_epoch: LossBeginsEpoch in LOSS breaks "I3";
    listen_again: Relisten in LOSS breaks "every node";
    only_the_databases_version_is_verified: VerifyVersion in LOSS breaks "I3";
    an_entry_is_of_its_tickets_epoch: TicketsEpoch in LOSS breaks "I3";
    only_loads_of_this_epoch_are_joined: JoinEpoch in LOSS breaks "I3";
    disconnected_node_keeps_nothing: Listening in LOSS breaks "a disconnected node";
    a_loss_ends_the_trust: LossRevokes in LOSS breaks "after a loss";
}

/// A process ends between a delete and its notification. A client deletes again and gets the answer that there is none.
#[test]
fn a_delete_that_commits_first_breaks_a_promise() {
    let bounds = Bounds { apart: Apart::Deletes, again: true, updates: 0, ..DELETE };
    let (promise, steps) = broken(bounds, &[]).expect("the second answer is true on every node");
    println!("deletes apart, {} steps to break {promise:?}: {}", steps.len(), steps.join(" "));
    assert!(promise.starts_with("I4"), "{promise}");
    assert!(
        broken(Bounds { apart: Apart::Nothing, ..bounds }, &[]).is_none(),
        "a delete that notifies inside is safe"
    );
}

/// A guard that no test removes might guard nothing.
#[test]
fn every_guard_is_tried() {
    for guard in Guard::ALL {
        assert_eq!(TRIED.iter().filter(|tried| *tried == guard).count(), 1, "{guard:?}");
    }
}
