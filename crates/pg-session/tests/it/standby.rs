//! Real streaming standbys: their rows are never used, and a failover needs no restart of the node.

use std::time::Duration;

use deadpool_postgres::{Manager, Pool};
use pg_sandbox::{Proxy, Sandbox};
use pg_session::{Config, Error, ErrorKind, Session, SessionId, SessionManager};
use tokio::sync::OnceCell;
use tokio_postgres::NoTls;

use crate::fixtures::{all, driver_config, hit, in_time, n};
use crate::observer::rejection;
use crate::support::{World, eventually};

/// Connections of each pool.
const CONNECTIONS: usize = 3;
/// Longer than the tests run.
const LAG: Duration = Duration::from_secs(3_600);
const USER: i64 = 7;

/// A primary with a lagging standby, shared by the tests that promote no server.
struct Scene {
    primary: Sandbox,
    standby: Sandbox,
    world: World,
    /// Alive on the standby, deleted on the primary.
    ended: SessionId,
    /// `n` is 1 on the standby and 2 on the primary.
    changed: SessionId,
    /// Alive on the primary, unknown to the standby.
    young: SessionId,
}

impl Scene {
    async fn get() -> &'static Self {
        static SCENE: OnceCell<Scene> = OnceCell::const_new();
        SCENE.get_or_init(Self::make).await
    }

    async fn make() -> Self {
        let primary = Sandbox::start().unwrap();
        let world = World::on(&primary);
        let node = world.node_with(config(&world)).await;
        let (ended, mut changed) = (create(&node).await.unwrap(), create(&node).await.unwrap());
        let standby = primary.standby().apply_delay(LAG).start().unwrap();
        let young = create(&node).await.unwrap();
        changed.set("n", &2_i64).unwrap();
        node.save(&mut changed).await.unwrap();
        assert!(node.delete(ended.id()).await.unwrap());
        let seen = driver_config(&standby.url()).connect(NoTls).await.unwrap();
        tokio::spawn(seen.1);
        let count = format!("SELECT count(*) FROM {}.sessions WHERE NOT id = ANY ($1)", world.schema);
        let row =
            seen.0.query_one(&count, &[&vec![ended.id().expose(), changed.id().expose()]]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "the standby lags");
        // It belongs to the runtime of the test that came first.
        assert!(node.shutdown(Duration::from_secs(10)).await.is_complete());
        Self { primary, standby, world, ended: ended.id(), changed: changed.id(), young: young.id() }
    }
}

fn config(world: &World) -> Config {
    let mut config = world.roomy();
    config.query_timeout = Duration::from_secs(5);
    config.pool_connections_max = CONNECTIONS;
    config
}

async fn create(node: &SessionManager) -> Result<Session, Error> {
    node.create(USER).set("n", &1_i64).await
}

fn hosts(sandboxes: [&Sandbox; 2]) -> String {
    let [first, second] = sandboxes.map(Sandbox::addr);
    format!("postgres://postgres@{first},{second}/postgres")
}

fn application_pool(url: &str) -> Pool {
    Pool::builder(Manager::new(driver_config(url), NoTls)).max_size(CONNECTIONS).build().unwrap()
}

/// The pool of a node: its own, or the application's.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Scope {
    Own,
    Applications,
}

/// A node whose pool goes by `pool_url` and whose listener by `listen_url`.
async fn connect(
    world: &World,
    whose: Scope,
    pool_url: &str,
    listen_url: &str,
) -> Result<(SessionManager, Option<Pool>), Error> {
    let builder = SessionManager::builder(config(world)).listen_on(driver_config(listen_url));
    match whose {
        Scope::Own => Ok((builder.url(pool_url)?.connect().await?, None)),
        Scope::Applications => {
            let pool = application_pool(pool_url);
            Ok((builder.pool(pool.clone()).connect().await?, Some(pool)))
        }
    }
}

/// Waits until the pool reaches a standby: the connections to the primary that were cut are found to be closed.
async fn refused(node: &SessionManager, id: SessionId) {
    eventually("the pool reaches the standby", async || match node.get(id).bypass_cache().await {
        Err(error) if error.to_string().contains("standby") => true,
        Err(_) => false,
        Ok(found) => panic!("a standby answered: {}", found.is_some()),
    })
    .await;
}

fn is_retryable<T>(outcome: Result<T, Error>) -> bool {
    match outcome {
        Ok(_) => panic!("a standby answered"),
        Err(error) => error.kind() == ErrorKind::Unavailable && error.to_string().contains("try again"),
    }
}

