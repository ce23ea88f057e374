//! Rotations against everything else that may happen to the session at the same moment.
//!
//! Most of these hold the session's row with a plain transaction, let two statements queue for it, and let go:
//! PostgreSQL serves them in the order of their coming, and the second has taken its snapshot before the first
//! commits.

use pg_session::testing::{Guard, Point};
use pg_session::{Error, Session, SessionId, SessionManager, UpdateError};
use tokio::task::JoinHandle;

use crate::fixtures::{in_time, read};
use crate::support::{World, eventually};
use crate::tables::{Holder, counts, stored};

type Rotation = JoinHandle<(Session, Result<(), UpdateError>)>;

fn rotate(node: &SessionManager, mut session: Session, user: Option<i64>) -> Rotation {
    let node = node.clone();
    tokio::spawn(async move {
        let rotate = node.rotate(&mut session);
        let outcome = match user {
            Some(user) => rotate.user(user).keep_all().await,
            None => rotate.await,
        };
        (session, outcome)
    })
}

/// A session whose row two statements queue for: the rotation first, on `a`, then what `second` sends.
async fn rotated_before<T: Send + 'static>(
    world: &World,
    a: &SessionManager,
    session: &Session,
    second: impl Future<Output = T> + Send + 'static,
) -> (Session, T) {
    let observer = world.client().await;
    let holder = Holder::hold(world, &[session.id()]).await;
    let rotation = rotate(a, session.clone(), None);
    holder.blocks_many(&observer, 1).await;
    let second = tokio::spawn(second);
    holder.blocks_many(&observer, 2).await;
    holder.commit().await;
    let (session, outcome) = in_time("the rotation is done", rotation).await.unwrap();
    outcome.expect("it came first");
    (session, in_time("the other is done", second).await.unwrap())
}

/// A: rotates, waits for the row ┊ B: logs out with the old id, or ends a set that has it, waits ┊ A: commits ┊ B goes
/// on with a snapshot that has not got the new row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_that_waited_for_a_rotation_ends_the_session() {
    type End = fn(SessionManager, SessionId) -> JoinHandle<Result<bool, Error>>;
    let ends: [(&str, End); 7] = [
        ("its id", |b, id| tokio::spawn(async move { b.delete(id).await })),
        ("many", |b, id| tokio::spawn(async move { Ok(b.delete_many([id]).await? == 1) })),
        ("its user", |b, _| tokio::spawn(async move { Ok(b.user(1).delete().await? == 1) })),
        ("its group", |b, _| tokio::spawn(async move { Ok(b.group(7).delete().await? == 1) })),
        ("its label", |b, _| tokio::spawn(async move { Ok(b.label("sid").delete().await? == 1) })),
        ("all others", |b, _| {
            let unknown = SessionId::from_uuid(uuid::Uuid::new_v4());
            tokio::spawn(async move { Ok(b.user(1).delete_except(unknown).await? == 1) })
        }),
        ("all", |b, _| tokio::spawn(async move { Ok(b.delete_all_sessions().await? == 1) })),
    ];
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    for (how, end) in ends {
        let session = a.create(1).group(7).label("sid").set("cart", &1).await.unwrap();
        let (on_b, old) = (b.clone(), session.id());
        let ended = async move { end(on_b, old).await.unwrap() };
        let (session, ended) = rotated_before(&world, &a, &session, ended).await;
        assert!(ended.unwrap(), "{how}: it was alive");
        assert_eq!(counts(&observer).await, (0, 0), "{how}: nothing is left");
        a.catch_up().await.unwrap();
        for node in [&a, &b] {
            for id in [old, session.id()] {
                assert!(node.get(id).await.unwrap().is_none(), "{how}");
            }
        }
    }
}

/// B: logs out, waits for the row ┊ A: rotates, waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_waited_for_a_logout_finds_nothing() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    let session = a.create(1).await.unwrap();
    let old = session.id();
    let holder = Holder::hold(&world, &[old]).await;
    let logout = tokio::spawn(async move { b.delete(old).await });
    holder.blocks_many(&observer, 1).await;
    let rotation = rotate(&a, session, Some(2));
    holder.blocks_many(&observer, 2).await;
    holder.commit().await;
    assert!(logout.await.unwrap().unwrap());
    let (session, outcome) = rotation.await.unwrap();
    assert!(matches!(outcome, Err(UpdateError::NotFound)));
    assert_eq!((session.id(), counts(&observer).await), (old, (0, 0)));
    assert!(a.get(old).await.unwrap().is_none());
}

/// A: rotates, waits ┊ B: updates the old id, waits ┊ A: commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn update_that_waited_for_rotation_is_rotated_and_unwritten() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let session = a.create(1).set("cart", &1).await.unwrap();
    let mut on_b = read(&b, session.id()).await;
    on_b.set("cart", &2).unwrap();
    let update = async move { b.save(&mut on_b).await };
    let old = session.id();
    let (session, outcome) = rotated_before(&world, &a, &session, update).await;
    assert!(matches!(outcome, Err(UpdateError::Rotated)));
    let observer = world.client().await;
    for id in [old, session.id()] {
        assert_eq!(stored(&observer, id).await["cart"].text, "1");
    }
}

