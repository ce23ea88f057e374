//! After `everywhere()` no node serves the old state; and each guard of the registry is needed.

use pg_session_model::registry::{Registry, RegistryGuard};
use stateright::{Checker, DiscoveryClassification, HasDiscoveries, Model};

/// One node besides the caller's.
const NODE: Registry = Registry {
    nodes: 1,
    beats: 2,
    ticks: 2,
    crashes: 0,
    losses: 0,
    slow: 0,
    other: false,
    late: false,
    removes: false,
    leaves: false,
    tells: false,
    removed: None,
};
const SLOW: Registry = Registry { slow: 1, removes: true, ..NODE };
const OTHER: Registry = Registry { other: true, ..NODE };
const CRASH: Registry = Registry { crashes: 1, ticks: 1, other: true, ..NODE };
/// A beat that proves, one that says that the listener is lost, and one that proves again.
const LOSS: Registry = Registry { losses: 1, beats: 3, tells: true, ..NODE };
const LATE: Registry = Registry { late: true, removes: true, ticks: 1, ..NODE };

#[track_caller]
fn holds(name: &str, bounds: Registry) {
    let checker = bounds.checker().spawn_bfs().join();
    let (unique, all) = (checker.unique_state_count(), checker.state_count());
    println!("{name}: {unique} states, {all} steps, {} deep", checker.max_depth());
    checker.assert_properties();
}

#[test]
fn a_node_with_a_slow_clock() {
    holds("a slow clock", Registry { leaves: true, ..SLOW });
}

#[test]
fn requests_of_two_callers() {
    holds("two requests", OTHER);
}

#[test]
fn a_crash_empties_the_registry() {
    holds("a crash", CRASH);
}

#[test]
fn a_connection_breaks() {
    holds("a loss", Registry { losses: 1, ..NODE });
}

#[test]
fn a_node_without_a_listener_says_so() {
    holds("a loss that the row shows", Registry { late: true, ..LOSS });
}

#[test]
fn a_beat_commits_late() {
    holds("a late beat", LATE);
}

#[test]
fn two_nodes() {
    holds("two nodes", Registry { nodes: 2, beats: 1, ticks: 1, ..NODE });
}

/// The first promise that breaks without the guard.
fn broken(guard: RegistryGuard) -> Option<String> {
    let bounds = match guard {
        RegistryGuard::RemovalAllowance | RegistryGuard::LapseAllowance => SLOW,
        RegistryGuard::RequestAfterCommit => OTHER,
        RegistryGuard::CompleteRegistry
        | RegistryGuard::HeardOfConnection
        | RegistryGuard::BeatOfConnection => CRASH,
        RegistryGuard::RemovalOfSeenBeat => Registry { removes: true, ..NODE },
        RegistryGuard::NewestBeat => LATE,
        RegistryGuard::LossAfterWindow | RegistryGuard::LossProvesNothing => LOSS,
        RegistryGuard::DoubtWhenListening => Registry { losses: 1, ..NODE },
        RegistryGuard::TrustEndsFirst => Registry { leaves: true, ..NODE },
        _ => NODE,
    };
    let policy = Registry { removed: Some(guard), ..bounds };
    let checker = policy.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (promise, path) = checker.discoveries().into_iter().find(|(promise, _)| {
        matches!(checker.discovery_classification(promise), DiscoveryClassification::Counterexample)
    })?;
    println!("without {guard:?}, {promise:?} breaks: {:?}", path.into_actions());
    Some(promise.to_owned())
}

#[test]
fn each_guard_of_the_registry_is_needed() {
    for &guard in RegistryGuard::ALL {
        let promise = broken(guard).unwrap_or_else(|| panic!("nothing breaks without {guard:?}"));
        let expected = match guard {
            RegistryGuard::OwnBeat | RegistryGuard::AsOfBeforeSending => "",
            RegistryGuard::Lapse => "everywhere() ends",
            _ => "no node serves",
        };
        assert!(promise.starts_with(expected), "{guard:?}: {promise}");
    }
}
