//! A thousand sockets on two axum nodes and one actix node: each closes with its session, whatever ends that, under faults.
//!
//! A round opens the sockets, makes a fault, and ends most of the sessions. A node with a fault closes its sockets within the trust
//! window, also those of sessions that live, because it cannot prove that they do. The other nodes close no socket of a session that
//! lives, and the others within milliseconds.
//!
//! `cargo test --workspace --examples --no-run && cargo test -p pg-session-actix --test it a_thousand -- --ignored --nocapture`

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use pg_sandbox::{Proxy, Sandbox};
use pg_session::{Config, Migrations, Session, SessionManager, Signer};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::http::example::Server;
use crate::http::world::{eventually, in_time};
use crate::live::{Socket, open};

/// The default of the examples, and what a close may take beside it.
const WINDOW: Duration = Duration::from_secs(6);
const LATE_MAX: Duration = Duration::from_millis(250);
/// How long a fault lasts: longer than the window.
const FAULT: Duration = Duration::from_secs(8);

/// How the session of some sockets ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Logout,
    Everywhere,
    Cap,
    Rotated,
    Expired,
    /// From memory only: the session lives.
    Evicted,
    Kept,
}

const WAYS: [Way; 7] =
    [Way::Logout, Way::Everywhere, Way::Cap, Way::Rotated, Way::Expired, Way::Evicted, Way::Kept];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// The connections of a node are cut, and refused.
    Cut,
    /// The process of a node is stopped.
    Paused,
    /// PostgreSQL is stopped, for all nodes.
    Unavailable,
}

/// The node that has a fault of its own: the actix node is one of them.
const CUT_NODE: usize = 1;
const PAUSED_NODE: usize = 2;

impl Fault {
    fn is_on(self, node: usize) -> bool {
        match self {
            Self::None => false,
            Self::Cut => node == CUT_NODE,
            Self::Paused => node == PAUSED_NODE,
            Self::Unavailable => true,
        }
    }
}

impl Way {
    fn ends(self) -> bool {
        !matches!(self, Self::Evicted | Self::Kept)
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Everywhere => "everywhere",
            Self::Cap => "cap",
            Self::Rotated => "rotated",
            Self::Expired => "expired",
            Self::Evicted | Self::Kept => "none",
        }
    }
}

struct Site {
    sandbox: Sandbox,
    sessions: SessionManager,
    signer: Signer,
    nodes: Vec<(Server, SocketAddr, Proxy)>,
    users: i64,
}

/// What became of one socket.
struct Seen {
    node: usize,
    way: Way,
    /// When the end of its session was acknowledged.
    ended: Option<Instant>,
    last_message: Instant,
    closed: Option<(Instant, u16, String)>,
}

type Watched = (usize, usize, JoinHandle<(Instant, Option<(Instant, u16, String)>)>);

impl Site {
    async fn start() -> Self {
        let sandbox = Sandbox::builder().setting("max_connections", "60").start().expect("PostgreSQL starts");
        let mut config = Config::default();
        config.migrations = Migrations::Apply;
        let sessions = SessionManager::connect(&sandbox.url(), config).await.expect("a node");
        let mut nodes = Vec::new();
        for example in ["axum_live", "axum_live", "actix_live"] {
            let wire = Proxy::start(sandbox.addr()).await.expect("a free port");
            let url = wire.url_for(&sandbox.url());
            let (server, addr) =
                tokio::task::spawn_blocking(move || Server::start(example, &url)).await.expect("it starts");
            nodes.push((server, addr, wire));
        }
        let signer = Signer::from_base64(&"A".repeat(43)).expect("a key");
        Self { sandbox, sessions, signer, nodes, users: 0 }
    }

