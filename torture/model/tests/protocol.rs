//! The protocol keeps its promises, whatever happens in whatever order, within bounds.

use std::sync::Arc;

use pg_session_model::policy::{Apart, Bounds, Ending, Policy};
use pg_session_model::tally::Seen;
use stateright::{Checker, Model};

/// One node, step by step, and another whose commits come at any moment.
const NODE: Bounds = Bounds {
    nodes: 1,
    elsewhere: true,
    updates: 1,
    ending: None,
    unknown: false,
    gives_up: false,
    apart: Apart::Nothing,
    again: false,
    death: false,
    disconnects: 0,
    window: 1,
    coarse: false,
};

/// Visits every state within the bounds; each of `seen` must have happened on the way.
#[track_caller]
fn holds(name: &str, bounds: Bounds, seen: &[Seen]) {
    let policy = Policy::new(bounds, &[]);
    let tally = Arc::clone(&policy.tally);
    let checker = policy.checker().spawn_bfs().join();
    let (unique, all) = (checker.unique_state_count(), checker.state_count());
    println!("{name}: {unique} states, {all} steps, {} deep; {tally:?}", checker.max_depth());
    checker.assert_properties();
    for &seen in seen {
        assert!(tally.count(seen) > 0, "{seen:?} never happened: the model shows nothing about it");
    }
}

#[test]
fn two_updates_and_a_delete() {
    let bounds = Bounds { updates: 2, ending: Some(Ending::Session), ..NODE };
    holds(
        "two updates and a delete",
        bounds,
        &[
            Seen::Hit,
            Seen::Join,
            Seen::None,
            Seen::Install,
            Seen::Refusal,
            Seen::Publish,
            Seen::LatePublish,
            Seen::Moved,
            Seen::NotFound,
        ],
    );
}

#[test]
fn a_user_logs_out_everywhere() {
    let bounds = Bounds { ending: Some(Ending::Owner), ..NODE };
    holds("a user's sessions end", bounds, &[Seen::Hit, Seen::Join, Seen::None, Seen::LatePublish]);
}

/// The first update moves the session to the group. Nodes that hold the first version do not find it by that group.
#[test]
fn a_group_ends_with_a_session_that_joins_it() {
    let bounds = Bounds { ending: Some(Ending::NewGroup), ..NODE };
    let seen = [Seen::Hit, Seen::Join, Seen::None, Seen::Refusal, Seen::LatePublish];
    holds("an update that joins a group, and its end", bounds, &seen);
}

/// The move notifies with its commit. What follows it commits first.
#[test]
fn a_group_ends_while_updates_notify_late() {
    let ending = Some(Ending::NewGroup);
    let bounds = Bounds { updates: 2, ending, apart: Apart::Updates, coarse: true, ..NODE };
    let seen = [Seen::Hit, Seen::Refusal, Seen::LatePublish, Seen::NotFound, Seen::LateNotice];
    holds("a group ends while updates notify late", bounds, &seen);
}

#[test]
fn all_users_are_logged_out() {
    let bounds = Bounds { ending: Some(Ending::All), ..NODE };
    holds("all sessions end", bounds, &[Seen::Hit, Seen::Join, Seen::None, Seen::LatePublish]);
}

#[test]
fn a_session_ends_by_itself() {
    let bounds = Bounds { updates: 2, ending: Some(Ending::Expiry), ..NODE };
    let seen = [
        Seen::EndedInMemory,
        Seen::EndedAboard,
        Seen::None,
        Seen::NotFound,
        Seen::Publish,
        Seen::LatePublish,
    ];
    holds("a session ends by itself", bounds, &seen);
}

#[test]
fn a_session_ends_by_itself_around_a_loss() {
    let bounds = Bounds { ending: Some(Ending::Expiry), disconnects: 1, coarse: true, ..NODE };
    let seen = [Seen::EndedInMemory, Seen::EndedAboard, Seen::TrustedAgain, Seen::Verified, Seen::NotFound];
    holds("an end and a loss", bounds, &seen);
}

#[test]
fn the_outcome_of_an_update_stays_unknown() {
    let bounds = Bounds { ending: Some(Ending::Session), unknown: true, ..NODE };
    holds("an unknown outcome", bounds, &[Seen::Hit, Seen::Refusal, Seen::LatePublish]);
}

