//! The publish race: between an update's COMMIT and its publication in the node's memory, others may change the
//! session. What is published late must not replace, or bring back, anything.

use pg_session::testing::{Gate, Guard, Point};
use pg_session::{Session, SessionManager};

use crate::fixtures::{all, hit, ids, in_time, make, n, read, read_all, update_all};
use crate::support::World;

/// So few that they are one statement's.
const SESSIONS: usize = 40;
/// Statements that a round's updates make: all of them wait when the first leaves.
const STATEMENTS: usize = 1;

/// Commits version 2 of all `sessions` on `node`, does `meanwhile`, and lets it be published.
async fn committed_while<T>(
    node: &SessionManager,
    sessions: &mut [Session],
    meanwhile: impl AsyncFnOnce(&Gate) -> T,
) -> T {
    let gate = node.probes().close(Point::Committed);
    let overtake = async {
        in_time("the updates are committed", gate.arrived(STATEMENTS)).await;
        let outcome = meanwhile(&gate).await;
        gate.open();
        outcome
    };
    let ((), outcome) = tokio::join!(update_all(node, sessions, 2), overtake);
    outcome
}

/// A: commits 2 ┊ B: commits 3 · A: learns of 3 ┊ A: publishes 2.
async fn overtaken_by_an_update(a: &SessionManager, b: &SessionManager) -> Vec<Session> {
    let mut sessions = make(a, SESSIONS).await;
    let ids = ids(&sessions);
    committed_while(a, &mut sessions, async |_| {
        let mut on_b = read_all(b, &ids).await;
        assert!(on_b.iter().all(|session| session.version().get() == 2));
        update_all(b, &mut on_b, 3).await;
        a.catch_up().await.unwrap();
    })
    .await;
    assert!(sessions.iter().all(|session| session.version().get() == 2), "the handles show their own commit");
    read_all(a, &ids).await
}

#[tokio::test]
async fn a_late_publish_does_not_replace_a_newer_version() {
    let [a, b] = World::new().nodes().await;
    for _ in 0..20 {
        for session in overtaken_by_an_update(&a, &b).await {
            assert_eq!((session.version().get(), n(&session)), (3, 3));
        }
    }
}

#[tokio::test]
async fn control_without_the_ticket_a_late_publish_is_served() {
    let [a, b] = World::new().nodes().await;
    a.probes().remove(Guard::FillTicket);
    let served = overtaken_by_an_update(&a, &b).await;
    assert_eq!(served.iter().filter(|session| session.version().get() == 2).count(), SESSIONS);
}

#[tokio::test]
async fn control_without_the_publish_order_a_late_publish_is_served() {
    let [a, b] = World::new().nodes().await;
    a.probes().remove(Guard::PublishOrder);
    let served = overtaken_by_an_update(&a, &b).await;
    assert_eq!(served.iter().filter(|session| session.version().get() == 2).count(), SESSIONS);
}

/// A: commits 2 ┊ A: loads 3, which B has committed, before A learns of it ┊ A: publishes 2.
#[tokio::test]
async fn late_publish_does_not_replace_newer_loaded_version() {
    let world = World::new();
    let [b] = world.nodes().await;
    let wire = world.proxy().await;
    let a = world.node_listening_through(&wire, world.roomy()).await;
    let mut sessions = make(&a, SESSIONS).await;
    let ids = ids(&sessions);
    committed_while(&a, &mut sessions, async |_| {
        wire.stall();
        update_all(&b, &mut read_all(&b, &ids).await, 3).await;
        for session in all(ids.iter().map(|&id| a.get(id).bypass_cache())).await {
            assert_eq!(session.unwrap().unwrap().version().get(), 3);
        }
    })
    .await;
    assert!(read_all(&a, &ids).await.iter().all(|session| session.version().get() == 3), "I2");
    wire.heal();
}

