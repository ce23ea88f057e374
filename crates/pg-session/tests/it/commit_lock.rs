//! A commit that notifies waits for the other commits that notify, without a limit.
//!
//! At such a commit, PostgreSQL keeps one lock of the whole server until the commit is flushed and replicated.
//!
//! ```text
//! another client   NOTIFY ── COMMIT ── waits for its standby ────────────── ends
//! node             one write ── locks rows ── COMMIT waits for the lock ─────── ends
//! ```

use std::time::Duration;

use deadpool_postgres::Pool;
use pg_sandbox::Sandbox;
use pg_session::testing::Guard;
use pg_session::{Config, ErrorKind, GroupId, Session, SessionId, SessionManager, UpdateError};
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::fixtures::{all, driver_config, hit, in_time, make, n, read};
use crate::statement_modes::pool;
use crate::support::{WAIT_MAX, World, eventually};
use crate::tables::stored_version;

/// Far longer than a statement waits for a locked row.
const WAITED: &str = "100 milliseconds";

struct Scene {
    server: Sandbox,
    world: World,
}

impl Scene {
    /// Only a client that asks for it waits for the standby, which does not exist.
    fn start() -> Self {
        let server = Sandbox::builder()
            .setting("synchronous_standby_names", "nobody")
            .setting("synchronous_commit", "local")
            .start()
            .unwrap();
        let world = World::on(&server);
        Self { server, world }
    }

    fn config(&self) -> Config {
        let mut config = self.world.roomy();
        config.row_lock_wait = Config::default().row_lock_wait;
        config
    }

    /// A node whose updates commit before they notify.
    async fn node_that_commits_first(&self, config: Config) -> SessionManager {
        let builder = SessionManager::builder(config).url(&self.world.url).unwrap();
        let node = builder.notify_after_updates().connect().await.unwrap();
        node.wait_until_trusted().await.unwrap();
        node
    }

    /// Another client notifies, and keeps its commit open until `observer` cancels it. Returns its process id.
    async fn hold_notifications(
        &self,
        observer: &Client,
    ) -> (i32, JoinHandle<Result<(), tokio_postgres::Error>>) {
        let client = self.world.client().await;
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let script = "SET synchronous_commit = on; BEGIN; CREATE TABLE other (); DROP TABLE other; NOTIFY other; COMMIT";
        let commit = tokio::spawn(async move { client.batch_execute(script).await });
        eventually("the other commit waits", async || {
            let text = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
            !observer.query(text, &[&pid]).await.unwrap().is_empty()
        })
        .await;
        (pid, commit)
    }

    /// Carries out a write whose commit waits for another one for far longer than `row_lock_wait`.
    async fn behind_another_commit<T>(&self, what: &str, write: impl IntoFuture<Output = T>) -> T {
        let observer = self.world.client().await;
        let (pid, commit) = self.hold_notifications(&observer).await;
        let release = async {
            eventually(&format!("{what} waits at its commit"), async || {
                // Beside it only proofs of the listener wait there.
                let text = format!(
                    "SELECT FROM pg_stat_activity
                     WHERE wait_event_type = 'Lock' AND wait_event = 'object' AND query NOT LIKE 'SELECT pg_catalog.pg_notify%'
                         AND clock_timestamp() - query_start > interval '{WAITED}'"
                );
                !observer.query(&text, &[]).await.unwrap().is_empty()
            })
            .await;
            observer.execute("SELECT pg_cancel_backend($1)", &[&pid]).await.unwrap();
        };
        let (output, ()) = in_time(what, async { tokio::join!(write.into_future(), release) }).await;
        commit.await.unwrap().unwrap();
        output
    }

    /// Whether no statement of the node was stopped and sent again.
    fn assert_none_was_repeated(&self) {
        let log = self.server.log();
        assert!(!log.contains("lock timeout"), "a statement was stopped: {log}");
    }
}

/// How the server process of an update ends behind its commit.
#[derive(Clone, Copy, Debug)]
enum End {
    Terminated,
    Cancelled,
}