/// ```text
/// A   updates, deletes and creates on the primary
/// B   listens on the primary, trusted ┊ its pool reaches the standby ┊ its pool reaches the primary
/// ```
async fn standby_is_left_at_once(whose: Scope) {
    let scene = Scene::get().await;
    let wire = Proxy::start(scene.primary.addr()).await.unwrap();
    let (url, direct) = (wire.url_for(&scene.primary.url()), scene.primary.url());
    let (b, pool) = connect(&scene.world, whose, &url, &direct).await.unwrap();
    in_time("the node is trusted", b.wait_until_trusted()).await.unwrap();
    let mut to_evict = create(&b).await.unwrap();
    b.evict_all().await.unwrap();

    wire.redirect(scene.standby.addr());
    wire.cut();
    refused(&b, scene.ended).await;
    for id in [scene.ended, scene.changed, scene.young, to_evict.id()] {
        assert!(is_retryable(b.get(id).bypass_cache().await));
        assert!(is_retryable(b.get(id).await));
    }
    assert!(is_retryable(b.user(USER).list().await));
    assert!(is_retryable(b.delete(to_evict.id()).await));
    assert!(is_retryable(b.user(USER + 1).delete().await));
    assert!(is_retryable(create(&b).await));
    to_evict.set("n", &2_i64).unwrap();
    assert!(b.save(&mut to_evict).await.is_err());
    assert!(is_retryable(b.evict_all().await));
    assert_eq!(b.status().cache.sessions, 0, "no row of the standby is kept");
    assert!(hit(&b, scene.ended).is_none());

    if let Some(pool) = pool {
        // All of its connections lead to the standby.
        let idle = all((0..CONNECTIONS).map(|_| pool.get())).await;
        assert!(idle.iter().all(Result::is_ok));
    }
    wire.redirect(scene.primary.addr());
    assert!(b.delete(to_evict.id()).await.unwrap(), "the first logout after the failover succeeds");
    assert!(b.get(scene.ended).await.unwrap().is_none());
    assert_eq!(n(&b.get(scene.changed).await.unwrap().unwrap()), 2);
    assert!(b.get(scene.young).await.unwrap().is_some());
    in_time("the node is trusted again", b.wait_until_trusted()).await.unwrap();
}

#[tokio::test]
async fn own_pool_on_lagging_standby_reads_nothing() {
    standby_is_left_at_once(Scope::Own).await;
}

#[tokio::test]
async fn application_pool_on_lagging_standby_reads_nothing() {
    standby_is_left_at_once(Scope::Applications).await;
}

#[tokio::test]
async fn of_several_hosts_pool_and_listener_use_the_primary() {
    let scene = Scene::get().await;
    let url = hosts([&scene.standby, &scene.primary]);
    let node = SessionManager::connect(&url, config(&scene.world)).await.unwrap();
    in_time("the listener is on the primary, too", node.wait_until_trusted()).await.unwrap();
    assert!(node.get(scene.ended).await.unwrap().is_none());
    assert!(node.get(scene.young).await.unwrap().is_some());
    let session = create(&node).await.unwrap();
    assert!(node.delete(session.id()).await.unwrap());
}

#[tokio::test]
async fn node_does_not_start_on_a_standby() {
    let scene = Scene::get().await;
    let (standby, primary) = (scene.standby.url(), scene.primary.url());
    for whose in [Scope::Own, Scope::Applications] {
        let error = connect(&scene.world, whose, &standby, &primary).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{whose:?}: {error}");
        assert!(error.to_string().contains("address of the primary"), "{whose:?}: {error}");
    }
    let error = connect(&scene.world, Scope::Own, &primary, &standby).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("`listen_on`"), "a standby sends no notifications: {error}");
}

/// The standby still has the session that has ended.
#[tokio::test]
async fn sql_functions_are_refused_on_standby() {
    let Scene { standby, world, ended, .. } = Scene::get().await;
    let (client, connection) = driver_config(&standby.url()).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path TO {}", world.schema)).await.unwrap();
    let id = ended.expose();
    for call in [
        format!("SELECT version FROM session_get('{id}')"),
        format!("SELECT session_alive('{id}')"),
        format!("SELECT id FROM session_list(session_user_of({USER}))"),
        "SELECT id FROM session_list_label('tenant:7')".to_owned(),
        format!("SELECT session_end('{id}')"),
    ] {
        let (code, hint) = rejection(&client.query(&call, &[]).await.expect_err(&call));
        assert_eq!((code.as_str(), hint.as_str()), ("PS007", "Connect to the primary."), "{call}");
    }
}

