//! Health, metrics, limits, and the end.

use std::time::Instant;

use hyper::{Method, StatusCode};
use nix::sys::signal::Signal;
use pg_sandbox::Proxy;
use pg_session::UserId;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{Application, Server};
use crate::support::{POLL_INTERVAL, Program, WAIT_MAX};

#[tokio::test]
async fn metrics_and_health_are_for_machines() {
    let app = Application::start("health").await;
    let session = app.manager.create(UserId::from(1)).await.unwrap();
    let server = app.serve(&[]);
    assert_eq!(server.get("/live").await.body, "live\n");
    assert_eq!(server.get("/ready").await.body, "ready: in sync\n");
    let trust: Value = serde_json::from_str(&server.get("/trust").await.body).unwrap();
    assert_eq!((&trust["trusted"], &trust["error"]), (&true.into(), &Value::Null));
    assert!(trust["trusted_for_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{trust}");

    let cookie = app.cookie(&session);
    for _ in 0..3 {
        assert_eq!(server.auth(&cookie).await.status, StatusCode::OK);
    }
    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "# TYPE pg_session_cache_hits_total counter",
        "pg_session_cache_hits_total 2",
        "pg_session_cache_misses_total 1",
        "pg_session_trusted 1",
    ] {
        assert!(metrics.body.lines().any(|found| found == line), "{line}: {}", metrics.body);
    }
    let secrets = [session.id().expose().to_string(), cookie];
    assert!(secrets.iter().all(|secret| !metrics.body.contains(secret)), "{}", metrics.body);

    for (method, path, status) in [
        (Method::POST, "/live", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/", StatusCode::NOT_FOUND),
        (Method::GET, "/authentic", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(server.send(method, path, &[], "").await.status, status, "{path}");
    }
    server.stop();
}

async fn wait_for_trust(server: &Server, status: StatusCode) {
    let began = Instant::now();
    while server.get("/trust").await.status != status {
        assert!(began.elapsed() < WAIT_MAX, "/trust does not become {status}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_the_listener_is_said_without_a_log() {
    let app = Application::start("loss").await;
    let wire = Proxy::start(app.world.address()).await.unwrap();
    let listen_url = wire.url_for(&app.world.url);
    let mut server = app.serve(&["--listen-url", &listen_url]);
    let session = app.manager.create(UserId::from(1)).await.unwrap();
    assert_eq!(server.auth(&app.cookie(&session)).await.status, StatusCode::OK);
    wire.refuse();
    wire.cut();
    wait_for_trust(&server, StatusCode::SERVICE_UNAVAILABLE).await;
    wire.heal();
    wait_for_trust(&server, StatusCode::OK).await;
    server.program.signal(Signal::SIGTERM);
    let end = server.program.finish();
    assert_eq!(end.code, Some(0), "{end:?}");
    let lines: Vec<&str> = end.err.lines().collect();
    assert!(lines[0].contains("Z This node has lost its listener, and reads each session"), "{end:?}");
    assert!(lines[0].contains("the listener is not connected"), "the cause: {end:?}");
    assert!(lines[lines.len() - 1].ends_with("This node answers from memory again."), "{end:?}");
    assert!(!end.err.contains(&session.id().expose().to_string()), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_json_the_address_and_a_loss_are_json() {
    let app = Application::start("loss_json").await;
    let wire = Proxy::start(app.world.address()).await.unwrap();
    let listen_url = wire.url_for(&app.world.url);
    let args = ["serve", "--json", "--listen", "127.0.0.1:0", "--schema", &app.schema];
    let place = ["--database-url", &app.world.url, "--listen-url", &listen_url];
    let mut program = Program::start_with(&[&args[..], &place].concat(), &[("SESSION_KEY", &app.key)]);
    program.read_until(&["\"event\":\"serving\"", "\"url\":\"http://127.0.0.1:"]);
    wire.refuse();
    wire.cut();
    program.read_until(&["\"event\":\"trust\"", "\"trusted\":false", "the listener is not connected"]);
    wire.heal();
    let out = program.read_until(&["\"trusted\":true", "\"error\":null"]);
    assert!(out.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{out}");
    program.signal(Signal::SIGTERM);
    let end = program.finish();
    assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
}

#[tokio::test]
async fn heads_without_end_and_nonsense_are_cut_off() {
    let app = Application::start("limits").await;
    let server = app.serve(&[]);
    let address = server.url.strip_prefix("http://").expect("an address");
    let endless = format!("GET /live HTTP/1.1\r\nhost: a\r\nx: {}", "x".repeat(70_000));
    let many = format!("GET /live HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    for (head, expected) in
        [(&endless, "HTTP/1.1 431 "), (&many, "HTTP/1.1 431 "), (&"\0\r\n\r\n".to_owned(), "HTTP/1.1 400 ")]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // It is closed: an error is a reset, because not all was read.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(expected), "{answer}");
    }
    assert_eq!(server.get("/live").await.status, StatusCode::OK);
    server.stop();
}

#[tokio::test]
async fn a_signal_ends_idle_connections_and_the_node() {
    let app = Application::start("signal").await;
    let server = app.serve(&[]);
    let mut idle = TcpStream::connect(server.url.strip_prefix("http://").expect("an address")).await.unwrap();
    idle.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // With exit code 0, and without a complaint.
    server.stop();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
}
