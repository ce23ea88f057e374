//! The example services in Python and JavaScript beside two nodes, and the test vectors of session tokens.
//!
//! A test whose program or driver is missing says so and does nothing: `pip install 'psycopg[binary]'`, `npm install pg`.
//! `PYTHONPATH` and `NODE_PATH` may name the directories of the drivers.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use pg_session::{KeyRing, SessionId, SessionManager, Signer, SigningKey, UserId};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixtures::{hit, in_time, read};
use crate::support::{World, eventually};

const VECTORS: &str = include_str!("../../../../examples/vectors/session_tokens.json");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// The services sign with this key, and verify tokens of `KEY`.
const NEW_KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

/// How a service is checked for its driver, checked against the vectors, and started. `{dir}` is its directory.
struct Language {
    program: &'static str,
    arguments: [&'static str; 2],
    driver: &'static str,
    vectors: &'static str,
    service: &'static str,
}

const PYTHON: Language = Language {
    program: "python3",
    arguments: ["-B", "-c"],
    driver: "import psycopg",
    vectors: "
import json, sys, uuid
sys.path.insert(0, '{dir}/python')
import service
vectors = json.load(open('{dir}/vectors/session_tokens.json', encoding='utf-8'))
for vector in vectors['valid']:
    token, session_id = vector['token'], uuid.UUID(vector['id'])
    assert service.verify(token) == session_id, vector
    assert service.issue(session_id, int(vector['version']), vector['issued_at']) == token, vector
for vector in vectors['invalid']:
    assert service.verify(vector['token']) is None, vector",
    service: "import runpy; runpy.run_path('{dir}/python/service.py', run_name='__main__')",
};

const NODE: Language = Language {
    program: "node",
    arguments: ["--no-warnings", "-e"],
    driver: "require('pg')",
    vectors: "
const assert = require('node:assert');
const { issue, verify } = require('{dir}/node/service.js');
const vectors = require('{dir}/vectors/session_tokens.json');
for (const vector of vectors.valid) {
    assert.equal(verify(vector.token), vector.id);
    assert.equal(issue(vector.id, vector.version, vector.issued_at), vector.token);
}
for (const vector of vectors.invalid) assert.equal(verify(vector.token), null, vector.why);",
    service: "require('{dir}/node/service.js').start()",
};

impl Language {
    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(self.program);
        command.args(self.arguments).arg(script.replace("{dir}", EXAMPLES)).env("SESSION_KEY", KEY);
        command
    }

    /// Whether the program and its driver are there. If not, the log of the tests says so.
    fn is_installed(&self) -> bool {
        let outcome = self.command(self.driver).stderr(Stdio::null()).status();
        let found = outcome.is_ok_and(|status| status.success());
        if !found {
            // Not captured, as what `println!` writes is.
            #[allow(
                clippy::explicit_write,
                reason = "the harness of the tests shows no eprintln of a test that passes"
            )]
            writeln!(std::io::stderr(), "skipped: {} cannot run \"{}\"", self.program, self.driver).unwrap();
        }
        found
    }
}

/// A running service, which ends with the test.
struct Service {
    process: Child,
    port: u16,
}

impl Service {
    async fn start(language: &Language, world: &World) -> Self {
        let url = format!("{}?options=-csearch_path%3D{}", world.url, world.schema);
        let mut command = language.command(language.service);
        command.env("SESSION_KEY", format!("{NEW_KEY},{KEY}"));
        command.env("DATABASE_URL", url).env("PORT", "0").stdout(Stdio::piped());
        let mut process = command.spawn().expect("the program starts");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let first = tokio::task::spawn_blocking(move || lines.next());
        let first = in_time("the service listens", first).await.unwrap().expect("a line").unwrap();
        let port = first.strip_prefix("listening on ").and_then(|port| port.parse().ok());
        Self { process, port: port.unwrap_or_else(|| panic!("{first}")) }
    }

