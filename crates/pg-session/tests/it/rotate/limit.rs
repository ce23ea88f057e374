//! I7 with rotations: a sign-in counts as a new session of its user, a rotation of the same user as none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pg_session::{Config, ErrorKind, Session, SessionLimit, SessionManager, UpdateError};
use tokio::task::JoinHandle;

use crate::fixtures::{in_time, read};
use crate::support::{World, eventually};
use crate::tables::Holder;

const SIGN_INS: usize = 50;

async fn two_nodes(world: &World, change: impl Fn(&mut Config)) -> [SessionManager; 2] {
    let mut config = world.config();
    change(&mut config);
    [world.node_with(config.clone()).await, world.node_with(config).await]
}

/// Sessions of user 1, whatever is left of others.
async fn held(observer: &tokio_postgres::Client) -> BTreeSet<uuid::Uuid> {
    let text = "SELECT id FROM sessions WHERE user_id IS NOT NULL AND rotated_to IS NULL";
    observer.query(text, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Each visitor signs in as user 1, and every other one is rotated once more at once.
fn sign_ins(
    nodes: &[SessionManager],
    visitors: Vec<Session>,
) -> Vec<JoinHandle<Result<(Session, Session), UpdateError>>> {
    let visitors = visitors.into_iter().enumerate();
    visitors
        .map(|(turn, mut session)| {
            let node = nodes[turn % nodes.len()].clone();
            tokio::spawn(async move {
                let visitor = session.clone();
                node.rotate(&mut session).user(1).keep_all().await?;
                if turn % 4 < 2 {
                    match node.rotate(&mut session).await {
                        // Evicted by a sign-in that came between.
                        Ok(()) | Err(UpdateError::NotFound) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok((visitor, session))
            })
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sign_ins_at_once_never_leave_more_than_five_sessions() {
    let world = World::new();
    let nodes = two_nodes(&world, |_| ()).await;
    let mut visitors = Vec::new();
    for turn in 0..SIGN_INS {
        visitors.push(nodes[0].create_anonymous().set("n", &turn).await.unwrap());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn({
        let (observer, stop) = (world.client().await, Arc::clone(&stop));
        async move {
            let (mut looks, mut most) = (0, 0);
            while !stop.load(Ordering::SeqCst) {
                most = held(&observer).await.len().max(most);
                looks += 1;
            }
            (looks, most)
        }
    });
    let mut sessions = Vec::new();
    for sign_in in sign_ins(&nodes, visitors) {
        sessions.push(in_time("it is signed in", sign_in).await.unwrap().unwrap());
    }
    stop.store(true, Ordering::SeqCst);
    let (looks, most) = watcher.await.unwrap();
    assert!(looks > 0 && most <= 5, "{most} sessions in one of {looks} looks");

    let held = held(&world.client().await).await;
    assert_eq!(held.len(), 5);
    for node in &nodes {
        node.catch_up().await.unwrap();
        for (visitor, session) in &sessions {
            let lives = held.contains(&session.id().expose());
            assert_eq!(node.get(session.id()).no_touch().await.unwrap().is_some(), lives);
            if !lives {
                assert!(
                    node.get(visitor.id()).no_touch().await.unwrap().is_none(),
                    "nor what was left of it"
                );
            }
        }
    }
}

/// A: rotates a session of the user, and waits for its row ┊ B: the user logs in on another device, and would evict
/// that very session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_does_not_miss_a_session_that_is_being_rotated() {
    let world = World::new();
    let [a, b] = two_nodes(&world, |config| config.sessions_per_user_max = 1).await;
    let observer = world.client().await;
    let mut session = a.create(1).await.unwrap();
    let old = session.id();
    let holder = Holder::hold(&world, &[old]).await;
    let rotation = tokio::spawn(async move {
        let outcome = a.rotate(&mut session).await;
        (a, session, outcome)
    });
    holder.blocks(&observer).await;
    let login = {
        let b = b.clone();
        tokio::spawn(async move { b.create(1).await })
    };
    eventually("the login waits for the user", async || {
        let text = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        !observer.query(text, &[]).await.unwrap().is_empty()
    })
    .await;
    holder.commit().await;
    let (a, rotated, outcome) = rotation.await.unwrap();
    outcome.unwrap();
    let newest = login.await.unwrap().unwrap();
    assert_eq!(held(&observer).await, [newest.id().expose()].into());
    a.catch_up().await.unwrap();
    for node in [&a, &b] {
        for id in [old, rotated.id()] {
            assert!(node.get(id).await.unwrap().is_none(), "evicted, with what was left of it");
        }
    }
}

/// A: a visitor signs in, and waits for the session's row ┊ B: the same user logs in, and has room. The two take the user's
/// lock in different ways, and it has to be one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_with_room_waits_for_a_sign_in_of_the_same_user() {
    let world = World::new();
    let [a, b] = two_nodes(&world, |config| config.sessions_per_user_max = 1).await;
    let observer = world.client().await;
    let mut visitor = a.create_anonymous().await.unwrap();
    let holder = Holder::hold(&world, &[visitor.id()]).await;
    let sign_in = tokio::spawn(async move { a.rotate(&mut visitor).user(1).await });
    holder.blocks(&observer).await;
    let login = tokio::spawn(async move { b.create(1).await });
    eventually("the login waits for the user", async || {
        let text = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        !observer.query(text, &[]).await.unwrap().is_empty()
    })
    .await;
    assert!(!login.is_finished());
    holder.commit().await;
    sign_in.await.unwrap().unwrap();
    let newest = login.await.unwrap().unwrap();
    assert_eq!(held(&observer).await, [newest.id().expose()].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_sign_in_leaves_visitor_anonymous() {
    let world = World::new();
    let [a, b] = two_nodes(&world, |config| {
        config.on_session_limit = SessionLimit::Refuse;
        config.sessions_per_user_max = 2;
    })
    .await;
    let mut first = a.create(1).await.unwrap();
    a.create(1).await.unwrap();
    let mut visitor = b.create_anonymous().set("cart", &1).await.unwrap();
    let id = visitor.id();
    match b.rotate(&mut visitor).user(1).await {
        Err(UpdateError::Failed(error)) => assert_eq!(error.kind(), ErrorKind::SessionLimit),
        other => panic!("{other:?}"),
    }
    assert_eq!((visitor.id(), visitor.user_id()), (id, None));
    let visitor = read(&a, id).await;
    assert!(!visitor.is_retired() && visitor.contains("cart"));

    a.rotate(&mut first).await.expect("a session that stays the user's is no new one");
    assert!(a.delete(first.id()).await.unwrap());
    b.rotate(&mut read(&b, id).await)
        .user(1)
        .await
        .expect("room for one again, whatever is left of the other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_session_takes_no_place() {
    for policy in [SessionLimit::EvictLeastRecentlyUsed, SessionLimit::Refuse] {
        let world = World::new();
        let [a, _] = two_nodes(&world, |config| {
            config.on_session_limit = policy;
            config.sessions_per_user_max = 4;
        })
        .await;
        let first = a.create(1).await.unwrap();
        // Used later than the first.
        let mut second = a.create(1).await.unwrap();
        for _ in 0..5 {
            a.rotate(&mut second).await.unwrap();
        }
        let third = a.create(1).await.expect("a create");
        let mut fourth = a.create_anonymous().await.unwrap();
        a.rotate(&mut fourth).user(1).await.expect("a sign-in");
        for session in [first, second, third, fourth] {
            assert!(!read(&a, session.id()).await.is_retired());
        }
    }
}

/// By a login and by a sign-in: what was left of the evicted session is in the memory of both nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eviction_by_cap_removes_retired_ids_from_all_memories() {
    for sign_in in [false, true] {
        let world = World::new();
        let [a, b] = two_nodes(&world, |config| config.sessions_per_user_max = 1).await;
        let mut session = a.create(1).await.unwrap();
        let old = session.id();
        a.rotate(&mut session).await.unwrap();
        b.catch_up().await.unwrap();
        for node in [&a, &b] {
            eventually("it is in memory", async || read(node, old).await.is_from_cache()).await;
        }
        if sign_in {
            let mut visitor = a.create_anonymous().await.unwrap();
            a.rotate(&mut visitor).user(1).await.unwrap();
        } else {
            a.create(1).await.unwrap();
        }
        assert!(a.get(old).await.unwrap().is_none(), "on the node of the login at once");
        b.catch_up().await.unwrap();
        assert!(b.get(old).await.unwrap().is_none(), "on the other one with the notification");
    }
}
