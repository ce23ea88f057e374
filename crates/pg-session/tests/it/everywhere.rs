//! After `everywhere()` no node serves the old state: whether the nodes answer, are cut off, or are paused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use pg_session::testing::Guard;
use pg_session::{Config, Everywhere, Revoked, Session, SessionId, SessionManager, Signer, SigningKey};
use tokio_postgres::Client;

use crate::fixtures::{hit, in_time, make, read};
use crate::support::{World, eventually};

/// The shortest window: what lapses has to be waited for.
pub const SHORT: Duration = Duration::from_millis(500);
/// Longer than any test.
pub const LONG: Duration = Duration::from_secs(600);
/// What a busy machine may take longer than the window.
const SLACK: Duration = Duration::from_secs(5);

pub fn config(world: &World, trust_window: Duration) -> Config {
    let mut config = world.roomy();
    config.trust_window = trust_window;
    config
}

/// A node whose row in the registry is older than the window, by its own clock.
pub async fn old_node(world: &World) -> SessionManager {
    let clock = Arc::new(AtomicU64::new(1));
    let builder = SessionManager::builder(config(world, LONG)).url(&world.url).unwrap();
    let node = builder.manual_clock(Arc::clone(&clock)).connect().await.unwrap();
    in_time("the node is in sync", node.wait_until_trusted()).await.unwrap();
    // A tick may come before the answer to its beat. A second beat follows the first answer.
    clock.fetch_add(1, Ordering::SeqCst);
    in_time("a second beat", node.catch_up()).await.unwrap();
    clock.fetch_add(u64::try_from((2 * LONG).as_nanos()).unwrap(), Ordering::SeqCst);
    node
}

/// A session of its own user, in the memory of these nodes.
async fn cached(writer: &SessionManager, readers: &[&SessionManager]) -> Session {
    let session = make(writer, 1).await.remove(0);
    for reader in readers {
        read(reader, session.id()).await;
        assert!(hit(reader, session.id()).is_some());
    }
    session
}

async fn heard(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM session_nodes WHERE heard <> '{}'", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everywhere_returns_when_all_nodes_have_answered() {
    let world = World::new();
    let a = old_node(&world).await;
    let [b, c] = [world.node_with(config(&world, LONG)).await, world.node_with(config(&world, LONG)).await];
    let signer = Signer::from(SigningKey::generate().unwrap());
    let client = world.client().await;
    for round in 0..7 {
        let session = cached(&a, &[&b, &c]).await;
        let id = session.id();
        let user = session.user_id().unwrap();
        let done = match round {
            0 => in_time("deleted", a.delete(id).everywhere()).await,
            1 => in_time("deleted", a.user(user).delete().everywhere()).await,
            2 => in_time("deleted", a.delete_all_sessions().everywhere()).await,
            3 => in_time("evicted", a.user(user).evict().everywhere()).await,
            4 => in_time("evicted", a.evict_all().everywhere()).await,
            5 => {
                let add = "SELECT session_add_label($1, 'tenant:7')";
                client.execute(add, &[&id.expose()]).await.unwrap();
                for node in [&b, &c] {
                    read(node, id).await;
                }
                in_time("deleted", a.label("tenant:7").delete().everywhere()).await
            }
            _ => in_time("removed", a.user(user).remove_attribute("n").everywhere()).await,
        };
        let done = done.unwrap();
        assert!(done.finished_at.duration_since(session.created_at()).unwrap() >= done.took, "round {round}");
        let receipt = done.sign(&signer).unwrap();
        assert!(!receipt.contains(&id.expose().to_string()), "round {round}: no session id");
        assert_eq!(Everywhere::verify(&signer, &receipt).as_ref(), Ok(&done));
        let revoked = match round {
            0 => Revoked::Session { handle: id.handle() },
            1 => Revoked::User { user },
            2 => Revoked::All,
            3 => Revoked::UserEvicted { user },
            4 => Revoked::AllEvicted,
            5 => Revoked::Label { label: "tenant:7".to_owned() },
            _ => Revoked::Attribute { user, key: "n".to_owned() },
        };
        assert_eq!(done.revoked, revoked);
        let Everywhere { acknowledged, lapsed, .. } = done;
        assert_eq!((acknowledged, lapsed), (3, 0), "round {round}");
        for node in [&b, &c] {
            let old = hit(node, id).filter(|found| round < 6 || found.get::<i64>("n").unwrap().is_some());
            assert!(old.is_none(), "round {round}");
        }
    }
}

