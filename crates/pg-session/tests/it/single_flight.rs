//! Misses of one session share a query. Misses of many sessions share a statement. No miss depends on another caller.
//!
//! The tests run on one thread: so all reads are queued before the loader takes any.

use pg_session::testing::Point;
use pg_session::{SessionId, SessionManager};
use uuid::Uuid;

use crate::fixtures::{all, hit, ids, make, read_all};
use crate::support::World;

/// Statements and sessions that `work` makes `node` load.
async fn cost_of<T>(node: &SessionManager, work: impl Future<Output = T>) -> (u64, u64, T) {
    let before = node.status().loads;
    let outcome = work.await;
    let after = node.status().loads;
    (after.statements - before.statements, after.sessions - before.sessions, outcome)
}

#[tokio::test]
async fn a_thousand_misses_of_one_session_cost_one_query() {
    let [a, b] = World::new().nodes().await;
    let id = make(&a, 1).await[0].id();
    let (statements, sessions, found) = cost_of(&b, read_all(&b, &[id; 1_000])).await;
    assert_eq!((statements, sessions, found.len()), (1, 1, 1_000));
}

#[tokio::test]
async fn misses_join_a_load_that_is_under_way() {
    let [a, b] = World::new().nodes().await;
    let readers = [make(&a, 1).await[0].id(); 1_000];
    let gate = b.probes().close(Point::Loaded);
    let late = async {
        gate.arrived(1).await;
        tokio::join!(read_all(&b, &readers), async { gate.open() }).0
    };
    let both = async { tokio::join!(read_all(&b, &readers[..1]), late) };
    let (statements, _, (first, late)) = cost_of(&b, both).await;
    assert_eq!((statements, first.len(), late.len()), (1, 1, 1_000));
}

#[tokio::test]
async fn a_thousand_misses_of_different_sessions_cost_few_statements() {
    let [a, b] = World::new().nodes().await;
    let ids = ids(&make(&a, 1_000).await);
    let (statements, sessions, _) = cost_of(&b, read_all(&b, &ids)).await;
    assert_eq!((statements, sessions), (4, 1_000), "256 by 256");
}

#[tokio::test]
async fn a_thousand_misses_of_one_unknown_session_cost_one_query() {
    let [a] = World::new().nodes().await;
    let unknown = SessionId::from_uuid(Uuid::new_v4());
    let (statements, _, answers) = cost_of(&a, all((0..1_000).map(|_| a.get(unknown)))).await;
    assert_eq!(statements, 1);
    assert!(answers.into_iter().all(|answer| answer.unwrap().is_none()));
}

#[tokio::test]
async fn a_reader_that_is_dropped_does_not_fail_the_others() {
    let [a, b] = World::new().nodes().await;
    let readers = [make(&a, 1).await[0].id(); 10];
    let id = readers[0];
    let gate = b.probes().close(Point::Loaded);
    // The one that caused the load leaves; so does one that has joined it.
    assert!(hit(&b, id).is_none());
    let stay = async {
        gate.arrived(1).await;
        assert!(hit(&b, id).is_none());
        tokio::join!(read_all(&b, &readers), async { gate.open() }).0
    };
    let (statements, _, stayed) = cost_of(&b, stay).await;
    assert_eq!((statements, stayed.len()), (1, 10), "the load went on without its first reader");
    assert!(hit(&b, id).is_some(), "and was kept");
}
