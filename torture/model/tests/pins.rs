//! A pin ends with its session, within the window and not before; and each check of it is needed.

use std::collections::BTreeSet;

use pg_session_model::pins::{PinGuard, Pins};
use stateright::{Checker, HasDiscoveries, Model};

const BOUNDS: Pins = Pins { updates: 1, forgeries: 1, losses: 1, removed: None };

#[test]
fn a_pin_ends_with_its_session_and_not_before() {
    let checker = BOUNDS.checker().spawn_bfs().join();
    let (unique, all) = (checker.unique_state_count(), checker.state_count());
    println!("a pin: {unique} states, {all} steps, {} deep", checker.max_depth());
    checker.assert_properties();
}

#[test]
fn each_check_of_a_pin_is_needed() {
    for guard in PinGuard::ALL {
        let policy = Pins { removed: Some(guard), ..BOUNDS };
        let promise = guard.promise();
        let wanted = HasDiscoveries::AllOf(BTreeSet::from([promise]));
        let checker = policy.checker().finish_when(wanted).spawn_bfs().join();
        let path = checker.discovery(promise);
        let path = path.unwrap_or_else(|| panic!("{promise:?} holds without {guard:?}"));
        println!("without {guard:?}, {promise:?} breaks: {:?}", path.into_actions());
    }
}
