//! Deletes of more sessions than one notification can name: 242 ids fit into 7 999 bytes.
//!
//! PostgreSQL refuses a longer payload, and with it the delete: so each of these is also a test of the payloads.

use pg_session::{Create, SessionId, SessionManager, UserId};

use crate::fixtures::{all, hit, read, read_all};
use crate::support::World;

/// Deletes all but two of `count + 2` sessions that both nodes have in memory; the deleting call is `delete`.
async fn delete_and_look(
    count: usize,
    create: impl AsyncFn(&SessionManager, usize) -> Vec<SessionId>,
    delete: impl AsyncFn(&SessionManager, &[SessionId]) -> u64,
) {
    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let spared = of_many_users(&nodes[0], 2).await;
    let to_evict = create(&nodes[0], count).await;
    read_all(&nodes[1], &to_evict).await;
    read_all(&nodes[1], &spared).await;
    assert_eq!(nodes[1].status().cache.sessions, count + 2);

    assert_eq!(delete(&nodes[0], &to_evict).await, u64::try_from(count).unwrap());
    assert_eq!(nodes[0].status().cache.sessions, 2, "gone on the deleting node at once");
    nodes[1].catch_up().await.unwrap();
    for node in &nodes {
        assert!(spared.iter().all(|&id| hit(node, id).is_some()), "still in memory");
        assert_eq!(node.status().cache.sessions, 2);
        for answer in all(to_evict.iter().map(|&id| node.get(id))).await {
            assert!(answer.unwrap().is_none());
        }
    }
    let client = world.client().await;
    for (table, left) in [("sessions", 2), ("session_attributes", 1)] {
        let rows = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), left, "rows of {table}");
    }
    read(&nodes[1], spared[0]).await;
}

/// One attribute in the session's row, and in every second session one with a row of its own.
fn with_attributes(create: Create<'_>, at: usize) -> Create<'_> {
    let create = create.set("n", &1);
    if at.is_multiple_of(2) { create.set("page", &"x".repeat(600)) } else { create }
}

async fn of_many_users(node: &SessionManager, count: usize) -> Vec<SessionId> {
    let new_sessions = (0..count).map(|at| with_attributes(node.create(i64::try_from(at).unwrap()), at));
    all(new_sessions).await.into_iter().map(|born| born.unwrap().id()).collect()
}

async fn of_one_user(node: &SessionManager, count: usize) -> Vec<SessionId> {
    let new_sessions = (0..count).map(|at| with_attributes(node.create(UserId::named("ann")), at));
    all(new_sessions).await.into_iter().map(|born| born.unwrap().id()).collect()
}

async fn given(node: &SessionManager, ids: &[SessionId]) -> u64 {
    node.delete_many(ids.iter().copied()).await.unwrap()
}

async fn of_ann(node: &SessionManager, _: &[SessionId]) -> u64 {
    node.user(UserId::named("ann")).delete().await.unwrap()
}

#[tokio::test]
async fn two_hundred_and_two_sessions_are_deleted_in_one_call() {
    delete_and_look(202, of_many_users, given).await;
}

#[tokio::test]
async fn two_hundred_and_three_sessions_are_deleted_in_one_call() {
    delete_and_look(203, of_many_users, given).await;
}

/// Our own limit, just below, at and above it, and twice.
#[tokio::test]
async fn the_edges_of_a_payload_are_deleted_in_one_call() {
    for count in [241, 242, 243, 484, 485] {
        delete_and_look(count, of_many_users, given).await;
    }
}

#[tokio::test]
async fn ten_thousand_sessions_are_deleted_in_one_call() {
    delete_and_look(10_000, of_many_users, given).await;
}

#[tokio::test]
async fn ten_thousand_sessions_of_one_user_are_deleted_in_one_call() {
    delete_and_look(10_000, of_one_user, of_ann).await;
}

#[tokio::test]
async fn ten_thousand_logouts_at_once_reach_the_other_node() {
    let one_by_one = async |node: &SessionManager, ids: &[SessionId]| {
        let deletes = all(ids.iter().map(|&id| node.delete(id))).await;
        u64::try_from(deletes.into_iter().filter(|deleted| *deleted.as_ref().unwrap()).count()).unwrap()
    };
    delete_and_look(10_000, of_many_users, one_by_one).await;
}
