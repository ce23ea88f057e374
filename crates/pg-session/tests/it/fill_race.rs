//! The fill race: a load that a change overtakes must leave nothing behind. Ten thousand races, on the node that
//! changes and on another one. Control runs without the ticket must fail.
//!
//! ```text
//! reader   ticket ── SELECT (version 1) ──▶ Loaded ┊                                  ┊ install? answer
//! writer                                           ┊ UPDATE or DELETE, COMMIT, NOTIFY ┊
//! reader                                           ┊ receives it                         ┊
//! ```
//!
//! The tests run on one thread: so all loads of a round leave in one statement, and stop at the gate together.

use pg_session::testing::{Guard, Point};
use pg_session::{Session, SessionManager};

use crate::fixtures::{all, hit, ids, make, n, read, update_all};
use crate::support::World;

/// Sessions of one round: loaded by one statement, and changed by few.
const SESSIONS: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Update,
    Delete,
}

/// What the rounds have seen.
#[derive(Default)]
struct Seen {
    /// Loads that had their rows before the change and were not installed before it was received.
    races: usize,
    /// Reads that began after all that and were answered with the state before the change.
    stale: usize,
}

/// Races `rounds` times `SESSIONS` loads of `reader` against changes by `writer`, which may be the same node.
async fn race(writer: &SessionManager, reader: &SessionManager, rounds: usize, change: Change) -> Seen {
    let mut seen = Seen::default();
    for _ in 0..rounds {
        let mut sessions = make(writer, SESSIONS).await;
        let ids = ids(&sessions);
        let gate = reader.probes().close(Point::Loaded);
        let loads = all(ids.iter().map(|&id| reader.get(id).bypass_cache()));
        let overtake = async {
            gate.arrived(1).await;
            carry_out(writer, &mut sessions, change).await;
            reader.catch_up().await.unwrap();
            gate.open();
        };
        let (loaded, ()) = tokio::join!(loads, overtake);
        seen.races += loaded.iter().filter(|answer| version_in(answer) == Some(1)).count();
        // Twice: what the first read finds, and what it leaves for the second.
        for _ in 0..2 {
            let answers = all(ids.iter().map(|&id| reader.get(id))).await;
            seen.stale += answers.iter().filter(|answer| is_stale(answer, change)).count();
        }
    }
    seen
}

async fn carry_out(node: &SessionManager, sessions: &mut [Session], change: Change) {
    match change {
        Change::Update => update_all(node, sessions, 2).await,
        Change::Delete => {
            for deleted in all(sessions.iter().map(|session| node.delete(session.id()))).await {
                assert!(deleted.unwrap());
            }
        }
    }
}

type Answer = Result<Option<Session>, pg_session::Error>;

fn version_in(answer: &Answer) -> Option<i64> {
    answer.as_ref().unwrap().as_ref().map(|session| session.version().get())
}

fn is_stale(answer: &Answer, change: Change) -> bool {
    match answer.as_ref().unwrap() {
        Some(session) => change == Change::Delete || session.version().get() != 2 || n(session) != 2,
        None => change == Change::Update,
    }
}

#[tokio::test]
async fn a_load_overtaken_by_another_nodes_update_is_not_cached() {
    let [a, b] = World::new().nodes().await;
    let seen = race(&a, &b, 40, Change::Update).await;
    assert_eq!((seen.races, seen.stale), (40 * SESSIONS, 0));
}

#[tokio::test]
async fn a_load_overtaken_by_another_nodes_delete_is_not_cached() {
    let [a, b] = World::new().nodes().await;
    let seen = race(&a, &b, 20, Change::Delete).await;
    assert_eq!((seen.races, seen.stale), (20 * SESSIONS, 0));
}

#[tokio::test]
async fn a_load_overtaken_by_an_update_of_its_own_node_is_not_cached() {
    let [a] = World::new().nodes().await;
    let seen = race(&a, &a, 20, Change::Update).await;
    assert_eq!((seen.races, seen.stale), (20 * SESSIONS, 0));
}

#[tokio::test]
async fn a_load_overtaken_by_a_delete_of_its_own_node_is_not_cached() {
    let [a] = World::new().nodes().await;
    let seen = race(&a, &a, 20, Change::Delete).await;
    assert_eq!((seen.races, seen.stale), (20 * SESSIONS, 0));
}

