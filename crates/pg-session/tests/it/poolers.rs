//! A real pgbouncer in front of the pool, of the listener, and of both.

use std::time::Duration;

use deadpool_postgres::{Manager, Pool};
use pg_sandbox::{PoolMode, Pooler, Proxy, Sandbox};
use pg_session::testing::Guard;
use pg_session::{
    Config, Error, ErrorKind, ListenerPath, Session, SessionId, SessionManager, Severity, StatementMode,
};
use tokio_postgres::{Client, NoTls};

use crate::fixtures::{driver_config, hit, in_time, make, read};
use crate::listener_refused::refusing_options;
use crate::stale_hits::{stale_hits_are_seen, without};
use crate::statement_modes::story;
use crate::support::{World, eventually};

const MODES: [PoolMode; 2] = [PoolMode::Session, PoolMode::Transaction];

/// The pool of a node: its own, or the application's.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Scope {
    Own,
    Applications,
}

const BOTH: [Scope; 2] = [Scope::Own, Scope::Applications];

fn pooler(world: &World, mode: PoolMode) -> Pooler {
    Pooler::builder(world.addr(), mode).start().unwrap()
}

fn config(world: &World, statements: StatementMode) -> Config {
    let mut config = world.config();
    config.statement_mode = statements;
    config.query_timeout = Duration::from_secs(5);
    config
}

fn application_pool(url: &str, connections: usize) -> Pool {
    Pool::builder(Manager::new(driver_config(url), NoTls)).max_size(connections).build().unwrap()
}

async fn connect(
    config: Config,
    whose: Scope,
    pool_url: &str,
    listen_url: &str,
) -> Result<SessionManager, Error> {
    let builder = SessionManager::builder(config.clone()).listen_on_url(listen_url)?;
    match whose {
        Scope::Own => builder.url(pool_url)?.connect().await,
        Scope::Applications => {
            builder.pool(application_pool(pool_url, config.pool_connections_max)).connect().await
        }
    }
}

/// Two nodes behind the pooler carry out every operation.
async fn two_nodes_work(world: &World, statements: StatementMode, whose: Scope, pooler: &Pooler) {
    let url = pooler.url();
    let node = || connect(config(world, statements), whose, &url, &world.url);
    let [a, b] = [node().await.unwrap(), node().await.unwrap()];
    in_time("A is trusted", a.wait_until_trusted()).await.unwrap();
    in_time("B is trusted", b.wait_until_trusted()).await.unwrap();
    in_time("the story ends", story(&a, &b)).await;
}

/// Connects, and returns the error about the configuration.
async fn config_error(config: Config, whose: Scope, pool_url: &str, listen_url: &str) -> String {
    let error = connect(config, whose, pool_url, listen_url).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{whose:?}: {error}");
    error.to_string()
}