/// ```text
/// A   deletes ── everywhere() ─────────────────────────────────── returns
/// B   does not receive ················· receives ── answers
/// C            answers
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everywhere_waits_for_the_slowest_node() {
    let world = World::new();
    let a = old_node(&world).await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, config(&world, LONG)).await;
    let c = world.node_with(config(&world, LONG)).await;
    let id = cached(&a, &[&b, &c]).await.id();
    let client = world.client().await;
    wire.stall();
    let task = tokio::spawn({
        let a = a.clone();
        async move { a.delete(id).everywhere().await }
    });
    eventually("A and C have answered", async || heard(&client).await == 2).await;
    assert!(hit(&b, id).is_some(), "B has not received it");
    assert!(!task.is_finished());
    wire.heal();
    let done = in_time("B answers", task).await.unwrap().unwrap();
    assert_eq!((done.acknowledged, done.lapsed), (3, 0));
    assert!(hit(&b, id).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_acknowledgement_a_node_still_serves() {
    let world = World::new();
    let a = old_node(&world).await;
    a.probes().remove(Guard::Acknowledgement);
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, config(&world, LONG)).await;
    let id = cached(&a, &[&b]).await.id();
    wire.stall();
    in_time("it does not wait", a.delete(id).everywhere()).await.unwrap();
    assert!(hit(&b, id).is_some(), "B has not received it");
}

/// A node in a runtime of one thread, which is blocked while the test looks: nothing of it runs, and its trust goes on.
struct Paused {
    serves: mpsc::Sender<()>,
    answers: mpsc::Receiver<bool>,
}

impl Paused {
    fn start(world: &World, trust_window: Duration, id: SessionId) -> Self {
        let (serves, asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let world = World { url: world.url.clone(), schema: world.schema.clone() };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let node = world.node_with(config(&world, trust_window)).await;
                read(&node, id).await;
                node.catch_up().await.unwrap();
                // A send fails if the test has failed.
                let _ = answer.send(true);
                while asked.recv().is_ok() {
                    let _ = answer.send(hit(&node, id).is_some());
                }
            });
        });
        let paused = Self { serves, answers };
        assert!(paused.answers.recv().unwrap(), "it has the session in memory");
        paused
    }

    /// Whether it answers with the session.
    fn serves(&self) -> bool {
        self.serves.send(()).unwrap();
        self.answers.recv().unwrap()
    }
}

/// One node is cut off, one is paused, and both may serve for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_lapses() {
    let world = World::new();
    let a = world.node_with(config(&world, SHORT)).await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, config(&world, SHORT)).await;
    let id = make(&a, 1).await[0].id();
    let c = Paused::start(&world, SHORT, id);
    read(&b, id).await;
    wire.stall();
    let done = in_time("it ends", a.delete(id).everywhere()).await.unwrap();
    assert!(hit(&b, id).is_none(), "cut off");
    assert!(!c.serves(), "paused");
    assert!(done.lapsed >= 1 && done.took >= SHORT && done.took < SHORT + SLACK, "{done:?}");
}

/// A lock keeps all nodes from the registry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everywhere_ends_if_the_registry_does_not_answer() {
    let world = World::new();
    let [a, b] = [world.node_with(config(&world, SHORT)).await, world.node_with(config(&world, SHORT)).await];
    let id = make(&a, 1).await[0].id();
    read(&b, id).await;
    let client = world.client().await;
    client.batch_execute("BEGIN; LOCK TABLE session_nodes").await.unwrap();
    let done = in_time("it ends", a.delete(id).everywhere()).await.unwrap();
    assert!(hit(&b, id).is_none());
    assert!(done.took >= SHORT && done.took < SHORT + SLACK, "{done:?}");
    client.batch_execute("COMMIT").await.unwrap();
    in_time("trust returns", b.wait_until_trusted()).await.unwrap();
}

