//! Requests made from the OpenAPI document, with faults: wrong types, huge values, wrong methods, bad JSON, missing and doubled
//! headers, foreign hosts and sites, tricks with paths. While other clients sign in.
//!
//! The sequence follows from its seed. `FUZZ_SEED` and `FUZZ_REQUESTS` choose another one and a longer one. With `FUZZ_RATE_MIN`,
//! the other clients have to get so many answers a second.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use hyper::StatusCode;
use pg_session::{Session, UserId};
use serde_json::{Value, json};

use super::api::TOKEN;
use super::server::{Application, Server};

const SEED: u64 = 0x5eed;
/// In each of three runs.
const REQUESTS: u64 = 400;
/// Parallel clients that ask who is signed in.
const CLIENTS: usize = 4;
/// A value that no answer has, unless it asks for values.
const SECRET_VALUE: &str = "value-that-stays-on-the-server";

/// Xorshift: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("small")
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }
}

/// Who sends the requests.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Client {
    /// Without the token, or with a wrong one.
    Stranger,
    /// With the token.
    Program,
    /// A page of another site in the browser of a signed-in operator.
    ForeignPage,
}

struct Fuzzer<'a> {
    random: Random,
    client: Client,
    document: &'a Value,
    cookie: &'a str,
    handle: String,
}

/// One request, and what its operation may answer.
struct Attempt {
    bytes: Vec<u8>,
    /// `None` if the request is none of the document.
    documented: Option<Vec<u16>>,
    shows_values: bool,
}