/// ```text
/// another client   NOTIFY ── COMMIT ── waits for its standby ──────────────────────────── ends
/// node             UPDATE ── COMMIT ── waits with its NOTIFY ──✕ ── notifies again ────────── ends
/// other node       has the session in memory                                             drops it
/// ```
async fn update_without_notification(end: End, retries: bool) -> bool {
    let scene = Scene::start();
    let node = scene.node_that_commits_first(scene.config()).await;
    let other = scene.world.node_with(scene.config()).await;
    if !retries {
        node.probes().remove(Guard::Notices);
    }
    let id = lose_a_notification(&scene, &node, &other, end, None).await;
    // Behind everything that was notified before.
    if retries {
        eventually("the other node drops it", async || {
            hit(&other, id).is_none_or(|session| n(&session) == 2)
        })
        .await;
        assert_eq!(n(&read(&other, id).await), 2);
    }
    other.catch_up().await.unwrap();
    n(&read(&other, id).await) == 2
}

/// Updates a session that the other node has in memory, and ends the server process behind the commit. The update may move
/// the session to a group.
async fn lose_a_notification(
    scene: &Scene,
    node: &SessionManager,
    other: &SessionManager,
    end: End,
    group: Option<GroupId>,
) -> SessionId {
    let mut session = make(node, 1).await.remove(0);
    read(other, session.id()).await;
    assert!(hit(other, session.id()).is_some());
    let observer = scene.world.client().await;
    let (pid, commit) = scene.hold_notifications(&observer).await;
    let id = session.id();
    let update = {
        let node = node.clone();
        tokio::spawn(async move {
            session.set("n", &2_i64).unwrap();
            let save = node.save(&mut session);
            match group {
                Some(group) => save.group(Some(group)).await,
                None => save.await,
            }
        })
    };
    let function = match end {
        End::Terminated => "pg_terminate_backend",
        End::Cancelled => "pg_cancel_backend",
    };
    let end = format!(
        "SELECT {function}(pid) FROM pg_stat_activity
         WHERE wait_event_type = 'Lock' AND wait_event = 'object' AND query LIKE 'CALL %'"
    );
    eventually("the update is committed, and waits with its notification", async || {
        !observer.query(&end, &[]).await.unwrap().is_empty()
    })
    .await;
    let Err(UpdateError::Failed(error)) = in_time("the update ends", update).await.unwrap() else {
        panic!("its server process has ended");
    };
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(stored_version(&observer, id).await, Some(2), "it is committed");
    assert!(hit(other, id).is_some(), "no node can be notified yet");
    observer.execute("SELECT pg_cancel_backend($1)", &[&pid]).await.unwrap();
    commit.await.unwrap().unwrap();
    id
}

/// ```text
/// node         UPDATE ── COMMIT ── waits with its NOTIFY ──✕ its server process ends ──✕ the node ends
/// other node   has the session in memory                                      removes the row that fell silent ── verifies
/// ```
async fn update_of_a_node_that_ends(verifies: bool) {
    let scene = Scene::start();
    let mut config = scene.config();
    config.trust_window = Duration::from_secs(1);
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let other = scene.world.node_with(config.clone()).await;
    if !verifies {
        other.probes().remove(Guard::Silence);
    }
    let builder = SessionManager::builder(config).url(&scene.world.url).unwrap().notify_after_updates();
    let node = runtime.spawn(builder.connect()).await.unwrap().unwrap();
    node.wait_until_trusted().await.unwrap();
    node.probes().remove(Guard::Notices);
    let id = lose_a_notification(&scene, &node, &other, End::Terminated, None).await;
    runtime.shutdown_background();
    let observer = scene.world.client().await;
    eventually("the row of the node is removed", async || {
        observer.query("SELECT FROM session_nodes", &[]).await.unwrap().len() == 1
    })
    .await;
    other.catch_up().await.unwrap();
    assert_eq!(n(&read(&other, id).await), if verifies { 2 } else { 1 });
}

