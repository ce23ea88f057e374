//! The program, serving; a node of the application beside it; and a client that is a proxy.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{COOKIE, HeaderMap};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::Signal;
use pg_session::{Config, Migrations, Session, SessionManager, Signer, SigningKey};

use crate::support::{Program, WAIT_MAX, World};

/// Headers of a request.
pub type Headers<'a> = &'a [(&'a str, &'a str)];

/// The name of the cookie by default.
pub const COOKIE_NAME: &str = "__Host-session";

/// A node of the application: it logs users in, and has the key.
pub struct Application {
    pub manager: SessionManager,
    pub world: World,
    signer: Signer,
    pub key: String,
    pub schema: String,
}

impl Application {
    /// In a schema of its own.
    pub async fn start(name: &str) -> Self {
        let world = World::new(name).await;
        let schema = format!("serve_{name}");
        let mut config = Config::default();
        config.schema.clone_from(&schema);
        config.migrations = Migrations::Apply;
        config.pool_connections_max = 2;
        // The program takes it over. A wait for all nodes takes as long after the start of a node.
        config.trust_window = Duration::from_secs(2);
        let manager = SessionManager::connect(&world.url, config).await.expect("a node");
        let key = SigningKey::generate().expect("random numbers").expose_base64().to_string();
        let signer = Signer::from_base64(&key).expect("a key");
        Self { manager, world, signer, key, schema }
    }

    /// The cookie that the application has set for this session.
    pub fn cookie(&self, session: &Session) -> String {
        let token = self.signer.issue(session.id(), session.version());
        format!("{COOKIE_NAME}={}", token.expose())
    }

    /// The program beside the application, on a free port.
    pub fn serve(&self, more: &[&str]) -> Server {
        self.start_program(&self.world.url, more, &[])
    }

    /// With these variables in its environment.
    pub fn serve_with(&self, more: &[&str], variables: &[(&str, &str)]) -> Server {
        self.start_program(&self.world.url, more, variables)
    }

    /// On another way to the database.
    pub fn serve_on(&self, url: &str, more: &[&str]) -> Server {
        self.start_program(url, more, &[])
    }

    fn start_program(&self, url: &str, more: &[&str], variables: &[(&str, &str)]) -> Server {
        let own = ["serve", "--schema", &self.schema, "--database-url", url];
        let listen = if more.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] };
        let args = [&own[..], listen, more].concat();
        let mut program =
            Program::start_with(&args, &[&[("SESSION_KEY", self.key.as_str())][..], variables].concat());
        let out = program.read_until(&["serving on http://"]);
        let url = out.lines().find_map(|line| line.strip_prefix("serving on ")).expect("an address");
        Server { url: url.to_owned(), program, client: Client::builder(TokioExecutor::new()).build_http() }
    }
}

/// The program, serving.
pub struct Server {
    pub url: String,
    pub program: Program,
    client: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Server {
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    /// What a proxy asks for a client that has sent this cookie.
    pub async fn auth(&self, cookie: &str) -> Answer {
        self.send(Method::GET, "/auth", &[(COOKIE.as_str(), cookie)], "").await
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).expect("a request");
        let answer = tokio::time::timeout(WAIT_MAX, self.client.request(request)).await;
        let (head, body) = answer.expect("an answer in time").expect("an answer").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// Ends the program as an orchestrator does. It ends in order.
    pub fn stop(mut self) {
        self.program.signal(Signal::SIGTERM);
        let end = self.program.finish();
        assert_eq!(end.code, Some(0), "{end:?}");
        // A busy machine may end the trust of the node, which it says.
        let others = end.err.lines().filter(|line| !line.contains("Z This node "));
        assert_eq!(others.count(), 0, "{end:?}");
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}
