//! Memory holds rows of the listener's server only, wherever the pool leads; and each check of it is needed.

use pg_session_model::servers::{ServerGuard, Servers};
use stateright::{Checker, DiscoveryClassification, HasDiscoveries, Model};

const BOUNDS: Servers = Servers { commits: 1, moves: 2, removed: None };

#[track_caller]
fn holds(bounds: Servers) {
    let checker = bounds.checker().spawn_bfs().join();
    let (unique, all) = (checker.unique_state_count(), checker.state_count());
    println!("two servers: {unique} states, {all} steps, {} deep", checker.max_depth());
    checker.assert_properties();
}

#[test]
fn only_rows_of_the_listeners_server_are_served() {
    holds(BOUNDS);
}

#[test]
#[ignore = "a minute"]
fn deeper_two_commits() {
    holds(Servers { commits: 2, ..BOUNDS });
}

#[test]
fn each_check_of_the_server_is_needed() {
    for guard in ServerGuard::ALL {
        let policy = Servers { removed: Some(guard), ..BOUNDS };
        let checker = policy.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let broken = checker.discoveries().into_iter().find(|(promise, _)| {
            matches!(checker.discovery_classification(promise), DiscoveryClassification::Counterexample)
        });
        let (promise, path) = broken.unwrap_or_else(|| panic!("nothing breaks without {guard:?}"));
        println!("without {guard:?}, {promise:?} breaks: {:?}", path.into_actions());
    }
}
