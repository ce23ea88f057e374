//! Concurrent writes of one node: they share statements, keep their order, and fail alone.

use std::time::Duration;

use pg_session::testing::{Guard, Point};
use pg_session::{Error, ErrorKind, Session, SessionManager, UpdateError};
use tokio::task::JoinHandle;

use crate::support::{World, eventually};
use crate::tables::{Holder, counts, list, stored, stored_version};

const POISON: &str = "poison-7f3a";

/// A node with one statement of updates at a time, so that whatever is queued meets in one.
async fn one_lane(world: &World) -> SessionManager {
    let mut config = world.config();
    config.write_concurrency = 1;
    world.node_with(config).await
}

async fn sessions(node: &SessionManager, count: i64) -> Vec<Session> {
    let mut sessions = Vec::new();
    for user in 0..count {
        sessions.push(node.create(user).set("n", &0).await.unwrap());
    }
    sessions
}

fn spawn_update(node: &SessionManager, mut session: Session) -> JoinHandle<Result<Session, UpdateError>> {
    let node = node.clone();
    tokio::spawn(async move { node.save(&mut session).await.map(|()| session) })
}

async fn queued(node: &SessionManager, count: usize) {
    eventually("the writes are queued", async || node.status().writes.waiting >= count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statement_waiting_for_row_does_not_block_other_sessions() {
    let world = World::new();
    let node = world.node().await;
    let observer = world.client().await;
    let all = sessions(&node, 4).await;

    let holder = Holder::hold(&world, &[all[0].id()]).await;
    let mut stuck = all[0].clone();
    stuck.set("n", &1).unwrap();
    let stuck = spawn_update(&node, stuck);
    holder.blocks(&observer).await;

    // Far fewer than leave beside a statement that is as fast as most.
    let mut free = Vec::new();
    for mut session in all.into_iter().skip(1) {
        session.set("n", &1).unwrap();
        free.push(spawn_update(&node, session));
    }
    for update in free {
        assert_eq!(update.await.unwrap().unwrap().version().get(), 2);
    }
    assert!(!stuck.is_finished(), "its row is still held");
    holder.commit().await;
    assert_eq!(stuck.await.unwrap().unwrap().version().get(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_changes_of_session_in_flight_both_apply_in_order() {
    let world = World::new();
    let node = world.node().await;
    let observer = world.client().await;
    let session = node.create(1).await.unwrap();
    let id = session.id();
    let (mut first, mut second) = (session.clone(), session);
    first.set("first", &1).unwrap();
    first.set("last", "first").unwrap();
    second.set("second", &2).unwrap();
    second.set("last", "second").unwrap();

    let holder = Holder::hold(&world, &[id]).await;
    let first = spawn_update(&node, first);
    holder.blocks(&observer).await;
    let second = spawn_update(&node, second);
    queued(&node, 1).await;
    holder.commit().await;

    assert_eq!(first.await.unwrap().unwrap().version().get(), 2);
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.version().get(), 3);
    assert_eq!(second.keys(), ["first", "last", "second"], "the handle shows the other change, too");
    assert_eq!(second.get::<String>("last").unwrap().as_deref(), Some("second"));
    let held = stored(&observer, id).await;
    assert_eq!(
        held.iter().map(|(key, held)| (key.as_str(), held.version)).collect::<Vec<_>>(),
        [("first", 2), ("last", 3), ("second", 3)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_that_wait_together_share_one_statement() {
    let world = World::new();
    let node = one_lane(&world).await;
    let mut sessions = sessions(&node, 65).await;
    let before = node.status().writes;

    let gate = node.probes().close(Point::Committed);
    let mut lone = sessions.pop().unwrap();
    lone.set("n", &1).unwrap();
    let lone = spawn_update(&node, lone);
    gate.arrived(1).await;
    let mut together = Vec::new();
    for mut session in sessions {
        session.set("n", &1).unwrap();
        together.push(spawn_update(&node, session));
    }
    queued(&node, 64).await;
    gate.open();

    lone.await.unwrap().unwrap();
    for update in together {
        assert_eq!(update.await.unwrap().unwrap().get::<i32>("n").unwrap(), Some(1));
    }
    let after = node.status().writes;
    assert_eq!(after.updates - before.updates, 65);
    assert_eq!(after.update_statements - before.update_statements, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_updates_cost_far_fewer_commits_than_updates() {
    const ROUNDS: usize = 16;
    let (world, elsewhere) = (World::in_own_database().await, World::new());
    let node = world.node().await;
    let mut sessions = sessions(&node, 64).await;
    for round in 1..=ROUNDS {
        let mut updates = Vec::new();
        for mut session in sessions.drain(..) {
            session.set("n", &round).unwrap();
            updates.push(spawn_update(&node, session));
        }
        for update in updates {
            sessions.push(update.await.unwrap().unwrap());
        }
    }
    let writes = node.status().writes;
    assert_eq!(writes.updates, 64 * ROUNDS as u64);
    assert!(writes.update_statements * 4 <= writes.updates, "{writes:?}");

    // A backend reports its commits at the latest when it ends.
    assert!(node.shutdown(Duration::from_secs(10)).await.is_complete());
    let database = world.url.rsplit_once('/').unwrap().1;
    let observer = elsewhere.client().await;
    eventually("the node's backends end", async || {
        let text = "SELECT FROM pg_stat_activity WHERE datname = $1";
        observer.query(text, &[&database]).await.unwrap().is_empty()
    })
    .await;
    let text = "SELECT xact_commit FROM pg_stat_database WHERE datname = $1";
    let commits: i64 = observer.query_one(text, &[&database]).await.unwrap().get(0);
    // Everything else that the database has seen (start, creates, barriers) is counted here, too.
    assert!(commits >= i64::try_from(writes.update_statements).unwrap(), "{commits} commits, {writes:?}");
    assert!(commits.unsigned_abs() * 2 <= writes.updates, "{commits} commits for {} updates", writes.updates);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_concurrent_modifications_of_one_session_all_count() {
    let world = World::new();
    let nodes = [world.node().await, world.node().await];
    let id = nodes[0].create(1).set("n", &0).await.unwrap().id();
    let mut tasks = Vec::new();
    for task in 0..64 {
        let node = nodes[task % 2].clone();
        tasks.push(tokio::spawn(async move {
            node.modify(id, |session| {
                let n: i32 = session.get("n")?.unwrap_or(0);
                session.set("n", &(n + 1))
            })
            .await
        }));
    }
    let mut versions = Vec::new();
    for task in tasks {
        versions.push(task.await.unwrap().unwrap().version().get());
    }
    versions.sort_unstable();
    assert_eq!(versions, (2..=65).collect::<Vec<_>>(), "one version each");
    let last = nodes[0].get(id).bypass_cache().await.unwrap().unwrap();
    assert_eq!(last.get::<i32>("n").unwrap(), Some(64));
}

/// A poison for the session's row, and one that has a row of its own.
fn poisons() -> [String; 2] {
    [POISON.to_owned(), POISON.repeat(60)]
}

/// Sends 50 updates in one statement, of which one carries the poison; returns what became of them.
async fn poisoned_updates(
    world: &World,
    node: &SessionManager,
    poison: &str,
) -> Vec<Result<Session, UpdateError>> {
    let observer = world.client().await;
    let mut sessions = sessions(node, 51).await;
    let mut lone = sessions.pop().unwrap();
    lone.set("n", &1).unwrap();
    let holder = Holder::hold(world, &[lone.id()]).await;
    let lone = spawn_update(node, lone);
    holder.blocks(&observer).await;
    let mut updates = Vec::new();
    for (at, mut session) in sessions.into_iter().enumerate() {
        session.set("n", if at == 17 { poison } else { "fine" }).unwrap();
        updates.push(spawn_update(node, session));
    }
    queued(node, 50).await;
    holder.commit().await;
    lone.await.unwrap().unwrap();
    let mut outcomes = Vec::new();
    for update in updates {
        outcomes.push(update.await.unwrap());
    }
    outcomes
}

async fn refuse_poison(world: &World) {
    let script = format!(
        "ALTER TABLE sessions ADD CONSTRAINT no_poison CHECK (position('{POISON}' IN attributes) = 0);
         ALTER TABLE session_attributes ADD CONSTRAINT no_poison CHECK (position('{POISON}' IN value) = 0)"
    );
    world.client().await.batch_execute(&script).await.unwrap();
}

fn assert_tells_no_secret(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Database);
    let source = std::error::Error::source(error).expect("the server's words");
    let messages = format!("{error} {error:?} {source} {source:?}");
    assert!(messages.contains("no_poison"), "it names the constraint: {messages}");
    assert!(!messages.contains(POISON), "{messages}");
    let hex = messages.split(|c: char| !c.is_ascii_hexdigit() && c != '-').map(|word| word.replace('-', ""));
    assert!(hex.into_iter().all(|word| word.len() < 32), "a session id: {messages}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisonous_value_in_a_combined_update_fails_alone() {
    for poison in poisons() {
        let world = World::new();
        let node = one_lane(&world).await;
        refuse_poison(&world).await;
        let outcomes = poisoned_updates(&world, &node, &poison).await;
        let observer = world.client().await;
        let mut failed = 0;
        for outcome in outcomes {
            match outcome {
                Ok(session) => {
                    assert_eq!(session.version().get(), 2);
                    assert_eq!(stored(&observer, session.id()).await["n"].text, "\"fine\"");
                }
                Err(UpdateError::Failed(error)) => {
                    failed += 1;
                    assert_tells_no_secret(&error);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(failed, 1);
        let text = "SELECT count(*) FROM sessions WHERE version = 1";
        let untouched: i64 = observer.query_one(text, &[]).await.unwrap().get(0);
        assert_eq!(untouched, 1, "nothing half-written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_splitting_a_poisonous_value_fails_its_neighbours() {
    let world = World::new();
    let node = one_lane(&world).await;
    refuse_poison(&world).await;
    node.probes().remove(Guard::Split);
    let outcomes = poisoned_updates(&world, &node, POISON).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 0, "the control must fail");
}

async fn poisoned_creates(world: &World, node: &SessionManager, poison: &str) -> Vec<Result<Session, Error>> {
    let observer = world.client().await;
    let holder = Holder::begin(world, "LOCK TABLE sessions IN SHARE MODE").await;
    let spawn_create = |user: i64, value: &str| {
        let (node, value) = (node.clone(), value.to_owned());
        tokio::spawn(async move { node.create(user).set("n", &value).await })
    };
    let lone = spawn_create(1_000, "fine");
    holder.blocks(&observer).await;
    let creates: Vec<_> =
        (0..50).map(|user| spawn_create(user, if user == 31 { poison } else { "fine" })).collect();
    queued(node, 50).await;
    holder.commit().await;
    lone.await.unwrap().unwrap();
    let mut outcomes = Vec::new();
    for create in creates {
        outcomes.push(create.await.unwrap());
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisonous_value_in_a_combined_create_fails_alone() {
    let world = World::new();
    let node = one_lane(&world).await;
    refuse_poison(&world).await;
    for poison in poisons() {
        let outcomes = poisoned_creates(&world, &node, &poison).await;
        let errors: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert_eq!(errors.len(), 1);
        assert_tells_no_secret(errors[0]);
        assert_eq!(counts(&world.client().await).await, (50, 50), "nothing half-written");
        node.delete_all_sessions().await.unwrap();
    }
    node.probes().remove(Guard::Split);
    let outcomes = poisoned_creates(&world, &node, POISON).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 0, "the control must fail");
}

/// ```text
/// node      locks one row of its batch, waits for the other
/// plain     holds the other, and now wants the one: a cycle
/// server    fails the node's statement, whose deadlock_timeout ends first; the plain transaction goes on
/// node      tries again
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_survived_by_trying_again() {
    let world = World::new();
    let node = one_lane(&world).await;
    let observer = world.client().await;
    let mut three = sessions(&node, 3).await;
    for session in &mut three {
        session.set("n", &1).unwrap();
    }
    let [lone, left, right] = <[Session; 3]>::try_from(three).unwrap();
    let ids = [left.id(), right.id()];
    let door = Holder::hold(&world, &[lone.id()]).await;
    let mut held = [Holder::hold(&world, &ids[..1]).await, Holder::hold(&world, &ids[1..]).await];
    let lone = spawn_update(&node, lone);
    door.blocks(&observer).await;
    let batch = [spawn_update(&node, left), spawn_update(&node, right)];
    queued(&node, 2).await;
    door.commit().await;
    lone.await.unwrap().unwrap();

    // Which row the batch wants first is PostgreSQL's choice.
    eventually("the batch waits for its first row", async || {
        held[0].has_waiter(&observer).await || held[1].has_waiter(&observer).await
    })
    .await;
    let first = usize::from(held[1].has_waiter(&observer).await);
    held.swap(0, first);
    let [free, other] = held;
    free.commit().await;
    other.blocks(&observer).await;
    let script = format!(
        "SET LOCAL deadlock_timeout = '1h'; UPDATE sessions SET updated_at = updated_at WHERE id = {}",
        list(&ids[first..=first])
    );
    other.client.batch_execute(&script).await.expect("the plain transaction is let through");
    other.commit().await;
    for update in batch {
        let session = update.await.unwrap().expect("tried again");
        assert_eq!(stored_version(&observer, session.id()).await, Some(2), "and carried out once");
    }
}
