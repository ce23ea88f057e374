//! What the tests about coherence share: nodes behind a proxy, many futures at once, and reads that do not wait.

use std::net::SocketAddr;
use std::pin::pin;
use std::str::FromStr;
use std::task::{Context, Poll, Waker};

use pg_sandbox::Proxy;
use pg_session::{Config, Session, SessionId, SessionManager};
use tokio_postgres::config::Host;

use crate::support::{WAIT_MAX, World};

impl World {
    /// A configuration without a limit of sessions per user, and with queues for whatever a test throws at them.
    pub fn roomy(&self) -> Config {
        let mut config = self.config();
        config.sessions_per_user_max = 0;
        config.cache_sessions_max = 200_000;
        config.write_queue_max = 100_000;
        config.load_queue_max = 100_000;
        config
    }

    /// Nodes that listen and are trusted, without a limit of sessions per user.
    pub async fn nodes<const N: usize>(&self) -> [SessionManager; N] {
        let mut nodes = Vec::new();
        for _ in 0..N {
            nodes.push(self.node_with(self.roomy()).await);
        }
        nodes.try_into().expect("as many as were made")
    }

    /// A proxy in front of the server.
    pub async fn proxy(&self) -> Proxy {
        Proxy::start(self.addr()).await.expect("a free port")
    }

    /// A host that accepts each connection and never sends a byte.
    pub async fn silent_host(&self) -> Proxy {
        let host = self.proxy().await;
        host.stall();
        host
    }

    /// A node whose listener goes through `wire`, and nothing else does; in sync.
    pub async fn node_listening_through(&self, wire: &Proxy, config: Config) -> SessionManager {
        let listen_on = driver_config(&wire.url_for(&self.url));
        let node = SessionManager::builder(config).url(&self.url).expect("the URL parses");
        let node = node.listen_on(listen_on).connect().await.expect("the node starts");
        in_time("the node is in sync", node.wait_until_trusted()).await.unwrap();
        node
    }

    pub fn addr(&self) -> SocketAddr {
        let config = driver_config(&self.url);
        match (config.get_hosts(), config.get_ports()) {
            ([Host::Tcp(host)], [port]) => format!("{host}:{port}").parse().expect("a numeric address"),
            other => panic!("the sandbox listens on one TCP port: {other:?}"),
        }
    }
}

pub fn driver_config(url: &str) -> tokio_postgres::Config {
    tokio_postgres::Config::from_str(url).expect("the sandbox's URL parses")
}

/// Awaits something that should take milliseconds.
pub async fn in_time<F: IntoFuture>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(WAIT_MAX, future.into_future()).await {
        Ok(output) => output,
        Err(_) => panic!("never happened: {what}"),
    }
}

/// Runs futures at once, on this task; their outputs in order.
///
/// They are all polled before any of the library's tasks can run in a single-threaded runtime: so what they queue
/// leaves together.
pub async fn all<I>(futures: I) -> Vec<<I::Item as IntoFuture>::Output>
where
    I: IntoIterator,
    I::Item: IntoFuture,
{
    let mut running: Vec<_> =
        futures.into_iter().map(|future| (Box::pin(future.into_future()), None)).collect();
    let everything = std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(ready) => *output = Some(ready),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    });
    in_time("all of them are done", everything).await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

/// What a read is answered with at once, from memory. `None` if it has to ask the database: then it does so, and
/// this does not wait for it.
pub fn hit(node: &SessionManager, id: SessionId) -> Option<Session> {
    let read = pin!(node.get(id).into_future());
    match read.poll(&mut Context::from_waker(Waker::noop())) {
        // The loader, on another thread, may have been quicker than this look.
        Poll::Ready(answer) => answer.expect("a hit is no error").filter(Session::is_from_cache),
        Poll::Pending => None,
    }
}

/// Reads a session that must be there.
pub async fn read(node: &SessionManager, id: SessionId) -> Session {
    in_time("the read is answered", node.get(id)).await.expect("the database answers").expect("it is alive")
}

/// As many new sessions at version 1, each of a user of its own, with `n` = 1.
pub async fn make(node: &SessionManager, count: usize) -> Vec<Session> {
    let users = 0..i64::try_from(count).expect("few");
    let new_sessions = users.map(|user| node.create(user).set("n", &1_i64));
    all(new_sessions).await.into_iter().map(|born| born.expect("it is created")).collect()
}

/// Sets `n` in all of them, through `node`, at once.
pub async fn update_all(node: &SessionManager, sessions: &mut [Session], n: i64) {
    let updates = sessions.iter_mut().map(|session| {
        session.set("n", &n).expect("it is within the limits");
        node.save(session)
    });
    for outcome in all(updates).await {
        outcome.expect("it is updated");
    }
}

/// Reads all of them at once; each has to be there.
pub async fn read_all(node: &SessionManager, ids: &[SessionId]) -> Vec<Session> {
    let answers = all(ids.iter().map(|&id| node.get(id))).await;
    answers.into_iter().map(|answer| answer.expect("it is read").expect("it is alive")).collect()
}

pub fn ids(sessions: &[Session]) -> Vec<SessionId> {
    sessions.iter().map(Session::id).collect()
}

/// The attribute `n`.
pub fn n(session: &Session) -> i64 {
    session.get("n").expect("a number").expect("it has one")
}