    /// Opens `count` sockets: for each session, one on each node.
    async fn round(&mut self, fault: Fault, count: usize) -> Vec<Seen> {
        let mut sessions = Vec::new();
        for at in 0..count / self.nodes.len() {
            self.users += 1;
            let way = WAYS[at % WAYS.len()];
            sessions.push((way, self.sessions.create(self.users).await.expect("a session")));
        }
        let (stop, stopped) = watch::channel(false);
        let mut sockets: Vec<Watched> = Vec::new();
        for (at, (_, session)) in sessions.iter().enumerate() {
            let token = self.signer.issue(session.id(), session.version()).expose_into();
            let nodes = self.nodes.iter().map(|(_, addr, _)| open(*addr, "/socket", Some(&token)));
            for (node, socket) in join_all(nodes).await.into_iter().enumerate() {
                let socket = socket.expect("a socket");
                sockets.push((at, node, tokio::spawn(watch_socket(socket, stopped.clone()))));
            }
        }
        let expiring = self.expire_soon(&mut sessions).await;
        if fault == Fault::Cut {
            let (_, _, wire) = &self.nodes[CUT_NODE];
            wire.refuse();
            wire.cut();
        }
        if fault == Fault::Paused {
            self.signal(PAUSED_NODE, "-STOP");
        }
        let mut ended = Vec::new();
        for ((way, session), expires) in sessions.iter_mut().zip(expiring) {
            ended.push(match expires {
                Some(expires) => Some(expires),
                None => self.end(*way, session).await.then(Instant::now),
            });
        }
        if fault == Fault::Unavailable {
            self.sandbox.pause().expect("PostgreSQL can be stopped");
        }
        let last = ended.iter().flatten().max().copied().expect("some have ended");
        tokio::time::sleep_until(last + FAULT).await;
        match fault {
            Fault::None => {}
            Fault::Cut => self.nodes[CUT_NODE].2.heal(),
            Fault::Paused => self.signal(PAUSED_NODE, "-CONT"),
            Fault::Unavailable => self.sandbox.resume().expect("PostgreSQL goes on"),
        }
        let resumed = Instant::now();
        tokio::time::sleep_until(resumed + LATE_MAX * 4).await;
        stop.send_replace(true);
        let mut seen = Vec::new();
        for (at, node, socket) in sockets {
            let (last_message, closed) = in_time("a socket is given up", socket).await.expect("no panic");
            let way = sessions[at].0;
            seen.push(Seen { node, way, ended: ended[at], last_message, closed });
        }
        self.judge(fault, resumed, &seen);
        seen
    }

    /// After a long fault, a node waits up to five seconds before it connects. Until then it closes each new socket as unproved.
    async fn wait_until_sockets_stay_open(&mut self) {
        self.users += 1;
        let session = self.sessions.create(self.users).await.expect("a session");
        let token = self.signer.issue(session.id(), session.version()).expose_into();
        for (_, addr, _) in &self.nodes {
            eventually("a node is trusted again", async || {
                let Ok(mut socket) = open(*addr, "/socket", Some(&token)).await else { return false };
                matches!(socket.next().await, Some(Ok(Message::Text(_))))
            })
            .await;
        }
    }

    /// When those end that end by themselves: after the fault has begun.
    async fn expire_soon(&self, sessions: &mut [(Way, Session)]) -> Vec<Option<Instant>> {
        let mut ends = Vec::new();
        for (way, session) in sessions {
            ends.push(match way {
                Way::Expired => {
                    let lifetime = Duration::from_millis(1_000);
                    self.sessions.save(session).expires_in(lifetime).await.expect("it is saved");
                    let left = session.expires_at().duration_since(self.sessions.database_time());
                    let left = left.unwrap_or_default();
                    Some(Instant::now() + left)
                }
                _ => None,
            });
        }
        ends
    }

    /// Returns whether the session has ended.
    async fn end(&self, way: Way, session: &mut Session) -> bool {
        let user = session.user_id().expect("a user");
        match way {
            Way::Logout => assert!(self.sessions.delete(session.id()).await.expect("the database answers")),
            Way::Everywhere => {
                assert_eq!(self.sessions.user(user).delete().await.expect("the database answers"), 1);
            }
            Way::Cap => drop(self.sessions.create(user).cap(1).await.expect("a login")),
            Way::Rotated => self.sessions.rotate(session).await.expect("a rotation"),
            Way::Evicted => self.sessions.user(user).evict().await.expect("an eviction"),
            Way::Expired | Way::Kept => {}
        }
        way.ends()
    }

    fn signal(&self, node: usize, signal: &str) {
        let id = self.nodes[node].0.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().expect("a program");
        assert!(status.success(), "kill {signal}");
    }

