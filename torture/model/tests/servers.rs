//! Memory holds rows of the listener's server only, wherever the pool leads; and each check of it is needed.

use pg_session_model::servers::{ServerGuard, Servers};
use stateright::{Checker, DiscoveryClassification, HasDiscoveries, Model};

const BOUNDS: Servers = Servers { commits: 1, moves: 2, restores: 0, revokes: false, removed: None };
const RESTORED: Servers = Servers { commits: 0, moves: 1, restores: 1, ..BOUNDS };
const REVOKED: Servers = Servers { commits: 0, moves: 2, revokes: true, ..BOUNDS };

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
fn restored_tables_are_another_server() {
    holds(RESTORED);
}

#[test]
fn revocations_are_acknowledged_on_the_listeners_server_only() {
    holds(REVOKED);
}

#[test]
#[ignore = "a minute"]
fn deeper_two_commits() {
    holds(Servers { commits: 2, ..BOUNDS });
}

#[test]
fn each_check_of_the_server_is_needed() {
    for guard in ServerGuard::ALL {
        let bounds = match guard {
            ServerGuard::Tables => RESTORED,
            ServerGuard::Revocation => REVOKED,
            _ => BOUNDS,
        };
        let policy = Servers { removed: Some(guard), ..bounds };
        let checker = policy.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let broken = checker.discoveries().into_iter().find(|(promise, _)| {
            matches!(checker.discovery_classification(promise), DiscoveryClassification::Counterexample)
        });
        let (promise, path) = broken.unwrap_or_else(|| panic!("nothing breaks without {guard:?}"));
        println!("without {guard:?}, {promise:?} breaks: {:?}", path.into_actions());
    }
}