impl Fuzzer<'_> {
    /// A text for a parameter or a member.
    fn text(&mut self) -> String {
        let long = "x".repeat(5_000);
        let handle = self.handle.clone();
        let texts: [&str; 18] = [
            "",
            "1",
            "-9223372036854775809",
            "00000000",
            &handle,
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "'; DROP TABLE sessions; --",
            "<script>alert(1)</script>",
            "\u{0}",
            "\u{202e}\u{1f4a3}",
            "a\r\nx-session-user: 1",
            "..",
            "../../etc/passwd",
            "%",
            "{{7*7}}",
            "null",
            "true",
            &long,
        ];
        self.random.pick(&texts).to_owned()
    }

    /// A value that fits the schema, or does not.
    fn value(&mut self, name: &str, schema: &Value) -> Value {
        if self.random.one_in(4) {
            let long = Value::from("x".repeat(9_000));
            let deep = (0..200).fold(Value::Null, |inner, _| json!([inner]));
            let wrong = [
                json!(null),
                json!(-1),
                json!(1e300),
                json!({}),
                json!([]),
                json!("true"),
                json!(0),
                long,
                deep,
            ];
            return wrong[self.random.below(wrong.len())].clone();
        }
        if let Some(choices) = schema["enum"].as_array() {
            return choices[self.random.below(choices.len())].clone();
        }
        match schema["type"].as_str().or_else(|| schema["type"][0].as_str()) {
            // Nothing that is alive may end by an order that is right.
            Some("boolean") if name == "all" => Value::from(self.client != Client::Program),
            Some("boolean") => Value::from(self.random.one_in(2)),
            _ => Value::from(self.text()),
        }
    }

    fn body(&mut self, schema: &Value) -> Vec<u8> {
        match self.random.below(12) {
            0 => b"{".to_vec(),
            1 => b"\xff\xfe\x00".to_vec(),
            2 => [b"[".repeat(8_000), b"]".repeat(8_000)].concat(),
            3 => json!({ "user": "x".repeat(40_000), "cause": "admin" }).to_string().into_bytes(),
            4 => br#"{"user":"unknown-user","user":"1","cause":"admin"}"#.to_vec(),
            _ => {
                let schema = match schema["$ref"].as_str() {
                    Some(name) => self.document.pointer(&name[1..]).expect("a schema").clone(),
                    None => schema.clone(),
                };
                let mut order = serde_json::Map::new();
                for (name, member) in schema["properties"].as_object().into_iter().flatten() {
                    let is_required =
                        schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
                    if is_required != self.random.one_in(4) {
                        order.insert(name.clone(), self.value(name, member));
                    }
                }
                if self.random.one_in(8) {
                    order.insert("unknown".to_owned(), Value::from(self.text()));
                }
                Value::from(order).to_string().into_bytes()
            }
        }
    }

    fn headers(&mut self) -> (String, bool) {
        let mut lines = String::new();
        let mut is_plain = true;
        let bearer = format!("authorization: Bearer {TOKEN}\r\n");
        match self.client {
            Client::Program => lines.push_str(&bearer),
            Client::ForeignPage => {
                lines.push_str(&format!("cookie: {}\r\n", self.cookie));
                let foreign = [
                    "sec-fetch-site: cross-site",
                    "sec-fetch-site: same-site",
                    "origin: http://evil.example",
                    "origin: null",
                ];
                lines.push_str(&format!("{}\r\n", self.random.pick(&foreign)));
            }
            Client::Stranger => {
                let wrong = TOKEN.to_uppercase();
                let tries = [
                    String::new(),
                    "authorization:\r\n".to_owned(),
                    format!("authorization: Bearer {wrong}\r\n"),
                    format!("authorization: Basic {TOKEN}\r\n"),
                    format!("{bearer}{bearer}"),
                    format!("authorization: Bearer {TOKEN} {TOKEN}\r\n"),
                    format!("x-authorization: Bearer {TOKEN}\r\n"),
                    format!("cookie: pg-session-console={TOKEN}\r\n"),
                    "cookie: pg-session-console=\r\nx-forwarded-user: admin\r\n".to_owned(),
                ];
                lines.push_str(&tries[self.random.below(tries.len())]);
            }
        }
        if self.random.one_in(5) {
            is_plain = false;
            let long = format!("x-long: {}\r\n", "x".repeat(10_000));
            let odd = [
                "x-forwarded-for: 127.0.0.1\r\n",
                "x-http-method-override: DELETE\r\n",
                "x-forwarded-method: POST\r\n",
                "content-length: 5\r\n",
                "transfer-encoding: chunked\r\n",
                "transfer-encoding: chunked, identity\r\n",
                "expect: 100-continue\r\n",
                "upgrade: websocket\r\nconnection: upgrade\r\n",
                "host: evil.example\r\n",
                "content-encoding: gzip\r\n",
                "accept: image/png\r\n",
                "x:\u{1}\r\n",
                &long,
            ];
            lines.push_str(self.random.pick(&odd));
        }
        (lines, is_plain)
    }

    fn attempt(&mut self) -> Attempt {
        let document = self.document;
        let paths: Vec<(&String, &Value)> = document["paths"].as_object().expect("paths").iter().collect();
        let (path, methods) = paths[self.random.below(paths.len())];
        let (method, operation) =
            methods.as_object().and_then(|all| all.iter().next()).expect("an operation");
        let mut target = format!("/api/v1{path}");
        let mut shows_values = false;
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().expect("a name");
            let value = match self.value(name, &parameter["schema"]) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            let value = encoded(&value);
            if parameter["in"] == "path" {
                target = target.replace(&format!("{{{name}}}"), &value);
            } else if self.random.one_in(2) {
                let mark = if target.contains('?') { '&' } else { '?' };
                target.push_str(&format!("{mark}{name}={value}"));
                shows_values |= name == "values";
            }
        }
        let mut method = method.to_uppercase();
        let mut is_known = true;
        match self.random.below(10) {
            0 => {
                method = self
                    .random
                    .pick(&["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "HEAD", "get", "X"])
                    .to_owned();
                is_known = false;
            }
            1 => {
                let tricks: [(&str, &str); 7] = [
                    ("/api/v1", "/api/v1/../v1"),
                    ("/api/v1", "//api/v1"),
                    ("/api/v1", "/api/v1/."),
                    ("/api", "/live/../api"),
                    ("/api", "/%61pi"),
                    ("/v1", "/v1%2f.."),
                    ("/api/v1", "http://evil.example/api/v1"),
                ];
                let (old, new) = tricks[self.random.below(tricks.len())];
                target = target.replacen(old, new, 1);
                is_known = false;
            }
            2 if self.client == Client::ForeignPage => {
                target = "/console/revocations".to_owned();
                method = "POST".to_owned();
                is_known = false;
            }
            _ => {}
        }
        let schema = operation["requestBody"]["content"]["application/json"]["schema"].clone();
        let body = if schema.is_null() && self.random.one_in(2) { Vec::new() } else { self.body(&schema) };
        let content_type = if self.random.one_in(8) { "text/plain" } else { "application/json" };
        let host = if self.random.one_in(8) { "evil.example" } else { "localhost" };
        let (headers, is_plain) = self.headers();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
             content-length: {}\r\n{headers}\r\n",
            body.len()
        );
        let statuses = || {
            let responses = operation["responses"].as_object().expect("responses");
            responses.keys().map(|status| status.parse().expect("a status")).collect()
        };
        let documented = (is_known && is_plain && !target.contains("//")).then(statuses);
        Attempt { bytes: [head.into_bytes(), body].concat(), documented, shows_values }
    }
}