    /// The status of a request, if there is an answer.
    async fn try_request(&self, token: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let head = format!("GET / HTTP/1.0\r\nHost: localhost\r\nCookie: __Host-session={token}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    /// The status, the value of the session's new cookie, and the body. Another application has set cookies, too.
    async fn request(&self, request: &str, token: &str, body: &str) -> (u16, Option<String>, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let head = format!(
            "{request} HTTP/1.0\r\nHost: localhost\r\nCookie: prefs={{\"a\":1}}; theme=x; __Host-session={token}; b[c]=d\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        in_time("the service answers", stream.read_to_string(&mut answer)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let cookie = head.split("__Host-session=").nth(1).and_then(|rest| rest.split(';').next());
        (status.expect("a status"), cookie.map(ToOwned::to_owned), body.to_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself. Then there is nothing to stop, and a request has failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn signer(keys: &[&str]) -> Signer {
    let keys: Vec<_> = keys.iter().map(|key| SigningKey::from_base64(key).unwrap()).collect();
    Signer::new(KeyRing::from_keys(&keys).unwrap())
}

#[test]
fn session_tokens_are_those_of_the_vectors() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    assert_eq!(text(&vectors, "key"), KEY);
    let signer = signer(&[KEY]);
    let valid = vectors["valid"].as_array().unwrap();
    for vector in valid {
        let verified = signer.verify(&text(vector, "token")).unwrap();
        assert_eq!(verified.id.expose().to_string(), text(vector, "id"));
        assert_eq!(verified.version.get().to_string(), text(vector, "version"));
        let seconds = vector["issued_at"].as_u64().unwrap();
        assert_eq!(verified.issued_at, UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(verified.key.to_string(), text(&vectors, "key_id"));
        let issued = signer.issue_at(verified.id, verified.version, verified.issued_at);
        assert_eq!(issued.expose(), text(vector, "token"));
    }
    let invalid = vectors["invalid"].as_array().unwrap();
    for vector in invalid {
        assert!(signer.verify(&text(vector, "token")).is_err(), "{}", vector["why"]);
    }
    assert!(valid.len() >= 4 && invalid.len() >= 20);
}

#[tokio::test]
async fn python_service_shares_sessions_with_two_nodes() {
    shares_sessions_with_two_nodes(&PYTHON).await;
}

#[tokio::test]
async fn javascript_service_shares_sessions_with_two_nodes() {
    shares_sessions_with_two_nodes(&NODE).await;
}

async fn shares_sessions_with_two_nodes(language: &Language) {
    if !language.is_installed() {
        return;
    }
    let checked = language.command(language.vectors).status().unwrap();
    assert!(checked.success(), "the service disagrees with the vectors");

    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let service = Service::start(language, &world).await;
    let (signer, ann) = (signer(&[KEY, NEW_KEY]), UserId::named("ann"));
    let operator = world.operator().await;

    // A session of a node is read, changed and ended by the service.
    let session = nodes[0].create(ann).set("theme", "light").await.unwrap();
    let (id, token) = (session.id(), signer.issue(session.id(), session.version()));
    let token = token.expose();
    let (status, _, body) = service.request("GET /", token, "").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, body["user"].as_str()), (200, Some(ann.as_uuid().to_string().as_str())));
    assert_eq!(body["attributes"]["theme"], "light");
    for node in &nodes {
        read(node, id).await;
    }
    assert_eq!(service.request("POST /theme", token, "dark").await.0, 204);
    for node in &nodes {
        eventually("the old version left the memory", async || {
            hit(node, id).is_none_or(|session| session.version().get() == 2)
        })
        .await;
        assert_eq!(read(node, id).await.get::<String>("theme").unwrap().as_deref(), Some("dark"));
    }
    assert_eq!(service.request("POST /theme", token, &"x".repeat(20_000)).await.0, 400, "too large");
    nodes[1].modify(id, |session| session.set("theme", "blue")).await.unwrap();
    let back = "UPDATE sessions SET last_accessed_at = now() - interval '1 hour'";
    operator.batch_execute(back).await.unwrap();
    assert!(service.request("GET /", token, "").await.2.contains("blue"));
    let accessed = "SELECT last_accessed_at > now() - interval '1 minute' FROM session_get($1)";
    let accessed = operator.query_one(accessed, &[&id.expose()]).await.unwrap();
    assert!(accessed.get::<_, bool>(0), "a session that only the service uses stays alive");
    let (status, cookie, _) = service.request("POST /logout", token, "").await;
    assert_eq!((status, cookie.as_deref()), (204, Some("")));
    for node in &nodes {
        eventually("the session left the memory", async || hit(node, id).is_none()).await;
        assert!(node.get(id).await.unwrap().is_none());
    }
    for request in ["GET /", "POST /theme"] {
        assert_eq!(service.request(request, token, "").await.0, 401, "{request}");
    }

    // A session of the service is read and ended by a node.
    let (status, cookie, _) = service.request("POST /login", "", "ann").await;
    let token = cookie.expect("a cookie");
    let verified = signer.verify(&token).expect("a token that a node accepts");
    let id: SessionId = verified.id;
    assert_eq!(verified.key, SigningKey::from_base64(NEW_KEY).unwrap().id(), "the first key signs");
    assert_eq!((status, read(&nodes[1], id).await.user_id()), (204, Some(ann)));
    let forged = token.replace(&token[40..42], if &token[40..42] == "AA" { "BB" } else { "AA" });
    assert_eq!(service.request("GET /", &forged, "").await.0, 401);
    assert_eq!(service.request("GET /", &token, "").await.0, 200);

    // It goes on after a client that leaves, and after the database has ended its idle connections.
    let mut client = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
    client
        .write_all(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nann")
        .await
        .unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%session_touch(id)%'
               AND pid <> pg_backend_pid() AND datname = current_database()";
    operator.batch_execute(end).await.unwrap();
    eventually("the service answers", async || service.try_request(&token).await == Some(200)).await;
    assert!(nodes[0].delete(id).await.unwrap());
    assert_eq!(service.request("GET /", &token, "").await.0, 401);
}