#[test]
fn updates_commit_and_then_notify() {
    let bounds = Bounds { ending: Some(Ending::Session), apart: Apart::Updates, coarse: true, ..NODE };
    let seen = [Seen::Hit, Seen::Refusal, Seen::LatePublish, Seen::NotFound, Seen::LateNotice];
    holds("an update that notifies late, and a delete", bounds, &seen);
}

#[test]
fn two_updates_commit_and_then_notify() {
    let bounds = Bounds { updates: 2, apart: Apart::Updates, coarse: true, ..NODE };
    let seen = [Seen::Hit, Seen::Refusal, Seen::LatePublish, Seen::Moved, Seen::LateNotice];
    holds("two updates that notify late", bounds, &seen);
}

#[test]
fn an_update_ends_between_commit_and_notification() {
    let bounds = Bounds { unknown: true, gives_up: true, apart: Apart::Updates, coarse: true, ..NODE };
    let seen = [Seen::Hit, Seen::LateNotice, Seen::GapEnd, Seen::NoticeAgain, Seen::CommitAlone];
    holds("an update that ends before it notifies", bounds, &seen);
}

#[test]
fn a_node_ends_that_owes_a_notification() {
    let bounds = Bounds { unknown: true, death: true, apart: Apart::Updates, coarse: true, ..NODE };
    let seen = [Seen::Hit, Seen::GapEnd, Seen::Silence, Seen::Verified, Seen::Outdated];
    holds("a node ends that owes a notification", bounds, &seen);
}

#[test]
fn a_loss_meets_updates_that_notify_late() {
    let bounds = Bounds { unknown: true, apart: Apart::Updates, disconnects: 1, coarse: true, ..NODE };
    let seen = [Seen::Hit, Seen::GapEnd, Seen::NoticeAgain, Seen::Verified, Seen::Outdated];
    holds("a loss and an update that notifies late", bounds, &seen);
}

#[test]
fn a_connection_is_lost_and_the_node_is_trusted_again() {
    let bounds = Bounds { disconnects: 1, ..NODE };
    let seen = [
        Seen::Hit,
        Seen::TrustedAgain,
        Seen::InstallAfterLoss,
        Seen::Verified,
        Seen::Outdated,
        Seen::LatePublish,
    ];
    holds("a loss", bounds, &seen);
}

#[test]
fn a_session_ends_around_a_loss() {
    let bounds = Bounds { ending: Some(Ending::Session), disconnects: 1, coarse: true, ..NODE };
    let seen =
        [Seen::Hit, Seen::TrustedAgain, Seen::Verified, Seen::Outdated, Seen::LatePublish, Seen::NotFound];
    holds("a loss and a delete", bounds, &seen);
}

#[test]
fn two_losses() {
    let bounds = Bounds { disconnects: 2, coarse: true, ..NODE };
    holds("two losses", bounds, &[Seen::Hit, Seen::TrustedAgain, Seen::Verified, Seen::Outdated]);
}

#[test]
fn a_window_of_two_ticks() {
    let bounds = Bounds { window: 2, ending: Some(Ending::Session), ..NODE };
    holds("a window of two ticks", bounds, &[Seen::Hit, Seen::Join, Seen::LatePublish]);
}

#[test]
fn two_nodes_with_all_their_lanes() {
    let bounds = Bounds {
        nodes: 2,
        elsewhere: false,
        updates: 0,
        ending: Some(Ending::Session),
        coarse: true,
        ..NODE
    };
    holds("two nodes and a delete", bounds, &[Seen::Hit, Seen::Join, Seen::None, Seen::Refusal]);
}

#[test]
#[ignore = "minutes"]
fn deeper_three_updates_and_a_delete() {
    let bounds = Bounds { updates: 3, ending: Some(Ending::Session), coarse: true, ..NODE };
    holds("three updates and a delete", bounds, &[Seen::Hit, Seen::Join, Seen::LatePublish, Seen::NotFound]);
}

#[test]
#[ignore = "minutes"]
fn deeper_two_updates_and_a_loss() {
    let bounds = Bounds { updates: 2, disconnects: 1, coarse: true, ..NODE };
    holds(
        "two updates and a loss",
        bounds,
        &[Seen::Hit, Seen::TrustedAgain, Seen::Verified, Seen::LatePublish],
    );
}