/// B: updates, waits ┊ A: rotates, waits ┊ B: commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_waited_for_an_update_takes_it_along() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    let mut session = a.create(1).set("gone", &1).set("cart", &1).await.unwrap();
    let mut on_b = read(&b, session.id()).await;
    on_b.set("cart", &2).unwrap();
    on_b.set("new", &2).unwrap();
    on_b.remove("gone");
    session.set("name", "Ann").unwrap();
    let holder = Holder::hold(&world, &[session.id()]).await;
    let update = tokio::spawn(async move { b.save(&mut on_b).await });
    holder.blocks_many(&observer, 1).await;
    let rotation = rotate(&a, session, None);
    holder.blocks_many(&observer, 2).await;
    holder.commit().await;
    update.await.unwrap().unwrap();
    let (session, outcome) = rotation.await.unwrap();
    outcome.unwrap();
    assert_eq!((session.keys(), session.version().get()), (vec!["cart", "name", "new"], 3));
    assert_eq!(session.get("cart").unwrap(), Some(2));
    let held = stored(&observer, session.id()).await;
    assert_eq!(held.keys().collect::<Vec<_>>(), ["cart", "name", "new"]);
    assert!(held.values().all(|attribute| attribute.version == 3));
}

/// A: rotates, waits ┊ B: takes an attribute from the user's sessions, waits ┊ A: commits a copy of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attribute_taken_from_a_user_is_not_saved_by_a_rotation() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let session = a.create(1).set("role", "admin").await.unwrap();
    let old = session.id();
    let taken = async move { b.user(1).remove_attribute("role").await };
    let (session, taken) = rotated_before(&world, &a, &session, taken).await;
    assert_eq!(taken.unwrap(), 1);
    a.catch_up().await.unwrap();
    for id in [old, session.id()] {
        assert!(!read(&a, id).await.contains("role"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_rotations_of_one_id_exactly_one_wins() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    for round in 0..20 {
        let session = a.create_anonymous().set("cart", &round).await.unwrap();
        let old = session.id();
        // On two nodes, and twice on one of them.
        let rotations = [
            rotate(&a, session.clone(), Some(1)),
            rotate(&b, session.clone(), Some(2)),
            rotate(&b, session, None),
        ];
        let mut winners = Vec::new();
        for rotation in rotations {
            match in_time("it is decided", rotation).await.unwrap() {
                (session, Ok(())) => winners.push(session),
                (session, Err(UpdateError::Rotated)) => {
                    assert_eq!((session.id(), session.user_id()), (old, None), "the handle is as it was");
                }
                (_, Err(error)) => panic!("{error:?}"),
            }
        }
        assert_eq!(winners.len(), 1);
        let text = "SELECT id FROM sessions WHERE rotated_to IS NULL";
        let rows = observer.query(text, &[]).await.unwrap();
        let ids: Vec<uuid::Uuid> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(ids, [winners[0].id().expose()]);
        assert!(b.delete(old).await.unwrap());
        assert_eq!(counts(&observer).await, (0, 0));
    }
}

/// B has the old id in memory and is in sync: it shows the rotation as soon as it learns of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_reaches_node_with_old_id_in_memory() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut session = a.create(1).await.unwrap();
    for _ in 0..20 {
        let old = session.id();
        assert!(!read(&b, old).await.is_retired());
        a.rotate(&mut session).await.unwrap();
        assert!(read(&a, old).await.is_retired(), "on its own node at once");
        assert!(read(&a, session.id()).await.is_from_cache(), "and the session is in memory there");
        eventually("B shows that it goes on", async || read(&b, old).await.is_retired()).await;
    }
}

/// A: commits the rotation ┊ B: logs out with the old id; A learns of it ┊ A: publishes the new session.
async fn logged_out_before_it_is_published(a: &SessionManager, b: &SessionManager) -> Option<Session> {
    let session = a.create(1).await.unwrap();
    let old = session.id();
    let gate = a.probes().close(Point::Rotated);
    let rotation = rotate(a, session, None);
    in_time("the rotation is committed", gate.arrived(1)).await;
    assert!(b.delete(old).await.unwrap());
    a.catch_up().await.unwrap();
    gate.open();
    let (session, outcome) = rotation.await.unwrap();
    outcome.expect("it was committed");
    a.get(session.id()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_deleted_before_rotation_publish_stays_gone() {
    let [a, b] = World::new().nodes().await;
    for _ in 0..10 {
        assert!(logged_out_before_it_is_published(&a, &b).await.is_none(), "I4");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_ticket_deleted_rotated_session_is_served() {
    let [a, b] = World::new().nodes().await;
    a.probes().remove(Guard::FillTicket);
    assert!(logged_out_before_it_is_published(&a, &b).await.is_some());
}

/// Rotations and logouts of the same sessions by all of their ids, on two nodes at once: no deadlock that is not
/// survived, no session that is left although its logout was acknowledged after the rotation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_and_logouts_at_once_leave_nothing_behind() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    for _ in 0..10 {
        let mut sessions = Vec::new();
        for user in 0..20_i64 {
            let mut session = a.create(user).set("cart", &1).await.unwrap();
            let old = session.id();
            b.rotate(&mut session).await.unwrap();
            sessions.push((session, old));
        }
        let rotations: Vec<Rotation> =
            sessions.iter().map(|(session, _)| rotate(&a, session.clone(), None)).collect();
        let logouts: Vec<JoinHandle<_>> = sessions
            .iter()
            .map(|&(_, old)| {
                let b = b.clone();
                tokio::spawn(async move { b.delete(old).await })
            })
            .collect();
        for logout in logouts {
            assert!(in_time("the logout is done", logout).await.unwrap().unwrap());
        }
        for rotation in rotations {
            match in_time("the rotation is done", rotation).await.unwrap().1 {
                Ok(()) | Err(UpdateError::NotFound) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(counts(&observer).await, (0, 0));
    }
}
