//! Half-open: the listening connection looks alive and delivers nothing, or the process is paused. No error is reported,
//! so only the trust window ends the hits: I3, a read that starts at t sees every change acknowledged before
//! t − `trust_window`, or fails.

use std::sync::mpsc;
use std::time::Duration;

use pg_sandbox::{Direction, Proxy};
use pg_session::testing::Guard;
use pg_session::{Config, Error, ErrorKind, Session, SessionId, SessionManager, UserId};
use tokio::time::Instant;

use crate::fixtures::{hit, in_time, make, n, read, update_all};
use crate::support::{World, eventually};

const TRUST_WINDOW: Duration = Duration::from_millis(800);

fn quick(world: &World) -> Config {
    let mut config = world.roomy();
    config.trust_window = TRUST_WINDOW;
    config
}

/// One read: when it started, and what it was answered.
struct Read {
    started: Instant,
    answer: Result<Option<Session>, Error>,
}

impl Read {
    async fn of(node: &SessionManager, id: SessionId) -> Self {
        let started = Instant::now();
        Self { started, answer: in_time("an answer, of whatever kind", node.get(id)).await }
    }

    fn shows(&self, value: i64) -> bool {
        matches!(&self.answer, Ok(Some(session)) if n(session) == value)
    }

    fn fails_with_a_type(&self) -> bool {
        let kind = self.answer.as_ref().err().map(Error::kind);
        matches!(kind, Some(ErrorKind::Unavailable | ErrorKind::Timeout))
    }
}

/// B has a session in memory · `fault` · A: update · B: reads, until long after the window.
///
/// Answers the moment before the update was sent, which is before its acknowledgement, and B's reads.
async fn reads_around(world: &World, fault: impl FnOnce(&Proxy)) -> (Instant, Vec<Read>) {
    let a = world.node_with(quick(world)).await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, quick(world)).await;
    let mut sessions = make(&a, 1).await;
    let id = sessions[0].id();
    read(&b, id).await;
    assert!(hit(&b, id).is_some());
    b.catch_up().await.unwrap();
    fault(&wire);
    let sent = Instant::now();
    update_all(&a, &mut sessions, 2).await;
    let mut reads = Vec::new();
    while sent.elapsed() < TRUST_WINDOW * 3 / 2 {
        reads.push(Read::of(&b, id).await);
        tokio::task::yield_now().await;
    }
    wire.heal();
    in_time("the node is in sync again by itself", b.wait_until_trusted()).await.unwrap();
    assert_eq!(n(&read(&b, id).await), 2);
    (sent, reads)
}

/// Hits of the old version are fine for a while, and over in time.
fn keeps_the_bound(sent: Instant, reads: &[Read]) {
    assert!(reads.iter().all(|read| read.shows(1) || read.shows(2)), "the pool works: no read fails");
    assert!(reads.iter().any(|read| read.shows(1)), "the fault hides the update for a while");
    let late = reads.iter().filter(|read| read.started >= sent + TRUST_WINDOW).collect::<Vec<_>>();
    assert!(!late.is_empty() && late.iter().all(|read| read.shows(2)), "I3");
}

#[tokio::test]
async fn behind_a_stalled_connection_no_hit_outlives_the_trust_window() {
    let (sent, reads) = reads_around(&World::new(), Proxy::stall).await;
    keeps_the_bound(sent, &reads);
}

#[tokio::test]
async fn hits_stop_in_trust_window_if_server_bytes_are_lost() {
    let (sent, reads) = reads_around(&World::new(), |wire| wire.drop_direction(Direction::ToClient)).await;
    keeps_the_bound(sent, &reads);
}

#[tokio::test]
async fn no_update_is_missed_if_node_bytes_are_lost() {
    let (sent, reads) = reads_around(&World::new(), |wire| wire.drop_direction(Direction::ToServer)).await;
    assert!(reads.iter().all(|read| read.shows(1) || read.shows(2)));
    assert!(reads.iter().all(|read| read.shows(2) || read.started < sent + TRUST_WINDOW), "I3");
}

/// B's process is paused or starved: none of B's tasks runs, none notices anything. A, on a
/// thread of its own, updates. Returns whether B served the old version to a read that started after the window.
///
/// B lives in a runtime of one thread, and this function never yields to it while it looks.
async fn a_starved_process_serves_too_long(without: Option<Guard>) -> bool {
    let world = World::new();
    let b = world.node_with(quick(&world)).await;
    if let Some(guard) = without {
        b.probes().remove(guard);
    }
    let session = make(&b, 1).await.remove(0);
    let id = session.id();
    let elsewhere = Elsewhere::start(world, session);
    b.catch_up().await.unwrap();
    let sent = Instant::now();
    elsewhere.update();
    let mut reads = 0_u64;
    loop {
        let started = Instant::now();
        if hit(&b, id).is_none() {
            break;
        }
        if started >= sent + TRUST_WINDOW {
            return true;
        }
        reads += 1;
    }
    assert!(reads > 0, "within the window it serves what it has");
    assert_eq!(n(&read(&b, id).await), 2, "as soon as it runs again");
    false
}