/// A: commits 2 ┊ the session is deleted, on A or on B, and A knows ┊ A: publishes 2.
#[tokio::test]
async fn a_late_publish_does_not_undo_a_delete() {
    let [a, b] = World::new().nodes().await;
    for deleting in [&a, &b] {
        let mut sessions = make(&a, SESSIONS).await;
        let ids = ids(&sessions);
        committed_while(&a, &mut sessions, async |_| {
            for deleted in all(ids.iter().map(|&id| deleting.delete(id))).await {
                assert!(deleted.unwrap());
            }
            a.catch_up().await.unwrap();
        })
        .await;
        for answer in all(ids.iter().map(|&id| a.get(id))).await {
            assert!(answer.unwrap().is_none());
        }
    }
}

/// A: commits 2 ┊ B: deletes, A does not receive it · A: loads: none ┊ A: publishes 2.
///
/// A reader of A that got "absent" must not get the session a moment later.
#[tokio::test]
async fn late_publish_does_not_revive_session_found_absent() {
    let world = World::new();
    let [b] = world.nodes().await;
    let wire = world.proxy().await;
    let a = world.node_listening_through(&wire, world.roomy()).await;
    let mut sessions = make(&a, SESSIONS).await;
    let ids = ids(&sessions);
    committed_while(&a, &mut sessions, async |_| {
        wire.stall();
        for deleted in all(ids.iter().map(|&id| b.delete(id))).await {
            assert!(deleted.unwrap());
        }
        for answer in all(ids.iter().map(|&id| a.get(id).bypass_cache())).await {
            assert!(answer.unwrap().is_none());
        }
    })
    .await;
    for answer in all(ids.iter().map(|&id| a.get(id))).await {
        assert!(answer.unwrap().is_none(), "I4: gone is gone");
    }
    wire.heal();
}

/// A: commits 2 ┊ every node is notified to drop the user's sessions ┊ A: publishes 2.
#[tokio::test]
async fn a_late_publish_does_not_survive_an_eviction() {
    let [a] = World::new().nodes().await;
    let mut sessions = make(&a, SESSIONS).await;
    let users: Vec<_> = sessions.iter().filter_map(Session::user_id).collect();
    let ids = ids(&sessions);
    committed_while(&a, &mut sessions, async |_| {
        for evicted in all(users.iter().map(|&user| a.user(user).evict())).await {
            evicted.unwrap();
        }
    })
    .await;
    assert_eq!(ids.iter().filter(|&&id| hit(&a, id).is_some()).count(), 0);
    assert_eq!(read(&a, ids[0]).await.version().get(), 2);
}

/// A: commits the create ┊ B: finds the session, commits 2 · A: shows 2, and evicts it ┊ A: publishes 1.
///
/// No node is notified of 2. So only the version that A has shown prevents the publish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_publish_of_create_does_not_restore_first_version() {
    let world = World::new();
    let b = world.node().await;
    let mut config = world.roomy();
    config.cache_sessions_max = 1;
    let a = world.node_with(config).await;
    in_time("the node is in sync", a.wait_until_trusted()).await.unwrap();
    let others = ids(&make(&b, 10).await);
    let gate = a.probes().close(Point::Created);
    let create = tokio::spawn({
        let a = a.clone();
        async move { a.create(77).await.unwrap().id() }
    });
    in_time("the create is committed", gate.arrived(1)).await;
    let mut on_b = b.user(77).list().await.unwrap().sessions.remove(0);
    on_b.set("n", &2).unwrap();
    b.save(&mut on_b).no_notify().await.unwrap();
    assert_eq!(read(&a, on_b.id()).await.version().get(), 2);
    read_all(&a, &others).await;
    assert!(hit(&a, on_b.id()).is_none(), "evicted");
    gate.open();
    assert_eq!(create.await.unwrap(), on_b.id());
    assert_eq!(read(&a, on_b.id()).await.version().get(), 2, "I2");
}
