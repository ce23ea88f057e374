//! The last millisecond of a session, of its idle limit and of an attribute: at t − 1 ms it is there, at t and after
//! it is gone, whatever way it is asked for.

use std::time::Duration;

use pg_session::testing::{Guard, Point};
use pg_session::{Config, IdleLimit, Session, SessionManager, UpdateError};

use crate::clocks::{Clocks, at};
use crate::support::{World, eventually};
use crate::tables::{stored, stored_time, stored_version};

const MS: Duration = Duration::from_millis(1);
/// When things end in these tests: within the trust window, so that the cached path stays open.
const END: Duration = Duration::from_secs(60);

fn config(world: &World) -> Config {
    let mut config = world.config();
    config.trust_window = Duration::from_secs(600);
    config.idle_timeout = Duration::from_secs(1_000);
    config.last_access_flush_interval = Duration::from_secs(250);
    config.sessions_per_user_max = 0;
    config
}

/// The node's listener's process, by the name that the builder gave its connection.
async fn cut_listeners(world: &World) {
    let text = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1";
    let name = world.schema.as_str();
    let cut: i64 = world.client().await.query_one(text, &[&name]).await.unwrap().get(0);
    assert_eq!(cut, 1, "one listener");
}

struct Scene {
    world: World,
    clocks: Clocks,
    node: SessionManager,
    other: SessionManager,
    limit: Limit,
}

/// Which limit ends the sessions at [`END`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    Absolute,
    Idle,
}

impl Scene {
    async fn new(limit: Limit) -> Self {
        let world = World::new();
        let clocks = Clocks::new(&world).await;
        let mut config = config(&world);
        if limit == Limit::Idle {
            config.idle_timeout = END;
            config.last_access_flush_interval = END / 4;
        }
        let (node, other) = (clocks.node(&world, config.clone()).await, clocks.node(&world, config).await);
        Self { world, clocks, node, other, limit }
    }

    /// A session that ends at [`END`], in the memory of `node` only.
    async fn session(&self) -> Session {
        let create = self.node.create(1).set("x", &1);
        match self.limit {
            Limit::Absolute => create.expires_in(END).idle_limit(IdleLimit::Exempt).await.unwrap(),
            Limit::Idle => create.await.unwrap(),
        }
    }

    async fn sessions(&self, count: usize) -> Vec<Session> {
        let mut sessions = Vec::new();
        for _ in 0..count {
            sessions.push(self.session().await);
        }
        sessions
    }

    /// What `node` and `other` say at `instant`, each question about a session of its own: true for alive.
    async fn ask(&self, instant: Duration) -> Vec<(&'static str, bool)> {
        let [cached, refreshed, loaded, updated, extended, deleted, swept] =
            <[Session; 7]>::try_from(self.sessions(7).await).unwrap();
        self.clocks.set(instant).await;
        vec![
            ("cached", self.node.get(cached.id()).await.unwrap().is_some_and(|read| read.is_from_cache())),
            ("refreshed", self.node.get(refreshed.id()).no_touch().bypass_cache().await.unwrap().is_some()),
            ("loaded", self.other.get(loaded.id()).no_touch().await.unwrap().is_some()),
            ("updated", self.update(updated, None).await),
            ("extended", self.update(extended, Some(END)).await),
            ("deleted", self.node.delete(deleted.id()).await.unwrap()),
            ("swept", self.node.delete_many([swept.id()]).await.unwrap() == 1),
        ]
    }