/// A, a node on a thread and in a runtime of its own, ready to update a session.
struct Elsewhere {
    go: mpsc::SyncSender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Elsewhere {
    fn start(world: World, mut session: Session) -> Self {
        let (go, wait_for_go) = mpsc::sync_channel(0);
        let (ready, wait_until_ready) = mpsc::sync_channel(0);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let a = world.node_with(quick(&world)).await;
                ready.send(()).unwrap();
                wait_for_go.recv().unwrap();
                update_all(&a, std::slice::from_mut(&mut session), 2).await;
            });
        });
        wait_until_ready.recv().unwrap();
        Self { go, thread }
    }

    /// Blocks this thread, and all that runs on it, until the update is acknowledged.
    fn update(self) {
        self.go.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

#[tokio::test]
async fn a_starved_process_stops_serving_by_the_clock_alone() {
    assert!(!a_starved_process_serves_too_long(None).await);
}

#[tokio::test]
async fn control_without_trust_window_starved_process_serves_revoked() {
    assert!(a_starved_process_serves_too_long(Some(Guard::TrustWindow)).await);
}

/// PostgreSQL is out of reach, for the pool as for the listener.
#[tokio::test]
async fn unreachable_postgresql_fails_reads_never_stale_or_none() {
    let world = World::new();
    let a = world.node_with(quick(&world)).await;
    let wire = world.proxy().await;
    let b = {
        let mut config = quick(&world);
        config.query_timeout = TRUST_WINDOW;
        SessionManager::connect(&wire.url_for(&world.url), config).await.unwrap()
    };
    in_time("the node is in sync", b.wait_until_trusted()).await.unwrap();
    let mut sessions = make(&a, 1).await;
    let id = sessions[0].id();
    read(&b, id).await;
    let unknown = SessionId::from_uuid(uuid::Uuid::new_v4());
    b.catch_up().await.unwrap();
    wire.stall();
    let sent = Instant::now();
    update_all(&a, &mut sessions, 2).await;
    let mut failures = 0;
    while sent.elapsed() < TRUST_WINDOW * 2 {
        let (read, of_unknown) = tokio::join!(Read::of(&b, id), Read::of(&b, unknown));
        let within = read.started < sent + TRUST_WINDOW;
        assert!(read.fails_with_a_type() || (within && read.shows(1)), "{:?}", read.answer);
        failures += usize::from(read.fails_with_a_type());
        assert!(of_unknown.fails_with_a_type(), "nor is anything else known to be none");
    }
    assert!(failures > 0);
    wire.heal();
    in_time("the node is in sync again by itself", b.wait_until_trusted()).await.unwrap();
    eventually("the node shows the update", async || Read::of(&b, id).await.shows(2)).await;
}

/// A logout is answered in a write's time, whether its connection hangs while it is made or its answer never comes. It used
/// to have twelve times that, and every logout of the node stood behind it.
#[tokio::test]
async fn unreachable_postgresql_fails_logout_within_write_timeout() {
    let world = World::new();
    let wire = world.proxy().await;
    let mut config = quick(&world);
    config.query_timeout = Duration::from_millis(400);
    let wait_max = config.query_timeout * 5;
    let node = SessionManager::connect(&wire.url_for(&world.url), config).await.unwrap();
    let id = make(&node, 1).await[0].id();
    let user = UserId::from(7);
    wire.stall();
    let outcome = tokio::time::timeout(wait_max, node.delete(id)).await.expect("no answer");
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::OutcomeUnknown, "it was sent");
    wire.cut();
    // A connection that was cut is found by its next user, so new ones are made, and hang.
    eventually(
        "the pool makes new connections",
        async || matches!(node.delete(id).await, Err(error) if error.kind() == ErrorKind::Timeout),
    )
    .await;
    let outcome = tokio::time::timeout(wait_max, node.delete(id)).await.expect("no answer");
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout, "nothing was sent");
    let outcome = tokio::time::timeout(wait_max, node.user(user).delete()).await.expect("no answer");
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout, "nothing was sent");
    wire.heal();
    eventually("the node works again by itself", async || node.delete(id).await.is_ok()).await;
}