/// ```text
/// another client   NOTIFY ── COMMIT ── waits for its standby ──── ends
/// node             moves X to the group ── COMMIT waits ───────────── moved and notified at once
/// ender                                                                          ends the group, with X
/// other node       has X in memory, without a group ─────────────── drops X ─────── must not serve X
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_another_group_never_commits_first() {
    let scene = Scene::start();
    let node = scene.node_that_commits_first(scene.config()).await;
    let (other, ender) =
        (scene.world.node_with(scene.config()).await, scene.world.node_with(scene.config()).await);
    let observer = scene.world.client().await;
    let blue = GroupId::named("blue");
    let mut session = make(&node, 1).await.remove(0);
    let id = session.id();
    read(&other, id).await;
    let (pid, commit) = scene.hold_notifications(&observer).await;
    let save = tokio::spawn({
        let node = node.clone();
        async move { node.save(&mut session).group(Some(blue)).await.map(|_| ()) }
    });
    eventually("the move waits for the other commit", async || {
        // Of either form.
        let text = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'object'
                        AND (query LIKE 'WITH done AS%' OR query LIKE 'CALL %')";
        !observer.query(text, &[]).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(stored_version(&observer, id).await, Some(1), "no one sees a move that was not notified");
    observer.execute("SELECT pg_cancel_backend($1)", &[&pid]).await.unwrap();
    commit.await.unwrap().unwrap();
    in_time("it is moved", save).await.unwrap().unwrap();
    assert_eq!(ender.group(blue).delete().await.unwrap(), 1);
    other.catch_up().await.unwrap();
    assert!(hit(&other, id).is_none(), "it has ended with its group");
    assert!(in_time("it is read", other.get(id)).await.unwrap().is_none());
}

/// ```text
/// node         moves X to the group ── COMMIT ── waits with its NOTIFY ──✕ its server process ends
/// ender                                                                        ends the group, with X ── NOTIFY
/// other node   has X in memory, without a group ─────────────────────────────────────────────────── serves X
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_a_move_that_commits_first_outlives_its_group() {
    let scene = Scene::start();
    let node = scene.node_that_commits_first(scene.config()).await;
    let (other, ender) =
        (scene.world.node_with(scene.config()).await, scene.world.node_with(scene.config()).await);
    node.probes().remove(Guard::MoveInside);
    // Its notification is late for as long as the test lasts.
    node.probes().remove(Guard::Notices);
    let blue = GroupId::named("blue");
    let id = lose_a_notification(&scene, &node, &other, End::Terminated, Some(blue)).await;
    assert_eq!(ender.group(blue).delete().await.unwrap(), 1);
    other.catch_up().await.unwrap();
    assert!(hit(&other, id).is_some(), "the end of the group names no session that it has");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_ends_makes_the_others_verify() {
    update_of_a_node_that_ends(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_silence_an_update_stays_unknown() {
    update_of_a_node_that_ends(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_ends_behind_its_commit_is_notified() {
    for end in [End::Terminated, End::Cancelled] {
        assert!(update_without_notification(end, true).await, "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_notices_an_update_stays_unknown() {
    assert!(
        !update_without_notification(End::Terminated, false).await,
        "the other node serves the old version"
    );
}

/// ```text
/// ended node   an update that waits for a row ─────────────────────────────── ends
/// other node   its row has fallen silent for three windows: it stays              removes it
/// ```
#[tokio::test]
async fn a_node_whose_update_still_runs_keeps_its_row() {
    let world = World::new();
    let mut config = world.config();
    config.trust_window = Duration::from_secs(1);
    let node = world.node_with(config).await;
    let id = make(&node, 1).await[0].id().expose();
    let (blocker, observer, client) = (world.client().await, world.client().await, world.client().await);
    let text = "SELECT pg_catalog.format(
            'CALL \"%s\".\"session_update_one\"(%L, 1, %L, NULL, NULL, NULL, ''1 day'', ''60s'', false, NULL, NULL, NULL, NULL)',
            current_schema(), id, updated_at) FROM sessions";
    let call: String = observer.query_one(text, &[]).await.unwrap().get(0);
    blocker.batch_execute("BEGIN; SELECT FROM sessions FOR UPDATE").await.unwrap();
    let update = tokio::spawn(async move { client.batch_execute(&call).await });
    eventually("the update waits for the row", async || {
        let waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CALL %'";
        !observer.query(waits, &[]).await.unwrap().is_empty()
    })
    .await;
    let ended = "INSERT INTO session_nodes (node, first_beat, beat, token, heard, name, version, settings, registered_at)
        VALUES ($1, 1, 1, 1, '{}', '', '', '', now())";
    observer.execute(ended, &[&id]).await.unwrap();
    let beat = async || -> i64 {
        let text = "SELECT beat FROM session_nodes WHERE node <> $1";
        observer.query_one(text, &[&id]).await.unwrap().get(0)
    };
    let rows = async || observer.query("SELECT FROM session_nodes", &[]).await.unwrap().len();
    let first = beat().await;
    // Four beats in each window.
    eventually("three windows have passed", async || beat().await >= first + 12).await;
    assert_eq!(rows().await, 2, "the update may be one of the node that ended");
    blocker.batch_execute("ROLLBACK").await.unwrap();
    update.await.unwrap().unwrap();
    eventually("the row is removed", async || rows().await == 1).await;
}

async fn set(node: &SessionManager, session: &mut Session, key: &str, value: &str) -> i64 {
    session.set(key, &value).unwrap();
    node.save(session).await.unwrap();
    session.version().get()
}

#[tokio::test]
async fn an_update_waits_for_another_commit_that_notifies() {
    let scene = Scene::start();
    let node = scene.world.node_with(scene.config()).await;
    updates_wait(&scene, &node).await;
}

#[tokio::test]
async fn an_update_that_commits_first_waits_only_to_notify() {
    let scene = Scene::start();
    let node = scene.node_that_commits_first(scene.config()).await;
    updates_wait(&scene, &node).await;
    let other = scene.world.node_with(scene.config()).await;
    let mut session = make(&node, 1).await.remove(0);
    // Each kind of change, a conflict and a session that has ended.
    session.set("n", &2_i64).unwrap();
    session.set("large", &"x".repeat(4_000)).unwrap();
    node.save(&mut session).await.unwrap();
    let mut old = read(&other, session.id()).await;
    session.set("n", &3_i64).unwrap();
    node.save(&mut session).await.unwrap();
    eventually("the other node learns it", async || n(&read(&other, session.id()).await) == 3).await;
    old.set("m", &1_i64).unwrap();
    node.save(&mut old).await.unwrap();
    assert_eq!((n(&old), old.version().get()), (3, 4), "it was rebased");
    assert!(node.delete(old.id()).await.unwrap());
    old.set("m", &2_i64).unwrap();
    let ended = node.save(&mut old).await;
    assert!(matches!(ended, Err(UpdateError::NotFound)), "{ended:?}");
}

/// Whether a statement that commits first was prepared on the only connection of the pool.
async fn has_committed_first(pool: &Pool) -> bool {
    let connection = pool.get().await.unwrap();
    let text = "SELECT FROM pg_prepared_statements WHERE statement LIKE 'CALL %'";
    !connection.query_typed(text, &[]).await.unwrap().is_empty()
}

#[tokio::test]
async fn an_update_commits_first_while_other_nodes_notify() {
    let world = World::new();
    let pool = pool(&world, 1);
    let builder = SessionManager::builder(world.config()).url(&world.url).unwrap().pool(pool.clone());
    let node = builder.connect().await.unwrap();
    node.wait_until_trusted().await.unwrap();
    let other = world.node().await;
    let mut session = make(&node, 1).await.remove(0);
    for value in ["1", "2", "3"] {
        set(&node, &mut session, "a", value).await;
        // It has received its own notification.
        node.catch_up().await.unwrap();
    }
    assert!(!has_committed_first(&pool).await, "it is alone");
    set(&other, &mut read(&other, session.id()).await, "b", "1").await;
    node.catch_up().await.unwrap();
    set(&node, &mut read(&node, session.id()).await, "a", "4").await;
    assert!(has_committed_first(&pool).await, "another node has notified");
}

/// ```text
/// server   crashes: the listener's connection ends, and the registry is empty ── starts
/// node     its last tick is recent ────────────────────────────────────────────── an update: notifies inside
/// ```
///
/// If it committed first and ended behind its commit, no row would fall silent.
#[tokio::test]
async fn a_node_that_has_lost_its_listener_notifies_inside() {
    let world = World::new();
    let (wire, pool) = (world.proxy().await, pool(&world, 1));
    let mut config = world.roomy();
    config.trust_window = Duration::from_secs(600);
    let builder = SessionManager::builder(config).url(&world.url).unwrap().pool(pool.clone());
    let builder = builder.listen_on(driver_config(&wire.url_for(&world.url)));
    let node = builder.notify_after_updates().connect().await.unwrap();
    in_time("the node is in sync", node.wait_until_trusted()).await.unwrap();
    let mut session = make(&node, 1).await.remove(0);
    wire.refuse();
    wire.cut();
    eventually("its listener is lost", async || node.status().trusted_for.is_none()).await;
    set(&node, &mut session, "a", "1").await;
    assert!(!has_committed_first(&pool).await, "the registry may be empty");
    wire.heal();
    in_time("the node is in sync again", node.wait_until_trusted()).await.unwrap();
    set(&node, &mut session, "a", "2").await;
    assert!(has_committed_first(&pool).await, "a tick has shown its row");
}

async fn updates_wait(scene: &Scene, node: &SessionManager) {
    let mut session = make(node, 1).await.remove(0);
    let large = "x".repeat(4_000);
    let version = scene.behind_another_commit("an update", set(node, &mut session, "a", "1")).await;
    assert_eq!(version, 2);
    let update = set(node, &mut session, "large", &large);
    assert_eq!(scene.behind_another_commit("an update with an overflow attribute", update).await, 3);
    session.set("large", &"small").unwrap();
    let update = node.save(&mut session);
    scene.behind_another_commit("an update that removes an overflow attribute", update).await.unwrap();
    let mut sessions = make(node, 8).await;
    let statements = node.status().writes.update_statements;
    for session in &mut sessions {
        session.set("n", &2_i64).unwrap();
    }
    let updates = all(sessions.iter_mut().map(|session| node.save(session)));
    let outcomes = scene.behind_another_commit("a batch of updates", updates).await;
    assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(node.status().writes.update_statements, statements + 1);
    assert!(sessions.iter().all(|session| n(session) == 2 && session.version().get() == 2));
    scene.assert_none_was_repeated();
}

#[tokio::test]
async fn a_login_waits_for_another_commit_that_notifies() {
    let scene = Scene::start();
    let mut config = scene.config();
    config.sessions_per_user_max = 1;
    let node = scene.world.node_with(config).await;
    let old = node.create(1).await.unwrap();
    let new =
        scene.behind_another_commit("a login that evicts", async { node.create(1).await }).await.unwrap();
    assert!(node.get(old.id()).bypass_cache().await.unwrap().is_none(), "it was evicted");
    let mut anonymous = node.create_anonymous().await.unwrap();
    let login = async { node.rotate(&mut anonymous).user(1).await };
    scene.behind_another_commit("a rotation that evicts", login).await.unwrap();
    assert!(node.get(new.id()).bypass_cache().await.unwrap().is_none(), "it was evicted");
    let lease = node.locks().session_lock(anonymous.id(), "x").wait(WAIT_MAX).await.unwrap();
    scene.behind_another_commit("a rotation", async { node.rotate(&mut anonymous).await }).await.unwrap();
    drop(lease);
    scene.assert_none_was_repeated();
}

#[tokio::test]
async fn a_logout_waits_for_another_commit_that_notifies() {
    let scene = Scene::start();
    let node = scene.world.node_with(scene.config()).await;
    let mut sessions = Vec::new();
    for user in 0..5_i64 {
        let create = node.create(user).group(10 + user).set("role", &1_i64);
        sessions.push(create.set("large", &"x".repeat(4_000)).await.unwrap());
    }
    let logout = async { node.delete(sessions[0].id()).await };
    assert!(scene.behind_another_commit("a logout", logout).await.unwrap());
    for key in ["role", "large"] {
        let removal = async { node.user(1).remove_attribute(key).await };
        assert_eq!(scene.behind_another_commit("a removal of an attribute", removal).await.unwrap(), 1);
    }
    let deletion = async { node.user(1).delete().await };
    assert_eq!(scene.behind_another_commit("log out everywhere", deletion).await.unwrap(), 1);
    let deletion = async { node.user(2).delete_except(sessions[2].id()).await };
    assert_eq!(scene.behind_another_commit("log out elsewhere", deletion).await.unwrap(), 0);
    let deletion = async { node.group(13).delete().await };
    assert_eq!(scene.behind_another_commit("a deletion of a group", deletion).await.unwrap(), 1);
    let lease = node.locks().try_lock("x").await.unwrap();
    scene.behind_another_commit("a release of a lock", lease.release()).await.unwrap();
    let deletion = async { node.delete_all_sessions().await };
    assert_eq!(scene.behind_another_commit("a deletion of all", deletion).await.unwrap(), 2);
    scene.assert_none_was_repeated();
}
