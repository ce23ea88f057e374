//! After `everywhere()` no pin of an ended session counts as alive, whenever a node receives the request.

use pg_sandbox::Proxy;
use pg_session::testing::{Gate, Guard, Point};
use pg_session::{Event, Everywhere, Pin, Session, SessionManager};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::everywhere::{LONG, config, old_node};
use crate::fixtures::{in_time, make, read};
use crate::observer::Observer;
use crate::support::{World, eventually};

/// A calls `everywhere()`, and B has a pin that it is kept from looking up.
struct Scene {
    a: SessionManager,
    b: SessionManager,
    /// Through which B listens.
    wire: Proxy,
    observer: Observer,
    client: Client,
    session: Session,
    pin: Pin,
    lookup: Gate,
}

impl Scene {
    async fn new(world: &World) -> Self {
        // First: its clock jumps, and a row that it has seen before would count as silent.
        let a = old_node(world).await;
        let wire = world.proxy().await;
        let b = world.node_listening_through(&wire, config(world, LONG)).await;
        let (observer, client) = (Observer::new(world).await, world.client().await);
        let session = make(&a, 1).await.remove(0);
        let pin = in_time("it is pinned", b.pin(&read(&b, session.id()).await)).await.unwrap();
        let lookup = b.probes().close(Point::LookedUp);
        Self { a, b, wire, observer, client, session, pin, lookup }
    }

    /// Waits for what was committed earlier.
    fn everywhere(&self) -> JoinHandle<Everywhere> {
        let a = self.a.clone();
        tokio::spawn(async move { a.everywhere().await.unwrap() })
    }

    /// The request was sent, and B has handled it: it reports an end that was notified later.
    async fn b_handles_the_request(&mut self) {
        let later = make(&self.a, 1).await.remove(0).id();
        let mut events = self.b.events();
        let mut requested = false;
        while !requested {
            let notified = self.observer.notified().await;
            requested = notified.iter().any(|payload| payload.starts_with("1r"));
        }
        assert!(self.a.delete(later).await.unwrap());
        loop {
            let event = in_time("B reports the end", events.next()).await.expect("B lives");
            if matches!(event, Event::Ended { session, .. } if session == later.handle()) {
                return;
            }
        }
    }

    async fn nodes_that_answered(&self) -> i64 {
        let heard = "SELECT count(*) FROM session_nodes WHERE heard <> '{}'";
        self.client.query_one(heard, &[]).await.unwrap().get(0)
    }

    /// A has answered, and B beats: it would say so if it had.
    async fn only_a_answers(&self) {
        eventually("A has answered", async || self.nodes_that_answered().await > 0).await;
        for _ in 0..2 {
            self.b.catch_up().await.unwrap();
        }
        assert_eq!(self.nodes_that_answered().await, 1, "B has not");
    }

    async fn returns_when_looked_up(self, task: JoinHandle<Everywhere>) {
        assert!(!task.is_finished());
        assert_eq!(self.pin.check(), Ok(()), "the last proof holds");
        self.lookup.open();
        let done = in_time("it returns", task).await.unwrap();
        assert!(self.pin.check().is_err(), "the session has ended");
        assert_eq!((done.acknowledged, done.lapsed), (2, 0));
    }
}

/// ```text
/// A   deletes ── request ──────────────────────────────────── returns
/// B              receives both, looks the pin up ·········── answers
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everywhere_waits_for_lookups_of_pins() {
    let world = World::new();
    let mut scene = Scene::new(&world).await;
    assert!(scene.a.delete(scene.session.id()).await.unwrap());
    let task = scene.everywhere();
    scene.b_handles_the_request().await;
    scene.only_a_answers().await;
    scene.returns_when_looked_up(task).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_settling_a_pin_outlives_everywhere() {
    let world = World::new();
    let scene = Scene::new(&world).await;
    scene.b.probes().remove(Guard::HeardWhenSettled);
    assert!(scene.a.delete(scene.session.id()).await.unwrap());
    let done = in_time("it returns", scene.everywhere()).await.unwrap();
    assert_eq!((done.acknowledged, done.lapsed), (2, 0));
    assert_eq!(scene.pin.check(), Ok(()));
}

/// ```text
/// A   deletes ────────── request ──────────────────────────── returns
/// B   cut off   LISTEN ─ receives it ─ first proof, looks the pin up ── answers
/// ```
///
/// A lock keeps B's first beat back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_before_the_first_proof_waits_for_missed_ends() {
    let world = World::new();
    let mut scene = Scene::new(&world).await;
    scene.wire.refuse();
    scene.wire.cut();
    eventually("B has lost its listener", async || scene.b.status().trusted_for.is_none()).await;
    assert!(scene.a.delete(scene.session.id()).await.unwrap());
    let client = world.client().await;
    client.batch_execute("BEGIN; LOCK TABLE session_nodes IN SHARE MODE").await.unwrap();
    scene.wire.accept();
    scene.wire.heal();
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'session_nodes'::regclass";
    eventually("B listens, and its beat waits", async || {
        scene.client.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let task = scene.everywhere();
    scene.b_handles_the_request().await;
    assert!(scene.b.status().trusted_for.is_none(), "no proof has come");
    client.batch_execute("COMMIT").await.unwrap();
    scene.only_a_answers().await;
    scene.returns_when_looked_up(task).await;
}
