//! A login whose connection breaks while it is sent holds up no other login of its user. A node whose connection breaks
//! while it applies the migrations holds up no other node.
//!
//! ```text
//! A   login ── a part arrives ──╳ the rest is lost, and PostgreSQL does not learn that A is gone
//! B                                the same user logs in
//! ```
//! A lock that PostgreSQL keeps until the rest arrives would be kept until TCP gives up.

use std::time::Duration;

use pg_sandbox::{Direction, Proxy};
use pg_session::{Config, SessionManager, UserId};
use tokio_postgres::Client;

use crate::fixtures::{driver_config, in_time};
use crate::support::{World, eventually};

/// So large that a login needs several bursts of the throttled wire.
const CART_BYTES: usize = 200_000;
const BYTES_PER_SECOND: u64 = 400_000;
/// What one login may cost another one of its user. TCP gives up after many minutes.
const MOMENT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
enum Login {
    Create,
    Rotate,
}

impl Login {
    async fn send(self, node: &SessionManager, user: UserId) -> Result<(), String> {
        let cart = "x".repeat(CART_BYTES);
        match self {
            Self::Create => {
                let create = node.create(user).set("cart", &cart);
                create.await.map(|_| ()).map_err(|error| error.to_string())
            }
            Self::Rotate => {
                let mut visitor = node.create_anonymous().await.map_err(|error| error.to_string())?;
                visitor.set("cart", &cart).map_err(|error| error.to_string())?;
                node.rotate(&mut visitor).user(user).await.map_err(|error| error.to_string())
            }
        }
    }
}

/// One that lets a cart be so large.
fn config(world: &World, sessions_max: u32) -> Config {
    let mut config = world.config();
    config.sessions_per_user_max = sessions_max;
    config.attribute_value_bytes_max = CART_BYTES * 2;
    config.session_bytes_max = CART_BYTES * 2;
    config
}

async fn advisory_locks(observer: &Client) -> i64 {
    let text = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                WHERE l.locktype = 'advisory' AND d.datname = current_database()";
    observer.query_one(text, &[]).await.unwrap().get(0)
}

/// A node whose only connection of the pool goes through `wire`, and its listener does not.
async fn node_behind(world: &World, wire: &Proxy, mut config: Config) -> SessionManager {
    config.pool_connections_max = 1;
    config.query_timeout = MOMENT;
    let builder = SessionManager::builder(config).url(&wire.url_for(&world.url)).unwrap();
    let node = builder.listen_on(driver_config(&world.url)).connect().await.unwrap();
    in_time("the node is in sync", node.wait_until_trusted()).await.unwrap();
    node
}

