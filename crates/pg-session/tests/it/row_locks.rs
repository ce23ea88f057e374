//! A row that another client has locked delays the requests for that row, and no others.
//!
//! ```text
//! client    BEGIN; SELECT ... FOR UPDATE of some sessions
//! node      requests for these sessions wait
//! node      requests for other sessions end meanwhile
//! client    COMMIT
//! node      the requests that waited end
//! ```

use std::time::Duration;

use pg_session::{Config, ErrorKind, Session, SessionManager, UpdateError, UserId};
use tokio::task::JoinHandle;

use crate::fixtures::{all, in_time, make, n, read};
use crate::statement_modes::{node_on, pool};
use crate::support::{WAIT_MAX, World, eventually};
use crate::tables::{Holder, list, stored_time, stored_version};

/// More than the statements that a lane may have in flight.
const LOCKED: usize = 5;

/// Awaits requests that need no locked row. The rows stay locked until the test ends their transaction.
pub async fn promptly<F: IntoFuture>(what: &str, request: F) -> F::Output {
    in_time(&format!("{what}, without waiting for another session's row"), request).await
}

pub fn config(world: &World) -> Config {
    let mut config = world.roomy();
    config.row_lock_wait = Config::default().row_lock_wait;
    config
}

pub async fn node_and_sessions(world: &World, count: usize) -> (SessionManager, Vec<Session>) {
    let node = world.node_with(config(world)).await;
    let sessions = make(&node, count).await;
    (node, sessions)
}

pub fn user(session: &Session) -> UserId {
    session.user_id().expect("each has a user")
}

/// Waits until so many writes wait for locked rows.
pub async fn blocked(node: &SessionManager, count: usize) {
    eventually("the writes of the locked rows wait", async || node.status().writes.waiting == count).await;
}

pub type Task<T> = JoinHandle<T>;

pub fn spawn_update(node: &SessionManager, session: &Session, n: i64) -> Task<Result<Session, UpdateError>> {
    let (node, mut session) = (node.clone(), session.clone());
    session.set("n", &n).unwrap();
    tokio::spawn(async move { node.save(&mut session).await.map(|()| session) })
}

pub fn none_finished<T>(tasks: &[Task<T>]) {
    assert!(tasks.iter().all(|task| !task.is_finished()), "the rows are still locked");
}

/// The tasks wait while `holder` has the rows, and finish afterwards.
pub async fn finish_behind<T>(holder: Holder, tasks: Vec<Task<T>>) -> Vec<T> {
    none_finished(&tasks);
    holder.commit().await;
    finish(tasks).await
}