/// As after a blue/green switch: the former primary is no standby, and refuses writes by a setting.
#[tokio::test]
async fn rows_of_a_read_only_server_are_not_used() {
    let world = World::in_own_database().await;
    let client = world.client().await;
    let name: String = client.query_one("SELECT current_database()", &[]).await.unwrap().get(0);
    let (node, _pool) = connect(&world, Scope::Applications, &world.url, &world.url).await.unwrap();
    in_time("the node is trusted", node.wait_until_trusted()).await.unwrap();
    let session = create(&node).await.unwrap();
    node.evict_all().await.unwrap();
    let switch = async |to: &str| {
        let change = format!("ALTER DATABASE {name} SET default_transaction_read_only = {to}");
        client.batch_execute(&change).await.unwrap();
    };
    let leave = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND query NOT LIKE 'NOTIFY%'";
    switch("on").await;
    client.query(leave, &[]).await.unwrap();
    refused(&node, session.id()).await;
    assert!(is_retryable(node.get(session.id()).await));
    assert!(is_retryable(node.delete(session.id()).await));
    assert_eq!(node.status().cache.sessions, 0);
    switch("off").await;
    assert!(node.delete(session.id()).await.unwrap(), "the next connection may write");
}

/// ```text
/// old    primary ┊ killed                 ┊ standby of new
/// new    standby ┊ promoted: primary
/// name   old     ┊        ┊ new           ┊ old (a mistake) ┊ new
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_and_return_need_no_restart() {
    let old = Sandbox::start().unwrap();
    let world = World::on(&old);
    let wire = Proxy::start(old.addr()).await.unwrap();
    let first = world.node_with(config(&world)).await;
    let new = old.standby().start().unwrap();
    let (name, both) = (wire.url_for(&old.url()), hosts([&old, &new]));
    let (own, _) = connect(&world, Scope::Own, &name, &name).await.unwrap();
    let (applications, pool) = connect(&world, Scope::Applications, &name, &name).await.unwrap();
    let (several, _) = connect(&world, Scope::Own, &both, &both).await.unwrap();
    let nodes = [("own", &own), ("application's", &applications), ("several hosts", &several)];
    for (_, node) in nodes {
        in_time("the node is trusted", node.wait_until_trusted()).await.unwrap();
    }
    let session = create(&first).await.unwrap();
    for (_, node) in nodes {
        assert!(node.get(session.id()).await.unwrap().is_some());
    }
    new.wait_until_applied(&old).unwrap();
    assert!(first.shutdown(Duration::from_secs(10)).await.is_complete());

    old.kill().unwrap();
    wire.redirect(new.addr());
    wire.cut();
    for (whose, node) in nodes {
        eventually("it noticed", async || node.status().trusted_for.is_none()).await;
        let found = node.get(session.id()).await;
        assert!(found.is_err(), "{whose}: a standby answered");
    }
    new.promote().unwrap();
    for (_, node) in nodes {
        in_time("it is trusted again", node.wait_until_trusted()).await.unwrap();
        assert_eq!(n(&node.get(session.id()).await.unwrap().unwrap()), 1);
    }
    let [ended, kept] = [create(&own).await.unwrap(), create(&several).await.unwrap()];
    for (_, node) in nodes {
        node.get(ended.id()).await.unwrap().unwrap();
        node.catch_up().await.unwrap();
        assert!(hit(node, ended.id()).is_some());
    }
    assert!(applications.delete(ended.id()).await.unwrap());
    for (_, node) in nodes {
        node.catch_up().await.unwrap();
        assert!(node.get(ended.id()).await.unwrap().is_none());
    }

    new.standby().rejoin(&old).unwrap();
    wire.redirect(old.addr());
    wire.cut();
    for node in [&own, &applications] {
        eventually("the listener was refused", async || node.status().trusted_for.is_none()).await;
        refused(node, kept.id()).await;
        assert!(is_retryable(node.delete(kept.id()).await));
    }
    let client = driver_config(&new.url()).connect(NoTls).await.unwrap();
    tokio::spawn(client.1);
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    client.0.query(ended, &[]).await.unwrap();
    eventually("several hosts: it finds the primary", async || {
        several.get(kept.id()).bypass_cache().await.is_ok()
    })
    .await;

    let idle = all((0..CONNECTIONS).map(|_| pool.as_ref().unwrap().get())).await;
    assert!(idle.iter().all(Result::is_ok));
    drop(idle);
    wire.redirect(new.addr());
    assert!(applications.delete(kept.id()).await.unwrap(), "the first logout succeeds");
    for (_, node) in nodes {
        in_time("it is trusted again", node.wait_until_trusted()).await.unwrap();
        assert!(node.get(kept.id()).await.unwrap().is_none());
    }
}
