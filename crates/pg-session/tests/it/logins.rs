//! Fifty logins at once: who is let in, who has to go and where that is seen, and who does not wait for whom.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pg_session::{Config, Error, ErrorKind, Session, SessionLimit, SessionManager};

use crate::support::World;
use crate::tables::counts;

const LOGINS: usize = 50;

/// Fifty logins of one user at once, spread over the nodes.
async fn logins(nodes: &[SessionManager]) -> Vec<Result<Session, Error>> {
    let creates: Vec<_> = (0..LOGINS)
        .map(|login| {
            let node = nodes[login % nodes.len()].clone();
            tokio::spawn(async move { node.create(1).set("login", &login).await })
        })
        .collect();
    let mut outcomes = Vec::new();
    for create in creates {
        outcomes.push(create.await.unwrap());
    }
    outcomes
}

/// Looks at the table again and again until the signal to stop; returns how often, and the most rows that it saw.
async fn watch(world: &World, stop: Arc<AtomicBool>) -> (u32, i64) {
    let observer = world.client().await;
    let (mut looks, mut most) = (0, 0);
    while !stop.load(Ordering::SeqCst) {
        most = counts(&observer).await.0.max(most);
        looks += 1;
    }
    (looks, most)
}

async fn two_nodes(world: &World, change: impl Fn(&mut Config)) -> [SessionManager; 2] {
    let mut config = world.config();
    change(&mut config);
    [world.node_with(config.clone()).await, world.node_with(config).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_logins_at_once_never_leave_more_than_five_sessions() {
    let world = Arc::new(World::new());
    let nodes = two_nodes(&world, |_| ()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn({
        let (world, stop) = (Arc::clone(&world), Arc::clone(&stop));
        async move { watch(&world, stop).await }
    });
    let mut sessions: Vec<Session> = logins(&nodes).await.into_iter().map(Result::unwrap).collect();
    stop.store(true, Ordering::SeqCst);
    let (looks, most) = watcher.await.unwrap();
    assert!(looks > 0 && most <= 5, "{most} rows in one of {looks} looks");

    sessions.sort_by_key(Session::created_at);
    let (evicted, kept) = sessions.split_at(LOGINS - 5);
    let rows = world.client().await.query("SELECT id FROM sessions", &[]).await.unwrap();
    let held: BTreeSet<uuid::Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(held, kept.iter().map(|session| session.id().expose()).collect(), "the latest five");
    for node in &nodes {
        node.catch_up().await.unwrap();
        for session in evicted {
            assert!(node.get(session.id()).no_touch().await.unwrap().is_none());
        }
        for session in kept {
            assert!(node.get(session.id()).no_touch().await.unwrap().is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_session_is_gone_from_the_memory_of_every_node() {
    let world = World::new();
    let [a, b] = two_nodes(&world, |config| config.sessions_per_user_max = 2).await;
    let first = a.create(1).await.unwrap().id();
    let second = a.create(1).await.unwrap().id();
    for node in [&a, &b] {
        node.get(first).no_touch().await.unwrap().unwrap();
        assert!(node.get(first).no_touch().await.unwrap().unwrap().is_from_cache());
    }
    let third = b.create(1).await.unwrap().id();
    assert!(b.get(first).await.unwrap().is_none(), "on the node of the login at once");
    a.catch_up().await.unwrap();
    assert!(a.get(first).await.unwrap().is_none(), "on the other one with the notification");
    for id in [second, third] {
        assert!(a.get(id).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_to_refuse_lets_exactly_five_of_fifty_logins_in() {
    let world = World::new();
    let nodes = two_nodes(&world, |config| config.on_session_limit = SessionLimit::Refuse).await;
    let (made, refused): (Vec<_>, Vec<_>) = logins(&nodes).await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (5, LOGINS - 5));
    for error in refused.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::SessionLimit);
        assert!(error.to_string().contains("(sessions_per_user_max); delete one"), "{error}");
    }
    assert_eq!(counts(&world.client().await).await, (5, 5), "nothing of the refused was written");

    let one = made.into_iter().find_map(Result::ok).unwrap();
    assert!(nodes[0].delete(one.id()).await.unwrap());
    nodes[1].create(1).await.expect("room for one again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_limit_means_no_limit() {
    let world = World::new();
    let nodes = two_nodes(&world, |config| config.sessions_per_user_max = 0).await;
    assert!(logins(&nodes).await.iter().all(Result::is_ok));
    assert_eq!(counts(&world.client().await).await, (50, 50));
}

/// The creates of one user go one after the other; those of different users share statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_of_different_users_do_not_wait_for_each_other() {
    let world = World::new();
    let [node, _] = two_nodes(&world, |_| ()).await;
    let creates: Vec<_> = (0..200)
        .map(|user: i64| {
            let node = node.clone();
            tokio::spawn(async move { node.create(user).await })
        })
        .collect();
    for create in creates {
        create.await.unwrap().unwrap();
    }
    let writes = node.status().writes;
    assert_eq!(writes.creates, 200);
    assert!(writes.create_statements <= 100, "{writes:?}");
}
