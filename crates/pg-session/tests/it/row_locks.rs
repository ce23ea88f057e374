//! A row that another client has locked delays the requests for that row, and no others.
//!
//! ```text
//! client    BEGIN; SELECT ... FOR UPDATE of session 0
//! node      a request for session 0 waits
//! node      requests for other sessions end meanwhile
//! ```

use std::time::Duration;

use pg_session::{Session, SessionManager, UserId};
use tokio::time::Instant;

use crate::stage::{in_time, make, n};
use crate::support::World;
use crate::tables::Holder;

/// What another request may take at most. It is milliseconds; before, it was seconds, up to the row's release.
const OTHERS_MAX: Duration = Duration::from_millis(250);

/// Awaits a request that needs no locked row.
async fn promptly<T>(what: &str, request: impl IntoFuture<Output = T>) -> T {
    let began = Instant::now();
    let output = in_time(what, request).await;
    assert!(began.elapsed() < OTHERS_MAX, "{what} took {:?}", began.elapsed());
    output
}

fn user(session: &Session) -> UserId {
    session.user_id().expect("each has a user")
}

async fn node_and_sessions(world: &World, count: usize) -> (SessionManager, Vec<Session>) {
    let node = world.node_with(world.roomy()).await;
    let sessions = make(&node, count).await;
    (node, sessions)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_row_delays_no_other_logout_or_eviction() {
    let world = World::new();
    let (node, sessions) = node_and_sessions(&world, 20).await;
    let observer = world.client().await;
    let holder = Holder::hold(&world, &[sessions[0].id()]).await;
    let blocked = {
        let (node, id) = (node.clone(), sessions[0].id());
        tokio::spawn(async move { node.delete(id).await })
    };
    holder.blocks_many(&observer, 1).await;
    let everywhere = {
        let (node, user) = (node.clone(), user(&sessions[0]));
        tokio::spawn(async move { node.delete_user_sessions(user).await })
    };
    holder.blocks_many(&observer, 2).await;
    for session in &sessions[1..10] {
        assert!(promptly("a logout", node.delete(session.id())).await.unwrap());
    }
    for session in &sessions[10..15] {
        let ended = promptly("log out everywhere", node.delete_user_sessions(user(session))).await;
        assert_eq!(ended.unwrap(), 1);
    }
    for session in &sessions {
        promptly("an eviction", node.evict_user(user(session))).await.unwrap();
    }
    promptly("an eviction of all", node.evict_all()).await.unwrap();
    assert!(!blocked.is_finished() && !everywhere.is_finished(), "the row is still locked");
    holder.commit().await;
    let (one, all) = (blocked.await.unwrap().unwrap(), everywhere.await.unwrap().unwrap());
    assert_eq!(u64::from(one) + all, 1, "one of them has ended it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_locked_rows_delay_no_other_update() {
    let world = World::new();
    let (node, mut sessions) = node_and_sessions(&world, 20).await;
    let observer = world.client().await;
    let (locked, others) = sessions.split_at_mut(2);
    let mut held = Vec::new();
    for session in locked {
        let holder = Holder::hold(&world, &[session.id()]).await;
        let (node, mut session) = (node.clone(), session.clone());
        session.set("n", &2_i64).unwrap();
        let blocked = tokio::spawn(async move { node.update(&mut session).await.map(|()| session) });
        holder.blocks(&observer).await;
        held.push((holder, blocked));
    }
    for session in others {
        session.set("n", &2_i64).unwrap();
        promptly("an update", node.update(session)).await.unwrap();
    }
    for (holder, blocked) in held {
        assert!(!blocked.is_finished(), "the row is still locked");
        holder.commit().await;
        assert_eq!(n(&blocked.await.unwrap().unwrap()), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_updates_of_one_session_delay_no_other() {
    const UPDATES: i64 = 2_000;
    let world = World::new();
    let (node, sessions) = node_and_sessions(&world, 2).await;
    let [busy, mut other] = <[Session; 2]>::try_from(sessions).unwrap();
    let updates: Vec<_> = (0..UPDATES)
        .map(|number| {
            let (node, mut session) = (node.clone(), busy.clone());
            session.set("n", &number).unwrap();
            tokio::spawn(async move { node.update(&mut session).await })
        })
        .collect();
    crate::support::eventually("they are queued", async || node.status().writes.waiting > 1_500).await;
    for number in 0..10_i64 {
        other.set("n", &number).unwrap();
        promptly("an update of another session", node.update(&mut other)).await.unwrap();
    }
    assert!(node.status().writes.waiting > 0, "the others were still waiting");
    let mut versions = 1;
    for update in updates {
        in_time("each ends", update).await.unwrap().unwrap();
        versions += 1;
    }
    let stored = node.get(busy.id()).refresh().await.unwrap().unwrap();
    assert_eq!(stored.version().get(), versions);
}