async fn no_login_waits_for_one_that_was_cut_off(login: Login) {
    let world = World::in_own_database().await;
    let config = config(&world, 2);
    let b = world.node_with(config.clone()).await;
    let observer = world.client().await;
    // By the first burst, the second one, … each has lost the rest.
    for bursts in 1..=5 {
        let wire = world.proxy().await;
        let a = node_behind(&world, &wire, config.clone()).await;
        login.send(&a, UserId::from(99)).await.expect("the statements are prepared");
        b.user(99).delete().await.unwrap();

        let user = UserId::from(bursts);
        b.create(user).await.expect("one more, and the user is at the limit");
        let before = wire.bytes(Direction::ToServer);
        wire.throttle(BYTES_PER_SECOND);
        let cut_off = tokio::spawn({
            let a = a.clone();
            async move { login.send(&a, user).await }
        });
        let passed = u64::try_from(bursts).unwrap() * BYTES_PER_SECOND / 10;
        let passed = passed.min(u64::try_from(CART_BYTES).unwrap());
        eventually("a part has arrived", async || wire.bytes(Direction::ToServer) - before >= passed).await;
        wire.drop_direction(Direction::ToServer);

        let next = tokio::time::timeout(MOMENT, b.create(user)).await;
        next.unwrap_or_else(|_| {
            panic!("{login:?}: a login waits behind one that was cut off after {bursts} bursts")
        })
        .unwrap_or_else(|error| panic!("{login:?}, {bursts} bursts: {error}"));
        eventually("no user is locked", async || advisory_locks(&observer).await == 0).await;
        wire.heal();
        // It may have been carried out or not.
        let _ = in_time("the login is answered", cut_off).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_is_cut_off_leaves_no_lock() {
    no_login_waits_for_one_that_was_cut_off(Login::Create).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_is_cut_off_leaves_no_lock() {
    no_login_waits_for_one_that_was_cut_off(Login::Rotate).await;
}

/// A node begins to make the tables, and its connection loses the rest. Another node starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_is_cut_off_leaves_no_lock() {
    const MIGRATION_BYTES_PER_SECOND: u64 = 20_000;
    for bursts in 1..=6 {
        let world = World::in_own_database().await;
        let observer = world.client().await;
        let wire = world.proxy().await;
        let url = wire.url_for(&world.url);
        wire.throttle(MIGRATION_BYTES_PER_SECOND);
        let cut_off = tokio::spawn({
            let mut config = world.config();
            config.query_timeout = MOMENT;
            async move { SessionManager::connect(&url, config).await }
        });
        // Its first statements are small, and the script of the migration is not.
        let passed = 2_000 + bursts * MIGRATION_BYTES_PER_SECOND / 10;
        eventually("a part has arrived, or it is over", async || {
            wire.bytes(Direction::ToServer) >= passed || cut_off.is_finished()
        })
        .await;
        wire.drop_direction(Direction::ToServer);
        let next = tokio::time::timeout(MOMENT, world.node()).await;
        let next =
            next.unwrap_or_else(|_| panic!("a node waits behind one that was cut off after {passed} bytes"));
        next.create(1).await.expect("the tables are there");
        eventually("nothing is locked", async || advisory_locks(&observer).await == 0).await;
        cut_off.abort();
    }
}

/// PostgreSQL receives all of the login, and its answer is lost. The next one is of either kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_whose_answer_is_lost_leaves_no_lock() {
    for login in [Login::Create, Login::Rotate] {
        let world = World::in_own_database().await;
        let config = config(&world, 1);
        let b = world.node_with(config.clone()).await;
        let wire = world.proxy().await;
        let a = node_behind(&world, &wire, config).await;
        let observer = world.client().await;
        let user = UserId::from(1);
        wire.drop_direction(Direction::ToClient);
        let unanswered = tokio::spawn(async move { Login::Create.send(&a, user).await });
        let made = "SELECT count(*) FROM sessions";
        eventually("it is carried out", async || {
            observer.query_one(made, &[]).await.unwrap().get::<_, i64>(0) > 0 || unanswered.is_finished()
        })
        .await;
        let next = tokio::time::timeout(MOMENT, login.send(&b, user)).await;
        next.expect("it waits for no one").expect("it evicts the other session");
        eventually("no user is locked", async || advisory_locks(&observer).await == 0).await;
        wire.heal();
        let _ = in_time("the login is answered", unanswered).await.unwrap();
    }
}

/// Seconds until PostgreSQL asks whether the client of an idle connection is still there, for each of its connections.
#[cfg(target_os = "linux")]
fn keepalive_timers(port: u16) -> Vec<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table of connections");
    let timers = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        // `02` is the keepalive timer; its unit is 1/100 s.
        let ticks = fields.get(5)?.strip_prefix("02:")?;
        (local == format!("{port:04X}")).then(|| u64::from_str_radix(ticks, 16).expect("a number") / 100)
    });
    timers.collect()
}

/// The last bytes of a request may be lost after PostgreSQL has carried it out and before it commits.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_gives_up_a_client_that_has_vanished() {
    const HOUR: u64 = 3_600;
    let sandbox = pg_sandbox::Sandbox::start().unwrap();
    let world = World::on(&sandbox);
    let port = world.addr().port();
    let plain = world.client().await;
    eventually("the server's own setting is hours", async || {
        keepalive_timers(port).iter().all(|&seconds| seconds > HOUR) && !keepalive_timers(port).is_empty()
    })
    .await;
    let node = world.node().await;
    node.create(1).await.unwrap();
    eventually("that of the pool is seconds", async || {
        keepalive_timers(port).iter().any(|&seconds| seconds <= 15)
    })
    .await;
    plain.batch_execute("SELECT 1").await.unwrap();
}