    fn judge(&self, fault: Fault, resumed: Instant, seen: &[Seen]) {
        for socket in seen {
            let Seen { node, way, ended, last_message, closed } = socket;
            let (node, is_faulty) = (*node, fault.is_on(*node));
            let what = format!("{way:?} on node {node} under {fault:?}: {closed:?}");
            let Some(ended) = *ended else {
                match closed {
                    None => assert!(*last_message + LATE_MAX * 4 > resumed, "it goes on: {what}"),
                    Some((_, 1013, _)) => assert!(is_faulty, "nothing hinders its node: {what}"),
                    Some(_) => panic!("its session lives: {what}"),
                }
                continue;
            };
            let (at, code, reason) = closed.clone().unwrap_or_else(|| panic!("never closed: {what}"));
            // A process that is stopped closes nothing, and delivers nothing.
            let bound = match fault {
                Fault::Paused if is_faulty => (ended + WINDOW).max(resumed),
                _ => ended + WINDOW,
            } + LATE_MAX;
            assert!(at <= bound, "{:?} after the end: {what}", at.duration_since(ended));
            assert!(*last_message <= ended + WINDOW + LATE_MAX, "a message came later: {what}");
            match code {
                4401 if is_faulty => assert!([way.reason(), "unknown"].contains(&reason.as_str()), "{what}"),
                4401 => assert_eq!(reason, way.reason(), "{what}"),
                1013 => assert!(is_faulty, "{what}"),
                _ => panic!("{what}"),
            }
            // The clocks of node and database differ by a round trip.
            assert!(*way != Way::Expired || at + LATE_MAX > ended, "before its end: {what}");
        }
        self.print(fault, seen);
    }

    fn print(&self, fault: Fault, seen: &[Seen]) {
        for is_faulty in [false, true] {
            let sockets = seen.iter().filter(|socket| fault.is_on(socket.node) == is_faulty);
            let took = sockets.filter_map(|socket| {
                let (at, ..) = socket.closed.as_ref()?;
                Some(at.saturating_duration_since(socket.ended?))
            });
            let mut took: Vec<Duration> = took.collect();
            took.sort_unstable();
            let Some(&longest) = took.last() else { continue };
            let at = |percent: usize| took[(took.len() - 1) * percent / 100];
            let whose = if is_faulty { "with the fault" } else { "without it  " };
            println!(
                "{fault:?}, nodes {whose}: {} sockets closed after the end: p50 {:?}, p90 {:?}, p99 {:?}, longest {longest:?}",
                took.len(),
                at(50),
                at(90),
                at(99)
            );
        }
        let unproved = seen.iter().filter(|socket| matches!(socket.closed, Some((_, 1013, _)))).count();
        let open = seen.iter().filter(|socket| socket.closed.is_none()).count();
        println!(
            "{fault:?}: {} sockets, {unproved} of them closed as unproved, {open} still open",
            seen.len()
        );
    }
}

/// Until it is closed, or the round is over.
async fn watch_socket(
    mut socket: Socket,
    mut stopped: watch::Receiver<bool>,
) -> (Instant, Option<(Instant, u16, String)>) {
    let mut last_message = Instant::now();
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            _ = stopped.wait_for(|stopped| *stopped) => return (last_message, None),
        };
        match message.expect("a close frame comes first").expect("a message") {
            Message::Close(frame) => {
                let frame = frame.expect("a reason");
                let closed = (Instant::now(), u16::from(frame.code), frame.reason.as_str().to_owned());
                return (last_message, Some(closed));
            }
            _ => last_message = Instant::now(),
        }
    }
}

/// A node is cut off while sessions end.
pub async fn a_hundred_sockets_close_beside_a_node_that_is_cut_off() {
    let mut site = Site::start().await;
    let seen = site.round(Fault::Cut, 105).await;
    assert_eq!(seen.len(), 105);
    assert!(seen.iter().any(|socket| socket.closed.is_none()), "those of sessions that live");
}

pub async fn a_thousand_sockets_close_under_every_fault() {
    let mut site = Site::start().await;
    for fault in [Fault::None, Fault::Cut, Fault::Paused, Fault::Unavailable] {
        let seen = site.round(fault, 1_008).await;
        assert_eq!(seen.len(), 1_008);
        in_time("the site's own node is trusted", site.sessions.wait_until_trusted()).await.expect("a node");
        site.wait_until_sockets_stay_open().await;
    }
}
