//! A commit that notifies waits for the other commits that notify, without a limit.
//!
//! PostgreSQL takes one lock of the whole server at such a commit, and keeps it until the commit is flushed and replicated.
//!
//! ```text
//! another client   NOTIFY ── COMMIT ── waits for its standby ────────────── ends
//! node             one write ── locks rows ── COMMIT waits for the lock ─────── ends
//! ```

use pg_sandbox::Sandbox;
use pg_session::{Config, Session, SessionManager};

use crate::fixtures::{all, in_time, make, n};
use crate::support::{PATIENCE, World, eventually};

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

    /// Carries out a write whose commit waits for another one for far longer than `row_lock_wait`.
    async fn behind_another_commit<T>(&self, what: &str, write: impl IntoFuture<Output = T>) -> T {
        let (other, observer) = (self.world.client().await, self.world.client().await);
        let pid: i32 = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let commit = tokio::spawn(async move {
            let script = "SET synchronous_commit = on; BEGIN; CREATE TABLE other (); DROP TABLE other; NOTIFY other; COMMIT";
            other.batch_execute(script).await
        });
        eventually("the other commit waits", async || {
            let text = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
            !observer.query(text, &[&pid]).await.unwrap().is_empty()
        })
        .await;
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

async fn set(node: &SessionManager, session: &mut Session, key: &str, value: &str) -> i64 {
    session.set(key, &value).unwrap();
    node.save(session).await.unwrap();
    session.version().get()
}

#[tokio::test]
async fn an_update_waits_for_another_commit_that_notifies() {
    let scene = Scene::start();
    let node = scene.world.node_with(scene.config()).await;
    let mut session = make(&node, 1).await.remove(0);
    let large = "x".repeat(4_000);
    let version = scene.behind_another_commit("an update", set(&node, &mut session, "a", "1")).await;
    assert_eq!(version, 2);
    let update = set(&node, &mut session, "large", &large);
    assert_eq!(scene.behind_another_commit("an update with an overflow attribute", update).await, 3);
    session.set("large", &"small").unwrap();
    let update = node.save(&mut session);
    scene.behind_another_commit("an update that removes an overflow attribute", update).await.unwrap();
    let mut sessions = make(&node, 8).await;
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
    let lease = node.locks().session_lock(anonymous.id(), "x").wait(PATIENCE).await.unwrap();
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
    let deletion = async { node.delete_all_sessions().await };
    assert_eq!(scene.behind_another_commit("a deletion of all", deletion).await.unwrap(), 2);
    scene.assert_none_was_repeated();
}
