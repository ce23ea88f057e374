//! A deletion or a change of many sessions waits for those that another client has locked. It keeps no other row meanwhile.
//!
//! ```text
//! client    BEGIN; SELECT ... FOR UPDATE of one session
//! node      deletes all: the others are gone at once, and the call waits
//! node      requests for the others end meanwhile
//! client    COMMIT
//! node      deletes the last one, and the call ends
//! ```

use pg_session::{SessionId, SessionManager, UpdateError};

use crate::fixtures::{all, ids, make};
use crate::row_locks::{blocked, config, finish_behind, promptly, spawn_update};
use crate::support::{World, eventually};
use crate::tables::{Holder, list};

/// The one that a statement locks last.
fn last(ids: &[SessionId]) -> SessionId {
    *ids.iter().max().expect("some")
}

async fn ended(node: &SessionManager, ids: &[SessionId], but: SessionId) {
    for &id in ids.iter().filter(|&&id| id != but) {
        eventually("a session whose row is free ends at once", async || {
            node.get(id).bypass_cache().no_touch().await.unwrap().is_none()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_deletion_of_all_keeps_no_other_row() {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    let sessions = make(&node, 12).await;
    let ids = ids(&sessions);
    let locked = last(&ids);
    let holder = Holder::hold(&world, &[locked]).await;
    let everything = {
        let node = node.clone();
        vec![tokio::spawn(async move { node.delete_all_sessions().await })]
    };
    blocked(&node, 1).await;
    ended(&node, &ids, locked).await;
    for session in sessions.iter().filter(|session| session.id() != locked) {
        let update = promptly("an update", spawn_update(&node, session, 2)).await.unwrap();
        assert!(matches!(update, Err(UpdateError::NotFound)), "{update:?}");
    }
    let new = promptly("a login", node.create(77)).await.unwrap();
    assert!(finish_behind(holder, everything).await.into_iter().all(|deleted| deleted.unwrap() == 12));
    assert!(node.get(locked).await.unwrap().is_none());
    assert!(node.get(new.id()).bypass_cache().await.unwrap().is_some(), "created meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_bulk_change_keeps_no_other_row() {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    let (mut locked, mut tasks) = (Vec::new(), Vec::new());
    let mut users = Vec::new();
    for user in 0..4_i64 {
        let create = |_| node.create(user).group(100 + user).set("role", &1);
        let sessions: Vec<_> = all((0..4).map(create)).await.into_iter().map(Result::unwrap).collect();
        locked.push(last(&ids(&sessions)));
        users.push(sessions);
    }
    let kept = node.create(2).await.unwrap().id();
    let holder = Holder::hold(&world, &locked).await;
    for user in 0..4_i64 {
        let node = node.clone();
        tasks.push(tokio::spawn(async move {
            match user {
                0 => node.user(user).delete().await,
                1 => node.group(100 + user).delete().await,
                2 => node.user(user).delete_except(kept).await,
                _ => node.user(user).remove_attribute("role").await,
            }
        }));
    }
    blocked(&node, 4).await;
    for (sessions, &locked) in users.iter().zip(&locked).take(3) {
        ended(&node, &ids(sessions), locked).await;
    }
    for session in users[3].iter().filter(|session| session.id() != locked[3]) {
        eventually("the attribute is gone at once", async || {
            let now = node.get(session.id()).bypass_cache().await.unwrap().unwrap();
            now.get::<i64>("role").unwrap().is_none()
        })
        .await;
        promptly("an update", spawn_update(&node, session, 2)).await.unwrap().unwrap();
    }
    assert!(finish_behind(holder, tasks).await.into_iter().all(|count| count.unwrap() == 4));
    assert!(node.get(kept).await.unwrap().is_some());
}

/// The trigger deletes what belongs to a session, and would wait for its rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_attribute_or_lock_keeps_its_own_session_only() {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    let (mut sessions, mut leases) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let session = node.create(1).set("large", &"x".repeat(4_000)).await.unwrap();
        leases.push(node.locks().session_lock(session.id(), "x").await.unwrap());
        sessions.push(session.id());
    }
    sessions.sort_unstable();
    let (attribute, lock) = (list(&sessions[5..]), list(&sessions[4..5]));
    let script = format!(
        "SELECT FROM session_attributes WHERE session_id IN ({attribute}) FOR UPDATE;
         SELECT FROM session_locks WHERE session_id IN ({lock}) FOR UPDATE"
    );
    let holder = Holder::begin(&world, &script).await;
    let everywhere = {
        let node = node.clone();
        vec![tokio::spawn(async move { node.user(1).delete().await })]
    };
    blocked(&node, 1).await;
    ended(&node, &sessions[..5], sessions[4]).await;
    assert!(finish_behind(holder, everywhere).await.into_iter().all(|count| count.unwrap() == 6));
    drop(leases);
}

/// ```text
/// client    BEGIN; rotates S to T at a login: T is created now
/// node      deletes all: S is locked
/// client    COMMIT
/// node      S leads to T, and both end
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_deletion_of_all_ends_what_was_rotated() {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    let session = make(&node, 1).await.remove(0);
    let new = SessionId::from_uuid(uuid::Uuid::new_v4());
    let (old, to) = (list(&[session.id()]), list(&[new]));
    let script = format!(
        "INSERT INTO sessions SELECT {to}, user_id, group_id, version + 1, idle_limited, now() + interval '1 minute',
                now(), now(), expires_at, NULL, attributes, has_overflow FROM sessions WHERE id = {old};
         UPDATE sessions SET rotated_to = {to}, version = version + 1 WHERE id = {old}"
    );
    let holder = Holder::begin(&world, &script).await;
    let everything = {
        let node = node.clone();
        vec![tokio::spawn(async move { node.delete_all_sessions().await })]
    };
    blocked(&node, 1).await;
    assert!(finish_behind(holder, everything).await.into_iter().all(|deleted| deleted.unwrap() == 1));
    for id in [session.id(), new] {
        assert!(node.get(id).bypass_cache().await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_attribute_delays_no_other_cleanup() {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    let mut sessions = Vec::new();
    for user in 0..3 {
        sessions.push(node.create(user).set("large", &"x".repeat(4_000)).await.unwrap().id());
    }
    let client = world.client().await;
    client.batch_execute("UPDATE sessions SET expires_at = now() - interval '1 second'").await.unwrap();
    let script =
        format!("SELECT FROM session_attributes WHERE session_id = {} FOR UPDATE", list(&sessions[..1]));
    let holder = Holder::begin(&world, &script).await;
    assert_eq!(promptly("a clean-up", node.cleanup()).await.unwrap().expired, 2);
    holder.commit().await;
    assert_eq!(node.cleanup().await.unwrap().expired, 1);
}

/// A login at the limit must end a session whose row is locked. The others do not halve the batch to find it.
#[tokio::test]
async fn a_locked_row_splits_no_batch_of_creates() {
    let world = World::new();
    let mut config = config(&world);
    config.sessions_per_user_max = 1;
    let node = world.node_with(config).await;
    let sessions = make(&node, 64).await;
    let holder = Holder::hold(&world, &[sessions[37].id()]).await;
    let before = node.status().writes.create_statements;
    let mut logins: Vec<_> = sessions
        .iter()
        .map(|session| {
            let (node, user) = (node.clone(), crate::row_locks::user(session));
            tokio::spawn(async move { node.create(user).await })
        })
        .collect();
    let waiting = vec![logins.remove(37)];
    for login in logins {
        promptly("a login", login).await.unwrap().unwrap();
    }
    let taken = node.status().writes.create_statements - before;
    assert!(taken < 4, "the others shared few statements: {taken}");
    assert!(finish_behind(holder, waiting).await.into_iter().all(|session| session.is_ok()));
}

/// The same for logins that rotate an anonymous session: the user's older session has to go.
#[tokio::test]
async fn a_locked_row_splits_no_batch_of_rotations() {
    let world = World::new();
    let mut config = config(&world);
    config.sessions_per_user_max = 1;
    let node = world.node_with(config).await;
    let sessions = make(&node, 64).await;
    let visitors = all((0..64).map(|_| node.create_anonymous())).await;
    let holder = Holder::hold(&world, &[sessions[37].id()]).await;
    let before = node.status().writes.rotation_statements;
    let mut logins: Vec<_> = sessions
        .iter()
        .zip(visitors)
        .map(|(session, visitor)| {
            let (node, user, mut visitor) = (node.clone(), crate::row_locks::user(session), visitor.unwrap());
            tokio::spawn(async move { node.rotate(&mut visitor).user(user).await })
        })
        .collect();
    let waiting = vec![logins.remove(37)];
    for login in logins {
        promptly("a login", login).await.unwrap().unwrap();
    }
    let taken = node.status().writes.rotation_statements - before;
    assert!(taken < 4, "the others shared few statements: {taken}");
    assert!(finish_behind(holder, waiting).await.into_iter().all(|rotated| rotated.is_ok()));
}
