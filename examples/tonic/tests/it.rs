//! The example, run as its reader runs it, with a real client: its streams end with the session, on every node.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use news_client::NewsClient;
use pg_sandbox::{Proxy, Sandbox};
use pg_session::{Cause, Config, Migrations, Session, SessionManager, Signer};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

tonic::include_proto!("news.News");

#[derive(Clone, PartialEq, prost::Message)]
struct Ask {}

#[derive(Clone, PartialEq, prost::Message)]
struct Item {
    #[prost(string, tag = "1")]
    text: String,
}

/// The default of `trust_window`, and what the end of a stream may take beside it.
const ENDS_WITHIN: Duration = Duration::from_millis(6_250);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Streams of each node.
const STREAMS: usize = 50;

/// The example, until this is dropped.
struct Server(Child);

impl Server {
    fn start(url: &str, key: &str) -> (Self, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pg-session-example-tonic"));
        command.env("DATABASE_URL", url).env("SESSION_KEY", key).env("ADDRESS", "127.0.0.1:0");
        let mut server = Self(command.stdout(Stdio::piped()).spawn().expect("the example runs"));
        let mut line = String::new();
        let output = server.0.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it says where it listens");
        (server, line.trim().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It serves for ever.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A database, a node of the test beside those of the example, and the key of the tokens.
struct Site {
    sandbox: Sandbox,
    sessions: SessionManager,
    key: String,
}

impl Site {
    async fn start() -> Self {
        let sandbox = Sandbox::start().expect("PostgreSQL starts");
        let mut config = Config::default();
        config.migrations = Migrations::Apply;
        let sessions = SessionManager::connect(&sandbox.url(), config).await.expect("a node");
        Self { sandbox, sessions, key: "A".repeat(43) }
    }

    fn token(&self, session: &Session) -> String {
        let signer = Signer::from_base64(&self.key).expect("a key");
        signer.issue(session.id(), session.version()).expose_into()
    }
}

async fn listen(client: &mut NewsClient<Channel>, token: Option<&str>) -> Result<Streaming<Item>, Status> {
    let mut request = Request::new(Ask {});
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
    }
    Ok(client.listen(request).await?.into_inner())
}

async fn next(stream: &mut Streaming<Item>) -> Result<String, Status> {
    let item = tokio::time::timeout(WAIT_MAX, stream.message()).await.expect("an item comes in time")?;
    Ok(item.expect("it ends with a status").text)
}

/// What the stream ends with.
async fn end(stream: &mut Streaming<Item>) -> (Code, String) {
    loop {
        if let Err(status) = next(stream).await {
            return (status.code(), status.message().to_owned());
        }
    }
}

#[test]
fn the_example_has_sixty_lines_at_most() {
    let lines = include_str!("../src/main.rs").lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
    assert!(lines <= 60, "{lines} lines of code");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_with_the_session_on_every_node() {
    let site = Site::start().await;
    let nodes = [(); 2].map(|()| Server::start(&site.sandbox.url(), &site.key));
    let (ann, bob) = (site.sessions.create(1).await.unwrap(), site.sessions.create(2).await.unwrap());
    let (ann, bob) = (site.token(&ann), site.token(&bob));

    let mut streams = Vec::new();
    let mut spared = Vec::new();
    for (_, url) in &nodes {
        let mut client = NewsClient::connect(url.clone()).await.expect("the example answers");
        for token in [None, Some("no.token")] {
            let refused = listen(&mut client, token).await.expect_err("there is no session");
            assert_eq!(refused.code(), Code::Unauthenticated);
        }
        for _ in 0..STREAMS {
            streams.push(listen(&mut client, Some(&ann)).await.expect("a stream"));
        }
        spared.push(listen(&mut client, Some(&bob)).await.expect("a stream"));
    }
    for stream in streams.iter_mut().chain(&mut spared) {
        assert!(next(stream).await.expect("an item").starts_with("news"));
    }

    site.sessions.user(1).delete().cause(Cause::Credential).await.expect("the database answers");
    let acknowledged = Instant::now();
    let ends = streams.into_iter().map(async |mut stream| {
        assert_eq!(end(&mut stream).await, (Code::Unauthenticated, "credential".to_owned()));
        acknowledged.elapsed()
    });
    let mut took = join_all(ends).await;
    took.sort_unstable();
    let longest = took[took.len() - 1];
    println!("from the answer to the end of {} streams: {:?} to {longest:?}", took.len(), took[0]);
    assert!(longest <= ENDS_WITHIN, "{took:?}");
    for stream in &mut spared {
        assert!(next(stream).await.expect("another user's").starts_with("news"));
    }
}

/// A node that has lost the database ends its streams, because it cannot prove that their sessions live.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_node_that_is_cut_off_are_unproved() {
    let site = Site::start().await;
    let wire = Proxy::start(site.sandbox.addr()).await.expect("a free port");
    let (_server, url) = Server::start(&wire.url_for(&site.sandbox.url()), &site.key);
    let session = site.sessions.create(1).await.unwrap();
    let mut client = NewsClient::connect(url).await.expect("the example answers");
    let token = site.token(&session);
    let mut stream = listen(&mut client, Some(&token)).await.expect("a stream");
    next(&mut stream).await.expect("an item");
    wire.refuse();
    wire.cut();
    let began = Instant::now();
    assert_eq!(end(&mut stream).await, (Code::Unavailable, "unproved".to_owned()));
    assert!(began.elapsed() <= ENDS_WITHIN, "{:?}", began.elapsed());
    wire.accept();
    wire.heal();
    // The client asks again, as it does after UNAVAILABLE.
    let again = tokio::time::timeout(WAIT_MAX, async {
        while let Err(refused) = listen(&mut client, Some(&token)).await {
            assert_eq!(refused.code(), Code::Unavailable);
            tokio::task::yield_now().await;
        }
    });
    again.await.expect("the node serves again");
}
