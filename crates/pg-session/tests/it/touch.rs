//! Last accesses: written in batches, only forward, never lost, and early enough to keep a session alive.

use std::time::Duration;

use pg_session::{Config, SessionManager};

use crate::clocks::{Clocks, at};
use crate::support::{World, eventually};
use crate::tables::{Holder, stored_time, stored_version};

const MINUTE: Duration = Duration::from_secs(60);
/// By which a node's idea of the database's clock is ahead when both pause.
const AHEAD: Duration = Duration::from_micros(1);
/// Intervals, in real time, for tests in which a flush fails, or tries a locked row for half a second.
const SOON: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
/// The end of a test's nodes.
const DEADLINE: Duration = Duration::from_secs(10);

/// Nothing is flushed by time: intervals are real time, and these are longer than the test.
fn config(world: &World) -> Config {
    let mut config = world.config();
    config.trust_window = 10 * MINUTE;
    config.idle_timeout = 48 * 60 * MINUTE;
    config.last_access_flush_interval = 60 * MINUTE;
    config.sessions_per_user_max = 0;
    config
}

struct Scene {
    world: World,
    clocks: Clocks,
    observer: tokio_postgres::Client,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new();
        let clocks = Clocks::new(&world).await;
        let observer = world.client().await;
        Self { world, clocks, observer }
    }

    async fn node(&self, change: impl FnOnce(&mut Config)) -> SessionManager {
        let mut config = config(&self.world);
        change(&mut config);
        self.clocks.node(&self.world, config).await
    }

    async fn last_access(&self, id: pg_session::SessionId) -> std::time::SystemTime {
        stored_time(&self.observer, "last_accessed_at", id).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_is_written_at_shutdown() {
    let scene = Scene::new().await;
    let node = scene.node(|_| ()).await;
    let id = node.create(1).await.unwrap().id();
    scene.clocks.set(MINUTE).await;
    assert!(node.get(id).await.unwrap().unwrap().is_from_cache());
    assert_eq!(node.get(id).await.unwrap().unwrap().last_accessed_at(), at(MINUTE + AHEAD));
    assert_eq!(scene.last_access(id).await, at(Duration::ZERO), "it waits");
    scene.clocks.set(2 * MINUTE).await;
    assert!(node.shutdown(DEADLINE).await.is_complete());
    assert_eq!(scene.last_access(id).await, at(MINUTE + AHEAD));
    assert_eq!(stored_version(&scene.observer, id).await, Some(1), "a touch is not a change");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_survives_the_eviction_of_its_session_from_memory() {
    let scene = Scene::new().await;
    let node = scene.node(|config| config.cache_sessions_max = 1).await;
    let id = node.create(1).await.unwrap().id();
    scene.clocks.set(MINUTE).await;
    node.get(id).await.unwrap().unwrap();
    for user in 2..50 {
        node.create(user).await.unwrap();
    }
    let read = node.get(id).no_touch().await.unwrap().unwrap();
    assert!(!read.is_from_cache(), "evicted");
    scene.clocks.set(2 * MINUTE).await;
    assert!(node.shutdown(DEADLINE).await.is_complete());
    assert_eq!(scene.last_access(id).await, at(MINUTE + AHEAD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_access_never_moves_backwards() {
    let scene = Scene::new().await;
    let (early, late) = (scene.node(|_| ()).await, scene.node(|_| ()).await);
    let id = early.create(1).await.unwrap().id();
    scene.clocks.set(MINUTE).await;
    early.get(id).await.unwrap().unwrap();
    scene.clocks.set(2 * MINUTE).await;
    late.get(id).await.unwrap().unwrap();
    scene.clocks.set(3 * MINUTE).await;
    assert!(late.shutdown(DEADLINE).await.is_complete());
    assert_eq!(scene.last_access(id).await, at(2 * MINUTE + AHEAD));
    assert!(early.shutdown(DEADLINE).await.is_complete());
    assert_eq!(scene.last_access(id).await, at(2 * MINUTE + AHEAD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_past_half_idle_limit_is_written_at_once() {
    let scene = Scene::new().await;
    let node = scene
        .node(|config| (config.idle_timeout, config.last_access_flush_interval) = (4 * MINUTE, MINUTE))
        .await;
    let other = scene
        .node(|config| (config.idle_timeout, config.last_access_flush_interval) = (4 * MINUTE, MINUTE))
        .await;
    let id = node.create(1).await.unwrap().id();
    for round in 1..=4 {
        let now = round * 3 * MINUTE;
        scene.clocks.set(now).await;
        node.catch_up().await.unwrap();
        assert!(node.get(id).await.unwrap().unwrap().is_from_cache(), "alive in round {round}");
        eventually("the access is written", async || scene.last_access(id).await == at(now)).await;
        // The statement is committed before the node learns of it.
        eventually("the node knows", async || node.status().touches_waiting == 0).await;
        let read = other.get(id).no_touch().bypass_cache().await.unwrap();
        assert!(read.is_some(), "alive for the database in round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_without_touch_is_no_access() {
    let scene = Scene::new().await;
    let node = scene.node(|_| ()).await;
    let id = node.create(1).await.unwrap().id();
    scene.clocks.set(MINUTE).await;
    assert!(node.get(id).no_touch().await.unwrap().unwrap().is_from_cache());
    assert!(node.get(id).no_touch().bypass_cache().await.unwrap().is_some());
    assert_eq!(node.status().touches_waiting, 0);
    assert!(node.shutdown(DEADLINE).await.is_complete());
    assert_eq!(scene.last_access(id).await, at(Duration::ZERO));
}

/// Sessions that are busy all the time are written once an interval, however many batches they fill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_batches_wait_for_interval_unless_memory_is_full() {
    let scene = Scene::new().await;
    let node = scene.node(|config| (config.touch_batch_max, config.cache_sessions_max) = (2, 8)).await;
    let mut ids = Vec::new();
    for user in 0..8 {
        ids.push(node.create(user).await.unwrap().id());
    }
    scene.clocks.set(MINUTE).await;
    for id in &ids[..7] {
        node.get(*id).await.unwrap().unwrap();
    }
    // A flush that was woken has its turn.
    node.get(ids[0]).no_touch().bypass_cache().await.unwrap().unwrap();
    assert_eq!(node.status().touches_waiting, 7);
    node.get(ids[7]).await.unwrap().unwrap();
    eventually("the early flush is written", async || {
        let text = "SELECT count(*) FROM sessions WHERE last_accessed_at = (SELECT now FROM clock)";
        scene.observer.query_one(text, &[]).await.unwrap().get::<_, i64>(0) == 8
    })
    .await;
}

/// The sessions of people who come back after long are many on a busy site; each flushes its own access and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_urgent_access_does_not_take_those_along_that_can_wait() {
    let scene = Scene::new().await;
    let node = scene
        .node(|config| (config.idle_timeout, config.last_access_flush_interval) = (4 * MINUTE, MINUTE))
        .await;
    let old = node.create(1).await.unwrap().id();
    scene.clocks.set(2 * MINUTE).await;
    node.catch_up().await.unwrap();
    let young = node.create(2).await.unwrap().id();
    scene.clocks.set(3 * MINUTE).await;
    node.catch_up().await.unwrap();
    node.get(young).await.unwrap().unwrap();
    node.get(old).await.unwrap().unwrap();
    eventually("the urgent one is written", async || scene.last_access(old).await == at(3 * MINUTE)).await;
    assert_eq!(node.status().touches_waiting, 1);
    assert_eq!(scene.last_access(young).await, at(2 * MINUTE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_versions_of_a_session_wait_as_one_with_the_later_access() {
    let scene = Scene::new().await;
    let node = scene.node(|_| ()).await;
    let created = node.create(1).await.unwrap();
    let id = created.id();
    scene.clocks.set(MINUTE).await;
    node.get(id).await.unwrap().unwrap();
    let mut changed = node.get(id).await.unwrap().unwrap();
    changed.set("color", &"red").unwrap();
    node.save(&mut changed).await.unwrap();
    scene.clocks.set(2 * MINUTE).await;
    node.get(id).await.unwrap().unwrap();
    assert_eq!(node.status().touches_waiting, 1);
    scene.clocks.set(3 * MINUTE).await;
    assert!(node.shutdown(DEADLINE).await.is_complete());
    assert_eq!(scene.last_access(id).await, at(2 * MINUTE + AHEAD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accesses_that_could_not_be_written_wait_for_the_next_flush() {
    let scene = Scene::new().await;
    let node = scene.node(|config| config.last_access_flush_interval = SOON).await;
    let (a, b) = (node.create(1).await.unwrap().id(), node.create(2).await.unwrap().id());
    scene.clocks.set(MINUTE).await;
    scene.observer.batch_execute("ALTER TABLE sessions RENAME TO hidden").await.unwrap();
    node.get(a).await.unwrap().unwrap();
    node.get(b).await.unwrap().unwrap();
    eventually("the flush has failed", async || node.status().touch_failures > 0).await;
    eventually("and they wait", async || node.status().touches_waiting == 2).await;
    scene.clocks.set(2 * MINUTE).await;
    scene.observer.batch_execute("ALTER TABLE hidden RENAME TO sessions").await.unwrap();
    assert!(node.shutdown(DEADLINE).await.is_complete());
    for id in [a, b] {
        assert_eq!(scene.last_access(id).await, at(MINUTE + AHEAD));
    }
}

/// A flush that waited for a row would delay others at the rows that it has locked. It would deadlock with combined
/// updates, which lock in another order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_does_not_wait_for_a_locked_row() {
    let scene = Scene::new().await;
    let node = scene.node(|config| config.last_access_flush_interval = SECOND).await;
    let (held, free) = (node.create(1).await.unwrap().id(), node.create(2).await.unwrap().id());
    let holder = Holder::hold(&scene.world, &[held]).await;
    scene.clocks.set(MINUTE).await;
    node.get(held).await.unwrap().unwrap();
    node.get(free).await.unwrap().unwrap();
    eventually("the other one is written", async || scene.last_access(free).await == at(MINUTE)).await;
    eventually("the held one waits", async || node.status().touches_waiting == 1).await;
    assert!(!holder.has_waiter(&scene.observer).await);
    holder.commit().await;
    assert!(node.shutdown(DEADLINE).await.is_complete());
    assert_eq!(scene.last_access(held).await, at(MINUTE));
}