/// Each byte that is not a letter or a digit.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().map(byte).collect()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

async fn run(client: Client, server: &Server, document: &Value, cookie: &str, sessions: &[Session]) {
    let seed = setting("FUZZ_SEED", SEED);
    let handle = sessions[0].id().handle().to_string();
    let mut fuzzer = Fuzzer { random: Random(seed), client, document, cookie, handle };
    let mut statuses = std::collections::BTreeMap::<u16, u64>::new();
    for number in 0..setting("FUZZ_REQUESTS", REQUESTS) {
        let attempt = fuzzer.attempt();
        let (status, answer) = server.exchange(&attempt.bytes).await;
        let sent = String::from_utf8_lossy(&attempt.bytes);
        let context =
            format!("{client:?}, FUZZ_SEED={seed}, request {number}: {sent:.2000}\n\n{answer:.2000}");
        let Some(status) = status else { panic!("no answer: {context}") };
        *statuses.entry(status).or_default() += 1;
        assert!(status < 500, "{context}");
        for session in sessions {
            assert!(!answer.contains(&session.id().expose().to_string()), "a session id: {context}");
        }
        assert!(!answer.contains(TOKEN), "the token: {context}");
        assert!(attempt.shows_values || !answer.contains(SECRET_VALUE), "a value: {context}");
        let hidden = ["x-session-user:", "panicked", "src/", "evil.example"];
        assert!(hidden.iter().all(|text| !answer.contains(text)), "{context}");
        match client {
            Client::Program => {
                if let Some(documented) = attempt.documented {
                    assert!(documented.contains(&status), "not documented: {context}");
                }
            }
            Client::Stranger | Client::ForeignPage => assert!(status >= 400, "let in: {context}"),
        }
    }
    println!("{client:?}: answers by status: {statuses:?}");
    assert!(statuses.len() > 2, "the requests differ: {statuses:?}");
    if client == Client::Program {
        assert!(statuses.contains_key(&200), "some requests are right: {statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fuzzed_requests_get_no_500_leak_nothing_change_nothing() {
    let app = Application::start("fuzz").await;
    let mut sessions = Vec::new();
    for user in ["kept-a", "kept-b", "kept-c"] {
        let login = app.manager.create(UserId::named(user)).set("card", SECRET_VALUE);
        sessions.push(login.await.unwrap());
    }
    let signed_in = app.cookie(&sessions[2]);
    let server = app.serve_with(
        &["--console", "--allow-changes", "--client-timeout", "1s"],
        &[("PG_SESSION_ADMIN_TOKEN", TOKEN)],
    );
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let entry = server.send(hyper::Method::POST, "/console/sign-in", &form, &format!("token={TOKEN}")).await;
    let cookie =
        entry.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie").to_owned();
    let bearer = format!("Bearer {TOKEN}");
    let document =
        server.send(hyper::Method::GET, "/api/v1/openapi.json", &[("authorization", &bearer)], "").await;
    let document: Value = serde_json::from_str(&document.body).expect("JSON");

    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    let load = async {
        let client = async || {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(server.auth(&signed_in).await.status, StatusCode::OK);
                asked.fetch_add(1, Ordering::Relaxed);
            }
        };
        let clients: [_; CLIENTS] = std::array::from_fn(|_| client());
        futures_util::future::join_all(clients).await
    };
    let hostile = async {
        // What ends by an order that is right is the session with the first handle, and only then.
        for client in [Client::Stranger, Client::ForeignPage] {
            run(client, &server, &document, &cookie, &sessions).await;
            for session in &sessions {
                let kept = app.manager.get(session.id()).bypass_cache().await.unwrap();
                assert!(kept.is_some(), "{client:?} has ended a session");
            }
        }
        run(Client::Program, &server, &document, &cookie, &sessions).await;
        for session in &sessions[1..] {
            assert!(app.manager.get(session.id()).bypass_cache().await.unwrap().is_some());
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, hostile);
    let rate = asked.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} requests for authentication per second beside it");
    assert!(asked.load(Ordering::Relaxed) > 100, "the load ran");
    assert!(rate >= setting("FUZZ_RATE_MIN", 0) as f64, "{rate:.0} answers a second");
    server.stop();
}