/// A crash of the server empties the registry. Returns whether a node that has not noticed serves after the return.
async fn serves_after_an_emptied_registry(trust_window: Duration, without: Option<Guard>) -> bool {
    let world = World::new();
    let a = world.node_with(config(&world, trust_window)).await;
    if let Some(guard) = without {
        a.probes().remove(guard);
    }
    let id = make(&a, 1).await[0].id();
    let b = Paused::start(&world, trust_window, id);
    world.client().await.batch_execute("TRUNCATE session_nodes").await.unwrap();
    a.catch_up().await.unwrap();
    in_time("it ends", a.delete(id).everywhere()).await.unwrap();
    b.serves()
}

/// A node whose row is gone writes it again to say what it has handled.
///
/// ```text
/// registry    emptied ── request of b ── row of a, with the request
/// a                       receives it, long before its next beat
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_row_inserts_it_to_acknowledge() {
    let world = World::new();
    // The next beat is minutes away.
    let slow = config(&world, Duration::from_secs(600));
    let [_a, b] = [world.node_with(slow.clone()).await, world.node_with(slow).await];
    let client = world.client().await;
    let rows = async || -> i64 {
        let heard = "SELECT count(*) FROM session_nodes WHERE heard <> '{}'";
        client.query_one(heard, &[]).await.unwrap().get(0)
    };
    client.batch_execute("TRUNCATE session_nodes").await.unwrap();
    let asking = tokio::spawn(async move { b.nodes().await });
    eventually("both nodes have written their rows", async || rows().await == 2).await;
    asking.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_registry_is_not_believed() {
    assert!(!serves_after_an_emptied_registry(SHORT, None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_an_emptied_registry_hides_a_trusted_node() {
    assert!(serves_after_an_emptied_registry(LONG, Some(Guard::CompleteRegistry)).await);
}

/// A node that ends removes its row. Other nodes remove that of a node that has ended without a goodbye.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_nodes_that_have_ended_are_removed() {
    let world = World::new();
    let a = world.node_with(config(&world, SHORT)).await;
    let client = world.client().await;
    let nodes =
        async || -> i64 { client.query_one("SELECT count(*) FROM session_nodes", &[]).await.unwrap().get(0) };
    let b = world.node_with(config(&world, SHORT)).await;
    assert_eq!(nodes().await, 2);
    assert!(b.shutdown(SLACK).await.is_complete());
    assert_eq!(nodes().await, 1);
    let row = "INSERT INTO session_nodes SELECT '00000000-0000-0000-0000-000000000001', 1, 1, 1, '{}', name, \
               version, settings, registered_at FROM session_nodes";
    client.batch_execute(row).await.unwrap();
    eventually("the silent row is removed", async || nodes().await == 1).await;
    assert!(a.status().trusted_for.is_some());
}

/// The node listens again and no beat of it is committed. Returns whether a tick without its beat makes it trusted.
async fn a_foreign_tick_proves(without: Option<Guard>) -> bool {
    let world = World::new();
    let wire = world.proxy().await;
    let node = world.node_listening_through(&wire, config(&world, LONG)).await;
    if let Some(guard) = without {
        node.probes().remove(guard);
    }
    let (client, sender) = (world.client().await, world.client().await);
    let text =
        "SELECT substring(pg_get_functiondef('session_check_row'::regproc) from 'pg_session_[0-9a-f]{16}')";
    let channel: String = sender.query_one(text, &[]).await.unwrap().get(0);
    client.batch_execute("BEGIN; LOCK TABLE session_nodes IN EXCLUSIVE MODE").await.unwrap();
    wire.cut();
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'session_nodes'::regclass AND NOT granted";
    eventually("the beat of the next connection waits", async || {
        sender.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    assert!(node.status().trusted_for.is_none());
    let before = node.status().cache.invalidations;
    let deleted = format!("1d{}", "0".repeat(32));
    for payload in ["1t7.7", &deleted] {
        sender.execute("SELECT pg_notify($1, $2)", &[&channel, &payload]).await.unwrap();
    }
    eventually("the tick is handled", async || node.status().cache.invalidations > before).await;
    node.status().trusted_for.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_without_the_nodes_beat_proves_nothing() {
    assert!(!a_foreign_tick_proves(None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_any_tick_proves_without_the_own_beat() {
    assert!(a_foreign_tick_proves(Some(Guard::OwnBeat)).await);
}