#[tokio::test]
async fn control_without_the_ticket_an_overtaken_load_is_served() {
    let [a, b] = World::new().nodes().await;
    b.probes().remove(Guard::FillTicket);
    let seen = race(&a, &b, 1, Change::Update).await;
    assert_eq!(
        (seen.races, seen.stale),
        (SESSIONS, 2 * SESSIONS),
        "the races are real: only the ticket ends them"
    );
}

#[tokio::test]
async fn control_without_the_ticket_deleted_sessions_are_served() {
    let [a, b] = World::new().nodes().await;
    for node in [&a, &b] {
        node.probes().remove(Guard::FillTicket);
        let seen = race(&a, node, 1, Change::Delete).await;
        assert_eq!((seen.races, seen.stale), (SESSIONS, 2 * SESSIONS));
    }
}

/// A: delete acknowledged, while A's load has its row · A: get, before the load has landed.
///
/// The load in flight is no answer for a read that begins after the change: it must not be joined.
#[tokio::test]
async fn a_read_after_a_change_does_not_join_a_load_from_before_it() {
    let [a] = World::new().nodes().await;
    for change in [Change::Update, Change::Delete] {
        let mut sessions = make(&a, SESSIONS).await;
        let ids = ids(&sessions);
        a.evict_all().await.unwrap();
        let gate = a.probes().close(Point::Loaded);
        let before = all(ids.iter().map(|&id| a.get(id)));
        let overtake = async {
            gate.arrived(1).await;
            carry_out(&a, &mut sessions, change).await;
            // Dropped from memory again: these reads have to ask, and find the old loads in the air.
            a.evict_all().await.unwrap();
            let after = all(ids.iter().map(|&id| a.get(id)));
            let open = async { gate.open() };
            tokio::join!(after, open).0
        };
        let (before, after) = tokio::join!(before, overtake);
        assert!(before.iter().all(|answer| version_in(answer) == Some(1)));
        assert!(!after.iter().any(|answer| is_stale(answer, change)));
    }
}

/// The other direction. B: receives the change · B: load leaves.
#[tokio::test]
async fn a_load_that_starts_after_the_invalidation_is_cached() {
    let [a, b] = World::new().nodes().await;
    let mut sessions = make(&a, SESSIONS).await;
    let ids = ids(&sessions);
    crate::fixtures::read_all(&b, &ids).await;
    update_all(&a, &mut sessions, 2).await;
    b.catch_up().await.unwrap();
    for (session, from_cache) in ids.iter().flat_map(|&id| [(id, false), (id, true)]) {
        let session = read(&b, session).await;
        assert_eq!((session.version().get(), n(&session), session.is_from_cache()), (2, 2, from_cache));
    }
    let deletes = sessions.iter().map(|session| a.delete(session.id()));
    assert!(all(deletes).await.into_iter().all(|deleted| deleted.unwrap()));
    b.catch_up().await.unwrap();
    assert!(all(ids.iter().map(|&id| b.get(id))).await.iter().all(|answer| version_in(answer).is_none()));
}

/// A: update · B: load leaves, sees version 2 ┊ Loaded ┊ B: learns of version 2 · B: fills.
///
/// The row contains what was received: refusing it would make a node that loads right after a change load twice.
#[tokio::test]
async fn a_change_that_the_loaded_row_contains_does_not_keep_it_out() {
    let world = World::new();
    let [a] = world.nodes().await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, world.roomy()).await;
    let mut sessions = make(&a, SESSIONS).await;
    let ids = ids(&sessions);
    b.catch_up().await.unwrap();
    wire.stall();
    update_all(&a, &mut sessions, 2).await;
    let gate = b.probes().close(Point::Loaded);
    let loads = all(ids.iter().map(|&id| b.get(id)));
    let receive = async {
        gate.arrived(1).await;
        wire.heal();
        b.catch_up().await.unwrap();
        gate.open();
    };
    let (loaded, ()) = tokio::join!(loads, receive);
    assert!(loaded.iter().all(|answer| version_in(answer) == Some(2)));
    let hits = ids.iter().filter_map(|&id| hit(&b, id));
    assert_eq!(hits.filter(|session| session.version().get() == 2).count(), SESSIONS);
}