/// What is prepared on the only server connection of a pooler, beside what the question prepares.
async fn prepared(url: &str) -> Vec<String> {
    let (client, connection) = driver_config(url).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let rows = client.query_typed("SELECT statement FROM pg_prepared_statements", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_operations_work_behind_a_pooler() {
    for mode in MODES {
        for whose in BOTH {
            for statements in [StatementMode::Auto, StatementMode::Unnamed] {
                let world = World::in_postgres();
                let pooler = pooler(&world, mode);
                two_nodes_work(&world, statements, whose, &pooler).await;
            }
        }
    }
}

/// pgbouncer 1.18 tracks no prepared statements. In session mode each client keeps its server connection, until a client
/// changes the mode.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_prepared_behind_a_pooler() {
    for mode in MODES {
        for whose in BOTH {
            let world = World::in_postgres();
            // Shared by all, so that it shows what they leave; and it is not reset.
            let pooler = Pooler::builder(world.addr(), mode)
                .setting("default_pool_size", if mode == PoolMode::Session { "20" } else { "1" })
                .setting("server_reset_query", "SELECT 1")
                .start()
                .unwrap();
            let url = pooler.url();
            let mut config = config(&world, StatementMode::Auto);
            config.pool_connections_max = 2;
            let node = connect(config, whose, &url, &world.url).await.unwrap();
            let [kept, ended] = [node.create(1).await.unwrap(), node.create(2).await.unwrap()];
            assert!(node.delete(ended.id()).await.unwrap());
            assert!(node.get(kept.id()).bypass_cache().await.unwrap().is_some());
            assert!(node.shutdown(Duration::from_secs(10)).await.is_complete());
            let found = prepared(&url).await;
            assert!(found.is_empty(), "{mode:?} {whose:?}: {found:?}");
        }
    }
}

#[tokio::test]
async fn prepared_statements_are_refused_where_unsafe() {
    let world = World::in_postgres();
    let shared =
        Pooler::builder(world.addr(), PoolMode::Transaction).max_prepared_statements(0).start().unwrap();
    let url = shared.url();
    for whose in BOTH {
        for connections in [1, 2] {
            let mut config = config(&world, StatementMode::Prepared);
            config.pool_connections_max = connections;
            let error = config_error(config, whose, &url, &world.url).await;
            assert!(error.contains("`statement_mode = "), "it says what to do: {error}");
        }
    }
    // With one connection, what cannot be tested is not prepared unless it leads directly to PostgreSQL.
    for statements in [StatementMode::Auto, StatementMode::Prepared] {
        let mut config = config(&world, statements);
        config.pool_connections_max = 1;
        let node = connect(config, Scope::Applications, &world.url, &world.url).await.unwrap();
        assert!(node.delete(node.create(1).await.unwrap().id()).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_statements_work_in_session_mode() {
    let world = World::in_postgres();
    let pooler = pooler(&world, PoolMode::Session);
    for whose in BOTH {
        two_nodes_work(&world, StatementMode::Prepared, whose, &pooler).await;
    }
}

/// pgbouncer 1.21 and newer gives the statements of all clients names of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_statements_work_where_they_are_tracked() {
    let (major, minor) = Pooler::installed().unwrap();
    if (major, minor) < (1, 21) {
        eprintln!("skipped: pgbouncer {major}.{minor} tracks no prepared statements");
        return;
    }
    let world = World::in_postgres();
    let pooler =
        Pooler::builder(world.addr(), PoolMode::Transaction).max_prepared_statements(100).start().unwrap();
    for whose in BOTH {
        two_nodes_work(&world, StatementMode::Prepared, whose, &pooler).await;
    }
}

/// ```text
/// pool   leads directly to PostgreSQL: prepared ┊ its name leads to a pooler: not prepared
/// ```
#[tokio::test]
async fn pool_that_moves_behind_a_pooler_stops_preparing() {
    let world = World::in_postgres();
    let shared = Pooler::builder(world.addr(), PoolMode::Transaction)
        .setting("default_pool_size", "1")
        .start()
        .unwrap();
    let name = Proxy::start(world.addr()).await.unwrap();
    let url = name.url_for(&world.url);
    let pool = application_pool(&url, 2);
    let builder =
        SessionManager::builder(config(&world, StatementMode::Auto)).listen_on_url(&world.url).unwrap();
    let node = builder.pool(pool.clone()).connect().await.unwrap();
    let session = node.create(1).await.unwrap();
    let connection = pool.get().await.unwrap();
    let text = "SELECT count(*) FROM pg_prepared_statements";
    let rows = connection.query_typed(text, &[]).await.unwrap();
    assert!(rows[0].get::<_, i64>(0) > 0, "a direct connection prepares");
    drop(connection);
    name.redirect(shared.addr());
    name.cut();
    eventually("the pool leads through the pooler", async || {
        node.get(session.id()).bypass_cache().await.is_ok_and(|found| found.is_some())
    })
    .await;
    assert!(node.delete(session.id()).await.unwrap());
    let found = prepared(&shared.url()).await;
    assert!(found.is_empty(), "{found:?}");
}

/// ```text
/// own pool   leads directly to PostgreSQL: prepared ┊ its name leads to a pooler: not prepared ┊ directly: prepared
/// ```
///
/// A pooler refuses the settings of the pool's connections, or drops them.
#[tokio::test]
async fn own_pool_that_moves_behind_a_pooler_goes_on() {
    let world = World::in_postgres();
    for statements in [StatementMode::Auto, StatementMode::Prepared] {
        for ignored in ["extra_float_digits", "extra_float_digits,options"] {
            let shared = Pooler::builder(world.addr(), PoolMode::Transaction)
                .setting("default_pool_size", "1")
                .setting("server_reset_query", "SELECT 1")
                .setting("ignore_startup_parameters", ignored)
                .start()
                .unwrap();
            let name = Proxy::start(world.addr()).await.unwrap();
            let url = name.url_for(&world.url);
            let node = connect(config(&world, statements), Scope::Own, &url, &world.url).await.unwrap();
            let [kept, ended] = [node.create(1).await.unwrap(), node.create(2).await.unwrap()];
            name.redirect(shared.addr());
            name.cut();
            eventually("the pool leads through the pooler", async || {
                node.get(kept.id()).bypass_cache().await.is_ok_and(|found| found.is_some())
            })
            .await;
            assert!(node.delete(ended.id()).await.unwrap());
            assert_eq!(node.status().connect_error, None);
            let found = prepared(&shared.url()).await;
            assert!(found.is_empty(), "{statements:?} {ignored}: {found:?}");

            name.redirect(world.addr());
            name.cut();
            eventually("the pool leads to PostgreSQL again", async || {
                node.delete(kept.id()).await.is_ok_and(|ended| ended)
            })
            .await;
        }
    }
}

#[tokio::test]
async fn own_pool_works_behind_pooler_that_refuses_options() {
    let world = World::in_postgres();
    let url = refusing_options(world.addr()).await;
    let node = connect(config(&world, StatementMode::Auto), Scope::Own, &url, &world.url).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
    assert!(node.delete(node.create(1).await.unwrap().id()).await.unwrap());
}

#[tokio::test]
async fn statement_mode_is_refused_at_start() {
    let world = World::in_postgres();
    let pooler = pooler(&world, PoolMode::Statement);
    let url = pooler.url();
    for whose in BOTH {
        for statements in [StatementMode::Auto, StatementMode::Prepared, StatementMode::Unnamed] {
            let error = config_error(config(&world, statements), whose, &url, &world.url).await;
            assert!(error.contains("session or transaction mode"), "{statements:?}: {error}");
        }
    }
}

#[tokio::test]
async fn listener_behind_a_pooler_is_refused_at_start() {
    let world = World::in_postgres();
    for mode in [PoolMode::Session, PoolMode::Transaction, PoolMode::Statement] {
        // By default pgbouncer refuses what marks the connection. Many setups let it ignore that.
        for ignored in ["extra_float_digits", "extra_float_digits,options"] {
            let pooler = Pooler::builder(world.addr(), mode).setting("ignore_startup_parameters", ignored);
            let pooler = pooler.start().unwrap();
            let url = pooler.url();
            let pools = if mode == PoolMode::Statement { vec![&world.url] } else { vec![&world.url, &url] };
            for pool_url in pools {
                let config = config(&world, StatementMode::Auto);
                let error = config_error(config, Scope::Own, pool_url, &url).await;
                assert!(error.contains("connection pooler"), "{mode:?}, {ignored}: {error}");
                assert!(error.contains("listen_on"), "it says what to do: {error}");
            }
        }
    }
}

/// ```text
/// listener   leads directly to PostgreSQL ┊ its name leads to a pooler: not trusted ┊ directly again: trusted
/// ```
#[tokio::test]
async fn listener_that_moves_behind_a_pooler_ends_trust() {
    let world = World::in_postgres();
    let pooler = pooler(&world, PoolMode::Session);
    let name = world.proxy().await;
    let node = world.node_listening_through(&name, world.roomy()).await;
    let id = make(&node, 1).await[0].id();
    assert!(hit(&node, id).is_some());
    name.redirect(pooler.addr());
    name.cut();
    eventually("trust ends", async || node.status().trusted_for.is_none()).await;
    eventually("it says why", async || {
        node.status().trust_error.is_some_and(|error| error.contains("pooler"))
    })
    .await;
    assert!(hit(&node, id).is_none());
    assert!(!read(&node, id).await.is_from_cache());
    name.redirect(world.addr());
    name.cut();
    in_time("it is trusted again", node.wait_until_trusted()).await.unwrap();
}

fn behind_session_pooler(world: &World) -> Config {
    let mut config = config(world, StatementMode::Auto);
    config.listener_path = ListenerPath::SessionPooler;
    config.trust_window = Duration::from_secs(1);
    config.query_timeout = Duration::from_secs(1);
    config.connect_timeout = Duration::from_secs(1);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listener_works_behind_a_session_pooler_if_accepted() {
    let world = World::in_postgres();
    for ignored in ["extra_float_digits", "extra_float_digits,options"] {
        let pooler =
            Pooler::builder(world.addr(), PoolMode::Session).setting("ignore_startup_parameters", ignored);
        let pooler = pooler.start().unwrap();
        let url = pooler.url();
        let node = connect(behind_session_pooler(&world), Scope::Own, &url, &url).await.unwrap();
        in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
        let session = make(&node, 1).await.remove(0);
        assert!(hit(&node, session.id()).is_some());
        let other = world.node().await;
        assert!(other.delete(session.id()).await.unwrap());
        eventually("the node receives the deletion", async || hit(&node, session.id()).is_none()).await;
        assert!(node.status().trusted_for.is_some());
    }
    // Without a pooler, the setting changes nothing.
    let node = connect(behind_session_pooler(&world), Scope::Own, &world.url, &world.url).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
}

/// In these modes the pooler lends the listening server connection to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pooler_that_keeps_no_connection_is_refused_at_start() {
    let world = World::in_postgres();
    for mode in [PoolMode::Transaction, PoolMode::Statement] {
        let pooler = pooler(&world, mode);
        let started = connect(behind_session_pooler(&world), Scope::Own, &world.url, &pooler.url()).await;
        let error = started.map(|_| ()).expect_err("notifications are lost");
        assert_eq!(error.kind(), ErrorKind::Config, "{mode:?}: {error:?}");
        assert!(error.to_string().contains("not in session mode"), "{mode:?}: {error:?}");
    }
}

/// ```text
/// listener   session mode: trusted ┊ its name leads to transaction mode: not trusted ┊ session mode: trusted
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_pooler_that_changes_its_mode_ends_trust() {
    let world = World::in_postgres();
    let [session, transaction] = MODES.map(|mode| pooler(&world, mode));
    let name = Proxy::start(session.addr()).await.unwrap();
    let listen_url = name.url_for(&world.url);
    let node = connect(behind_session_pooler(&world), Scope::Own, &world.url, &listen_url).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
    name.redirect(transaction.addr());
    name.cut();
    eventually("it says why it is not trusted", async || {
        node.status().trust_error.is_some_and(|error| error.contains("not in session mode"))
    })
    .await;
    name.redirect(session.addr());
    name.cut();
    in_time("it is trusted again", node.wait_until_trusted()).await.unwrap();
}

/// A pooler in front of the pool, whose server can be exchanged for a copy.
pub struct Redirected {
    original: Sandbox,
    pub copy: Sandbox,
    pooler: Pooler,
    pub node: SessionManager,
    /// Deleted after the copy was made.
    pub deleted: [Session; 3],
    /// In both, with its last access an hour ago.
    pub kept: SessionId,
    /// On the original.
    pub observer: Client,
    pub schema: String,
}

impl Redirected {
    pub async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let original = Sandbox::start().unwrap();
        let world = World::on(&original);
        let pooler = pooler(&world, PoolMode::Transaction);
        let mut config = config(&world, StatementMode::Auto);
        config.trust_window = Duration::from_secs(600);
        change(&mut config);
        let trust_window = config.trust_window;
        let node = connect(config, Scope::Own, &pooler.url(), &world.url).await.unwrap();
        in_time("the node is trusted", node.wait_until_trusted()).await.unwrap();
        // One with a shorter window would remove the row of the first.
        let other = world.node_with(world.config().with(|config| config.trust_window = trust_window)).await;
        let deleted: [Session; 3] = make(&other, 3).await.try_into().unwrap();
        let kept = make(&other, 1).await[0].id();
        let observer = world.client().await;
        let an_hour_ago = "UPDATE sessions SET last_accessed_at = last_accessed_at - interval '1 hour'";
        observer.batch_execute(an_hour_ago).await.unwrap();
        let copy = original.standby().start().unwrap();
        copy.wait_until_applied(&original).unwrap();
        copy.promote().unwrap();
        assert_eq!(other.delete_many(deleted.each_ref().map(Session::id)).await.unwrap(), 3);
        node.catch_up().await.unwrap();
        Self { original, copy, pooler, node, deleted, kept, observer, schema: world.schema }
    }

    /// Each transaction that begins afterwards reaches the copy.
    pub fn lead_to_copy(&self) {
        self.pooler.redirect(self.copy.addr()).unwrap();
    }

    pub async fn lead_to_original(&self) {
        self.pooler.redirect(self.original.addr()).unwrap();
        in_time("the node is trusted again", self.node.catch_up()).await.unwrap();
    }

    pub fn trusts(&self) -> bool {
        self.node.status().trusted_for.is_some()
    }
}

/// ```text
/// pooler   database A ┊ A's copy B, where the session lives ┊ A
/// A        the session is deleted, the node is notified
/// node     trusted    ┊ reads the session; trust ends       ┊ trusted: must not serve it
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_another_database_are_never_kept() {
    let redirected = Redirected::new(|_| ()).await;
    let Redirected { node, deleted: [session, ..], .. } = &redirected;
    let id = session.id();
    redirected.lead_to_copy();
    read(node, id).await;
    eventually("trust ends", async || !redirected.trusts()).await;
    redirected.lead_to_original().await;
    assert!(hit(node, id).is_none(), "a row of another database is not kept");
    assert!(node.get(id).await.unwrap().is_none());
}

/// ```text
/// pooler   database A ┊ A's copy B, where the session is gone ┊ A
/// node     trusted    ┊ reads the session; trust ends         ┊ trusted: must not remember that it has ended
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absence_in_another_database_is_never_remembered() {
    let redirected = Redirected::new(|_| ()).await;
    let Redirected { node, kept, .. } = &redirected;
    let on_copy = World { url: redirected.copy.url(), schema: redirected.schema.clone() }.client().await;
    let statement = "DELETE FROM sessions WHERE id = $1";
    assert_eq!(on_copy.execute(statement, &[&kept.expose()]).await.unwrap(), 1);
    redirected.lead_to_copy();
    assert!(node.get(*kept).await.unwrap().is_none());
    eventually("trust ends", async || !redirected.trusts()).await;
    redirected.lead_to_original().await;
    read(node, *kept).await;
}

/// ```text
/// pooler   database A ┊ A's copy B                                        ┊ A
/// node     trusted    ┊ saves, rotates and creates: succeeds; trust ends  ┊ trusted: must not serve what B has
///                     ┊ writes a last access                              ┊ writes the last access again
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_to_another_database_are_never_kept() {
    let interval = Duration::from_millis(100);
    let redirected = Redirected::new(|config| config.last_access_flush_interval = interval).await;
    let Redirected { node, deleted: [saved, rotated, _], kept, observer, .. } = &redirected;
    let (mut saved, mut rotated) = (saved.clone(), rotated.clone());
    redirected.lead_to_copy();
    saved.set("n", &2).unwrap();
    node.save(&mut saved).await.unwrap();
    eventually("trust ends with the first write", async || !redirected.trusts()).await;
    node.rotate(&mut rotated).await.unwrap();
    let created = node.create(9).await.unwrap();
    let accessed = async |client: &Client| {
        let statement = "SELECT last_accessed_at > created_at FROM sessions WHERE id = $1";
        client.query_one(statement, &[&kept.expose()]).await.unwrap().get::<_, bool>(0)
    };
    let on_copy = World { url: redirected.copy.url(), schema: redirected.schema.clone() }.client().await;
    read(node, *kept).await;
    eventually("the copy has the access", async || accessed(&on_copy).await).await;
    assert!(!accessed(observer).await);

    redirected.lead_to_original().await;
    for (write, id) in [("save", saved.id()), ("rotation", rotated.id()), ("create", created.id())] {
        assert!(hit(node, id).is_none(), "{write}");
        assert!(node.get(id).await.unwrap().is_none(), "{write}");
    }
    eventually("the original has the access", async || accessed(observer).await).await;
}

/// ```text
/// pooler   database A ┊ A's copy B                                              ┊ A
/// node     trusted    ┊ logs out: B deletes the session, A has it still; error  ┊ logs out: success
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_on_another_server_is_an_error() {
    let redirected = Redirected::new(|_| ()).await;
    let Redirected { node, kept, .. } = &redirected;
    let user = read(node, *kept).await.user_id().unwrap();
    redirected.lead_to_copy();
    // The first one ends trust.
    for trusted in [true, false] {
        assert_eq!(redirected.trusts(), trusted);
        for (revocation, outcome) in [
            ("delete", node.delete(*kept).await.map(|_| ())),
            ("delete many", node.delete_many([*kept]).await.map(|_| ())),
            ("delete user", node.user(user).delete().await.map(|_| ())),
            ("delete others", node.user(user).delete_except(*kept).await.map(|_| ())),
            ("delete all", node.delete_all_sessions().await.map(|_| ())),
            ("remove attribute", node.user(user).remove_attribute("n").await.map(|_| ())),
            ("evict", node.evict_all().await),
        ] {
            let error = outcome.expect_err(revocation);
            assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{revocation}: {error}");
            assert!(error.to_string().contains("another server than the listener"), "{error}");
        }
        eventually("trust ends", async || !redirected.trusts()).await;
    }
    redirected.lead_to_original().await;
    assert!(node.delete(*kept).await.unwrap());
    assert!(node.get(*kept).await.unwrap().is_none());
}

/// The observer compares the row of the copy with the original.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_server_identity_the_observer_sees_it() {
    let redirected = Redirected::new(|config| config.observed_hits_interval = 1).await;
    let Redirected { node, deleted: [session, ..], .. } = &redirected;
    without(node, Guard::ServerIdentity);
    redirected.lead_to_copy();
    read(node, session.id()).await;
    redirected.lead_to_original().await;
    stale_hits_are_seen(node, session.id()).await;
}

/// The control of the tests above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_server_identity_foreign_rows_are_served() {
    let redirected = Redirected::new(|_| ()).await;
    let Redirected { node, deleted: [loaded, saved, rotated], kept, .. } = &redirected;
    let (mut saved, mut rotated) = (saved.clone(), rotated.clone());
    node.probes().remove(Guard::ServerIdentity);
    redirected.lead_to_copy();
    read(node, loaded.id()).await;
    saved.set("n", &2).unwrap();
    node.save(&mut saved).await.unwrap();
    node.rotate(&mut rotated).await.unwrap();
    let created = node.create(9).await.unwrap();
    assert!(node.delete(*kept).await.unwrap(), "on the copy");
    assert!(redirected.trusts());
    redirected.lead_to_original().await;
    for id in [loaded.id(), saved.id(), rotated.id(), created.id()] {
        assert!(hit(node, id).is_some());
    }
    assert!(node.get(*kept).await.unwrap().is_none(), "the end on the copy is remembered");
    let read = node.get(*kept).bypass_cache().await.unwrap();
    assert!(read.is_some(), "the acknowledged logout ended nothing here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirected_pooler_ends_trust() {
    let redirected = Redirected::new(|config| config.trust_window = Duration::from_secs(1)).await;
    redirected.lead_to_copy();
    eventually("trust ends", async || !redirected.trusts()).await;
    redirected.lead_to_original().await;
    in_time("trust returns", redirected.node.wait_until_trusted()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_a_pooler_before_the_listener() {
    let world = World::in_postgres();
    let node = world.node().await;
    let pooler = pooler(&world, PoolMode::Transaction);
    let builder = || SessionManager::builder(world.config()).url(&pooler.url()).unwrap();
    let findings = builder().diagnose().await.unwrap();
    assert_eq!((findings[0].check, findings[0].severity), ("pooler", Severity::Fault), "{findings:?}");
    let findings = builder().listen_on_url(&world.url).unwrap().diagnose().await.unwrap();
    assert!(findings.iter().all(|finding| finding.severity != Severity::Fault), "{findings:?}");
    drop(node);
}