pub async fn finish<T>(tasks: Vec<Task<T>>) -> Vec<T> {
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(in_time("it ends when the row is free", task).await.unwrap());
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_rows_delay_no_other_logout() {
    let world = World::new();
    let (node, sessions) = node_and_sessions(&world, 20).await;
    let (locked, others) = sessions.split_at(LOCKED);
    let holder = Holder::hold(&world, &crate::fixtures::ids(locked)).await;
    let mut waiting = Vec::new();
    for session in locked {
        let (node, id) = (node.clone(), session.id());
        waiting.push(tokio::spawn(async move { node.delete(id).await }));
    }
    blocked(&node, LOCKED).await;
    for session in others {
        assert!(promptly("a logout", node.delete(session.id())).await.unwrap());
    }
    assert!(finish_behind(holder, waiting).await.into_iter().all(Result::unwrap));
}

/// On one thread all of them are queued before the first statement leaves.
#[tokio::test]
async fn a_locked_row_delays_no_logout_of_its_batch() {
    let world = World::new();
    let (node, sessions) = node_and_sessions(&world, 20).await;
    let holder = Holder::hold(&world, &[sessions[7].id()]).await;
    let mut logouts: Vec<_> = sessions
        .iter()
        .map(|session| {
            let (node, id) = (node.clone(), session.id());
            tokio::spawn(async move { node.delete(id).await })
        })
        .collect();
    let waiting = vec![logouts.remove(7)];
    for logout in logouts {
        assert!(promptly("a logout", logout).await.unwrap().unwrap());
    }
    assert!(finish_behind(holder, waiting).await.into_iter().all(Result::unwrap));
}

#[tokio::test]
async fn locked_rows_delay_no_update_of_their_batch() {
    let world = World::new();
    let (node, sessions) = node_and_sessions(&world, 64).await;
    let (locked, others) = sessions.split_at(LOCKED);
    let holder = Holder::hold(&world, &crate::fixtures::ids(locked)).await;
    let statements = node.status().writes.update_statements;
    let mut updates: Vec<_> = sessions.iter().map(|session| spawn_update(&node, session, 2)).collect();
    let waiting: Vec<_> = updates.drain(..LOCKED).collect();
    assert_eq!(updates.len(), others.len());
    for update in updates {
        assert_eq!(n(&promptly("an update", update).await.unwrap().unwrap()), 2);
    }
    none_finished(&waiting);
    // Another writer of the node, a flush of touches, may hold some of them for a moment.
    let taken = node.status().writes.update_statements - statements;
    assert!(taken < 8, "the others shared few statements: {taken}");
    holder.commit().await;
    assert!(finish(waiting).await.into_iter().all(|update| update.unwrap().version().get() == 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_rows_delay_no_other_bulk_delete_or_eviction() {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    let mut sessions = Vec::new();
    for user in 0..24_i64 {
        let create = node.create(user).group(100 + user).set("role", &1);
        sessions.push(create.await.unwrap());
    }
    let (locked, others) = sessions.split_at(12);
    let holder = Holder::hold(&world, &crate::fixtures::ids(locked)).await;
    let mut waiting = Vec::new();
    for (at, session) in locked.iter().enumerate() {
        let (node, user) = (node.clone(), user(session));
        let (id, group) = (session.id(), session.group_id().unwrap());
        waiting.push(tokio::spawn(async move {
            match at % 4 {
                0 => node.user(user).delete().await,
                1 => node.group(group).delete().await,
                2 => node.user(user).remove_attribute("role").await,
                _ => node.delete_many([id]).await,
            }
        }));
    }
    blocked(&node, 12).await;
    for session in others {
        promptly("an eviction", node.user(user(session)).evict()).await.unwrap();
    }
    promptly("an eviction of all", node.evict_all()).await.unwrap();
    for session in &others[..3] {
        let removed = node.user(user(session)).remove_attribute("role");
        assert_eq!(promptly("a removal of an attribute", removed).await.unwrap(), 1);
    }
    for session in &others[..4] {
        let ended = node.user(user(session)).delete();
        assert_eq!(promptly("log out everywhere", ended).await.unwrap(), 1);
    }
    for session in &others[4..6] {
        let ended = node.user(user(session)).delete_except(session.id());
        assert_eq!(promptly("log out elsewhere", ended).await.unwrap(), 0);
        let ended = node.group(session.group_id().unwrap()).delete();
        assert_eq!(promptly("a group's deletion", ended).await.unwrap(), 1);
    }
    assert_eq!(promptly("a few", node.delete_many(crate::fixtures::ids(&others[6..]))).await.unwrap(), 6);
    assert!(finish_behind(holder, waiting).await.into_iter().all(|count| count.unwrap() == 1));
}

/// The deletion of all sessions waits for every row. Meanwhile a user's sessions can be deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_deletion_of_all_delays_no_eviction() {
    let world = World::new();
    let (node, sessions) = node_and_sessions(&world, 3).await;
    let holder = Holder::hold(&world, &[sessions[0].id()]).await;
    let everything = {
        let node = node.clone();
        tokio::spawn(async move { node.delete_all_sessions().await })
    };
    // It spares what is created after its first statement, which deletes the free rows.
    eventually("the free rows are deleted", async || {
        node.get(sessions[2].id()).bypass_cache().no_touch().await.unwrap().is_none()
    })
    .await;
    promptly("an eviction", node.user(user(&sessions[1])).evict()).await.unwrap();
    assert_eq!(promptly("a user without sessions", node.user(77).delete()).await.unwrap(), 0);
    let new = promptly("a login", node.create(77)).await.unwrap();
    assert_eq!(promptly("log out everywhere", node.user(77).delete()).await.unwrap(), 1);
    assert!(!everything.is_finished() && new.user_id().is_some(), "the row is still locked");
    holder.commit().await;
    assert_eq!(in_time("all are deleted", everything).await.unwrap().unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_rows_delay_no_other_update_and_no_read() {
    let world = World::new();
    let (node, sessions) = node_and_sessions(&world, 40).await;
    // More than the pool has connections.
    let (locked, others) = sessions.split_at(20);
    let holder = Holder::hold(&world, &crate::fixtures::ids(locked)).await;
    let waiting: Vec<_> = locked.iter().map(|session| spawn_update(&node, session, 2)).collect();
    blocked(&node, 20).await;
    for session in others {
        let updated = promptly("an update", spawn_update(&node, session, 2)).await.unwrap().unwrap();
        assert_eq!(n(&updated), 2);
    }
    for session in locked {
        let read = promptly("a read", node.get(session.id()).bypass_cache()).await.unwrap().unwrap();
        assert_eq!(n(&read), 1);
    }
    promptly("creates", all((0..4).map(|user| node.create(1_000 + user)))).await;
    let mut rotated = others[0].clone();
    promptly("a rotation", node.rotate(&mut rotated)).await.unwrap();
    assert!(finish_behind(holder, waiting).await.into_iter().all(|update| n(&update.unwrap()) == 2));
}

#[tokio::test]
async fn a_locked_row_delays_no_rotation_of_its_batch() {
    let world = World::new();
    let (node, sessions) = node_and_sessions(&world, 8).await;
    let holder = Holder::hold(&world, &[sessions[3].id()]).await;
    let mut rotations: Vec<_> = sessions
        .into_iter()
        .map(|mut session| {
            let node = node.clone();
            tokio::spawn(async move { node.rotate(&mut session).await.map(|()| session) })
        })
        .collect();
    let waiting = vec![rotations.remove(3)];
    for rotation in rotations {
        assert_eq!(n(&promptly("a rotation", rotation).await.unwrap().unwrap()), 1);
    }
    assert!(
        finish_behind(holder, waiting).await.into_iter().all(|session| session.unwrap().version().get() == 2)
    );
}

/// A login at the limit must end the user's oldest session, whose row is locked.
#[tokio::test]
async fn a_locked_row_delays_no_login_of_another_user() {
    let world = World::new();
    let mut config = config(&world);
    config.sessions_per_user_max = 1;
    let node = world.node_with(config).await;
    let sessions = make(&node, 8).await;
    let holder = Holder::hold(&world, &[sessions[3].id()]).await;
    let mut logins: Vec<_> = sessions
        .iter()
        .map(|session| {
            let (node, user) = (node.clone(), user(session));
            tokio::spawn(async move { node.create(user).await })
        })
        .collect();
    let waiting = vec![logins.remove(3)];
    for login in logins {
        promptly("a login", login).await.unwrap().unwrap();
    }
    assert!(
        finish_behind(holder, waiting).await.into_iter().all(|session| session.unwrap().version().get() == 1)
    );
    let left = all(sessions.iter().map(|session| node.get(session.id()).bypass_cache())).await;
    assert!(left.into_iter().all(|session| session.unwrap().is_none()), "each was ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_row_delays_no_other_touch() {
    let world = World::new();
    let mut config = config(&world);
    config.last_access_flush_interval = Duration::from_millis(10);
    let node = world.node_with(config).await;
    let observer = world.client().await;
    let sessions = make(&node, 2).await;
    let [locked, other] = [sessions[0].id(), sessions[1].id()];
    let holder = Holder::hold(&world, &[locked]).await;
    let accesses = async {
        for _ in 0..10 {
            let before = stored_time(&observer, "last_accessed_at", other).await;
            eventually("the access is written", async || {
                read(&node, locked).await;
                read(&node, other).await;
                stored_time(&observer, "last_accessed_at", other).await > before
            })
            .await;
        }
    };
    promptly("ten touches", accesses).await;
    let before = stored_time(&observer, "last_accessed_at", locked).await;
    // None waits while a statement that tries them is in flight.
    eventually("the touch of the locked row waits", async || node.status().touches_waiting > 0).await;
    holder.commit().await;
    eventually("the other access is written", async || {
        stored_time(&observer, "last_accessed_at", locked).await > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_updates_of_one_session_delay_no_other() {
    for count in [600, 2_000] {
        let world = World::new();
        let (node, sessions) = node_and_sessions(&world, 2).await;
        let [busy, mut other] = <[Session; 2]>::try_from(sessions).unwrap();
        let updates: Vec<_> = (0..count).map(|n| spawn_update(&node, &busy, n)).collect();
        let most = usize::try_from(count).unwrap() * 9 / 10;
        eventually("they are queued", async || node.status().writes.waiting > most).await;
        for number in 0..10_i64 {
            other.set("n", &number).unwrap();
            promptly("an update of another session", node.save(&mut other)).await.unwrap();
        }
        let waiting = node.status().writes.waiting;
        assert!(waiting > most / 2, "most of them still waited: {waiting}");
        let ends = async {
            for update in updates {
                update.await.unwrap().unwrap();
            }
        };
        // They run one after the other, so the last one may wait for all.
        tokio::time::timeout(4 * WAIT_MAX, ends).await.expect("each ends");
        let stored = node.get(busy.id()).bypass_cache().await.unwrap().unwrap();
        assert_eq!(stored.version().get(), count + 1);
    }
}

/// And with a locked row: the queue behind it is as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_updates_of_a_locked_row_delay_no_other() {
    let world = World::new();
    let (node, sessions) = node_and_sessions(&world, 2).await;
    let [locked, mut other] = <[Session; 2]>::try_from(sessions).unwrap();
    let holder = Holder::hold(&world, &[locked.id()]).await;
    let waiting: Vec<_> = (0..600).map(|n| spawn_update(&node, &locked, n)).collect();
    blocked(&node, 600).await;
    for number in 0..10_i64 {
        other.set("n", &number).unwrap();
        promptly("an update of another session", node.save(&mut other)).await.unwrap();
    }
    assert!(finish_behind(holder, waiting).await.into_iter().all(|update| update.is_ok()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_locked_for_too_long_is_contention() {
    let world = World::new();
    let mut config = config(&world);
    config.query_timeout = Duration::from_millis(300);
    let node = world.node_with(config).await;
    let observer = world.client().await;
    let session = make(&node, 1).await.remove(0);
    let holder = Holder::hold(&world, &[session.id()]).await;
    let update = in_time("it is given up", spawn_update(&node, &session, 2)).await.unwrap();
    let Err(UpdateError::Failed(error)) = update else { panic!("the row is locked: {update:?}") };
    assert_eq!(error.kind(), ErrorKind::Contention, "{error}");
    let error = in_time("it is given up", node.delete(session.id())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Contention, "{error}");
    assert!(error.to_string().contains("pg_blocking_pids"), "{error}");
    assert!(!holder.has_waiter(&observer).await, "no statement is left on the server");
    holder.commit().await;
    assert_eq!(stored_version(&observer, session.id()).await, Some(1));
    assert_eq!(n(&spawn_update(&node, &session, 3).await.unwrap().unwrap()), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_an_application_pool_locked_rows_delay_no_other() {
    let world = World::new();
    let pool = pool(&world, 4);
    let node = node_on(&world, &pool, config(&world)).await;
    let sessions = make(&node, 20).await;
    let (locked, others) = sessions.split_at(LOCKED);
    let holder = Holder::hold(&world, &crate::fixtures::ids(locked)).await;
    let waiting: Vec<_> = locked.iter().map(|session| spawn_update(&node, session, 2)).collect();
    blocked(&node, LOCKED).await;
    for session in others {
        let updated = promptly("an update", spawn_update(&node, session, 2)).await.unwrap().unwrap();
        assert_eq!(n(&updated), 2);
        assert!(promptly("a logout", node.delete(session.id())).await.unwrap());
    }
    none_finished(&waiting);
    for _ in 0..4 {
        let client = pool.get().await.unwrap();
        for (setting, value) in [("lock_timeout", "0"), ("synchronous_commit", "on")] {
            let shown: String = client.query_one(&format!("SHOW {setting}"), &[]).await.unwrap().get(0);
            assert_eq!(shown, value, "the application's {setting}");
        }
    }
    holder.commit().await;
    assert!(finish(waiting).await.into_iter().all(|update| n(&update.unwrap()) == 2));
}

/// The rows that go with a session: its overflow attributes, labels and locks.
#[tokio::test]
async fn locked_attribute_label_or_lock_delays_no_other_logout() {
    let world = World::new();
    let node = world.node_with(config(&world)).await;
    let (mut sessions, mut leases) = (Vec::new(), Vec::new());
    for user in 0..20_i64 {
        let session = node.create(user).set("large", &"x".repeat(4_000)).label("x").await.unwrap();
        leases.push(node.locks().session_lock(session.id(), "x").await.unwrap());
        sessions.push(session.id());
    }
    let (attributes, locks) = (list(&sessions[..2]), list(&sessions[2..4]));
    let labels = list(&sessions[4..6]);
    let script = format!(
        "SELECT FROM session_attributes WHERE session_id IN ({attributes}) FOR UPDATE;
         SELECT FROM session_labels WHERE session_id IN ({labels}) FOR UPDATE;
         SELECT FROM session_locks WHERE session_id IN ({locks}) FOR UPDATE"
    );
    let holder = Holder::begin(&world, &script).await;
    let mut logouts: Vec<_> = sessions
        .iter()
        .map(|&id| {
            let node = node.clone();
            tokio::spawn(async move { node.delete(id).await })
        })
        .collect();
    let others = logouts.split_off(6);
    for logout in others {
        assert!(promptly("a logout", logout).await.unwrap().unwrap());
    }
    assert!(finish_behind(holder, logouts).await.into_iter().all(Result::unwrap));
    drop(leases);
}