    async fn update(&self, mut session: Session, expires_in: Option<Duration>) -> bool {
        let observer = self.world.client().await;
        let id = session.id();
        let end = stored_time(&observer, "expires_at", id).await;
        session.set("x", &2).unwrap();
        let update = self.node.save(&mut session);
        let outcome = match expires_in {
            Some(lifetime) => update.expires_in(lifetime).await,
            None => update.await,
        };
        let alive = match outcome {
            Ok(()) => true,
            Err(UpdateError::NotFound) => false,
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(stored_version(&observer, id).await, Some(if alive { 2 } else { 1 }));
        assert_eq!(stored(&observer, id).await["x"].text, if alive { "2" } else { "1" });
        let extended = stored_time(&observer, "expires_at", id).await != end;
        assert_eq!(extended, alive && expires_in.is_some(), "an ended session is never extended");
        alive
    }
}

async fn assert_ends_to_the_millisecond(limit: Limit) {
    for (instant, alive) in [(END - MS, true), (END, false), (END + MS, false)] {
        let scene = Scene::new(limit).await;
        for (way, answer) in scene.ask(instant).await {
            assert_eq!(answer, alive, "{way} at {instant:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_to_the_millisecond() {
    assert_ends_to_the_millisecond(Limit::Absolute).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_ends_to_the_millisecond() {
    assert_ends_to_the_millisecond(Limit::Idle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_check_the_memory_serves_an_ended_session() {
    for limit in [Limit::Absolute, Limit::Idle] {
        let scene = Scene::new(limit).await;
        let session = scene.session().await;
        scene.clocks.set(END).await;
        scene.node.probes().remove(Guard::Expiry);
        assert!(scene.node.get(session.id()).await.unwrap().is_some(), "the control must fail");
        scene.node.probes().restore(Guard::Expiry);
        assert!(scene.node.get(session.id()).await.unwrap().is_none());
    }
}

/// ```text
/// first    sees the session alive ──────────────────────── its answer
/// second                           the end ── joins
/// ```
///
/// On one thread, so that the second has joined when the gate opens.
#[tokio::test]
async fn read_after_expiry_does_not_join_earlier_load() {
    for limit in [Limit::Absolute, Limit::Idle] {
        let scene = Scene::new(limit).await;
        let id = scene.session().await.id();
        let gate = scene.other.probes().close(Point::Loaded);
        let second = async {
            gate.arrived(1).await;
            scene.clocks.set(END).await;
            tokio::join!(scene.other.get(id).no_touch(), async { gate.open() }).0
        };
        let (first, second) = tokio::join!(scene.other.get(id).no_touch(), second);
        first.unwrap();
        assert!(second.unwrap().is_none(), "it had ended before it was asked for");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exempt_session_has_no_idle_limit() {
    let scene = Scene::new(Limit::Idle).await;
    let session = scene.node.create(1).idle_limit(IdleLimit::Exempt).await.unwrap();
    let mut made_exempt = scene.session().await;
    scene.node.save(&mut made_exempt).idle_limit(IdleLimit::Exempt).await.unwrap();
    scene.clocks.set(END * 9).await;
    for id in [session.id(), made_exempt.id()] {
        assert!(scene.node.get(id).no_touch().await.unwrap().unwrap().is_from_cache());
        assert!(scene.other.get(id).no_touch().await.unwrap().is_some());
    }
}

/// An access at 20 s waits for the regular flush; the clocks jump; at its flush the session has already ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_flush_does_not_bring_an_idle_session_back() {
    for (instant, alive) in [(END - MS, true), (END, false), (END + MS, false)] {
        let scene = Scene::new(Limit::Idle).await;
        let observer = scene.world.client().await;
        let id = scene.session().await.id();
        scene.clocks.set(END / 3).await;
        assert!(scene.node.get(id).await.unwrap().unwrap().is_from_cache());
        assert_eq!(scene.node.status().touches_waiting, 1);
        scene.clocks.set(instant).await;
        assert!(scene.node.shutdown(Duration::from_secs(10)).await.is_complete());
        let last = stored_time(&observer, "last_accessed_at", id).await;
        // The node's idea of the database's clock is an upper bound, here by the microsecond that PostgreSQL cuts off.
        let written = END / 3 + Duration::from_micros(1);
        assert_eq!(last, at(if alive { written } else { Duration::ZERO }), "{instant:?}");
        assert_eq!(scene.other.get(id).no_touch().await.unwrap().is_some(), alive);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revalidation_after_a_reconnect_drops_what_has_ended() {
    for limit in [Limit::Absolute, Limit::Idle] {
        for (instant, alive) in [(END - MS, true), (END, false), (END + MS, false)] {
            let world = World::new();
            let clocks = Clocks::new(&world).await;
            let mut config = config(&world);
            config.idle_timeout = END;
            config.last_access_flush_interval = END / 4;
            let node = clocks.node_named(&world, config).await;
            let create = node.create(1);
            let create = match limit {
                Limit::Absolute => create.expires_in(END).idle_limit(IdleLimit::Exempt),
                Limit::Idle => create,
            };
            let id = create.await.unwrap().id();
            let kept = node.create(2).idle_limit(IdleLimit::Exempt).await.unwrap().id();
            clocks.set(instant).await;
            cut_listeners(&world).await;
            let left = if alive { 2 } else { 1 };
            eventually("what has ended is dropped", async || {
                node.catch_up().await.is_ok() && node.status().cache.sessions == left
            })
            .await;
            assert_eq!(node.get(id).no_touch().await.unwrap().is_some(), alive);
            assert!(node.get(kept).no_touch().await.unwrap().is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attribute_ends_to_the_millisecond_in_every_handle() {
    let scene = Scene::new(Limit::Absolute).await;
    let mut session = scene.node.create(1).set("stays", &1).await.unwrap();
    session.set_for("for", &true, END).unwrap();
    session.set_until("until", &true, at(END)).unwrap();
    let unsaved = session.clone();
    scene.node.save(&mut session).await.unwrap();
    let id = session.id();
    for (instant, alive) in [(END - MS, true), (END, false), (END + MS, false)] {
        scene.clocks.set(instant).await;
        let cached = scene.node.get(id).await.unwrap().unwrap();
        assert!(cached.is_from_cache());
        let refreshed = scene.node.get(id).bypass_cache().await.unwrap().unwrap();
        let loaded = scene.other.get(id).await.unwrap().unwrap();
        for (way, handle) in [
            ("read before", &session),
            ("unsaved", &unsaved),
            ("cached", &cached),
            ("refreshed", &refreshed),
            ("loaded", &loaded),
        ] {
            // `set_for` counts from the node's idea of the database's clock, which is never behind: by a
            // microsecond here, so at `END` it may still be there and a millisecond later it may not.
            if instant != END {
                assert_eq!(handle.contains("for"), alive, "{way} at {instant:?}");
            }
            assert_eq!(handle.contains("until"), alive, "{way} at {instant:?}");
            assert_eq!(handle.get::<bool>("until").unwrap(), alive.then_some(true), "{way} at {instant:?}");
            assert_eq!(handle.get_shared::<bool>("until").unwrap().is_some(), alive);
            assert_eq!(handle.get_raw("until").is_some(), alive);
            assert_eq!(handle.attribute_expires_at("until"), alive.then(|| at(END)));
            assert_eq!(handle.keys().contains(&"until"), alive);
            assert!(handle.contains("stays"));
        }
    }
    assert_eq!(session.keys(), ["stays"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_attribute_counts_as_absent_for_a_checked_update() {
    for (instant, alive) in [(END - MS, true), (END, false), (END + MS, false)] {
        let scene = Scene::new(Limit::Absolute).await;
        let mut session = scene.node.create(1).await.unwrap();
        let mut blind = scene.other.get(session.id()).await.unwrap().unwrap();
        session.set_until("code", &1, at(END)).unwrap();
        scene.node.save(&mut session).await.unwrap();
        scene.clocks.set(instant).await;
        blind.set("code", &2).unwrap();
        match scene.other.save(&mut blind).check_attributes().await {
            Ok(()) => assert!(!alive),
            Err(UpdateError::Conflict { keys }) => assert!(alive && keys == ["code"]),
            Err(other) => panic!("{other:?}"),
        }
    }
}
