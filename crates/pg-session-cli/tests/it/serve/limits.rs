//! What clients may take of the program: connections, bytes and time. Each limit is reached, and others are served.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use nix::sys::signal::Signal;
use pg_session::UserId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::api::TOKEN;
use super::server::Application;
use super::wire::read_answer;
use crate::support::{POLL_INTERVAL, WAIT_MAX};

const ADMIN: [(&str, &str); 1] = [("PG_SESSION_ADMIN_TOKEN", TOKEN)];

#[tokio::test]
async fn one_connection_too_many_waits_until_another_ends() {
    let app = Application::start("connections").await;
    let server = app.serve(&["--connections-max", "3"]);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        open.push(stream);
    }
    let mut waiting = server.connect().await;
    waiting.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(300), waiting.read(&mut byte)).await;
    assert!(early.is_err(), "it is served beyond the limit");
    drop(open.pop());
    assert_eq!(read_answer(&mut waiting).await.0, Some(200));
    drop(open);
    server.stop();
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let app = Application::start("slow").await;
    let server = app.serve_with(&["--client-timeout", "300ms", "--connections-max", "4"], &ADMIN);
    let silent: [&[u8]; 3] = [b"", b"GET /live HT", b"GET /live HTTP/1.1\r\nhost: a\r\nx: "];
    let mut slow = Vec::new();
    for beginning in silent {
        let mut stream = server.connect().await;
        stream.write_all(beginning).await.unwrap();
        slow.push(stream);
    }
    // A body that never comes.
    let head = format!(
        "POST /api/v1/revocations HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{{"
    );
    let mut body = server.connect().await;
    body.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    // All connections are taken. Each of them ends, and then others are served.
    assert_eq!(server.get("/live").await.status, StatusCode::OK);
    for stream in &mut slow {
        let (status, answer) = read_answer(stream).await;
        assert!(matches!(status, None | Some(408)), "{answer}");
    }
    let (status, answer) = read_answer(&mut body).await;
    assert_eq!(status, Some(400), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    server.stop();
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused() {
    let app = Application::start("bodies").await;
    let server = app.serve_with(&["--console", "--allow-changes"], &ADMIN);
    let large = 17 * 1_024;
    for (path, content_type, expected) in [
        ("/api/v1/revocations", "application/json", 413),
        // No form without its end is read, so no token in it is right.
        ("/console/sign-in", "application/x-www-form-urlencoded", 401),
    ] {
        for length in [format!("content-length: {large}"), "transfer-encoding: chunked".to_owned()] {
            let body = match length.starts_with("content") {
                true => "x".repeat(large),
                false => format!("{large:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(large)),
            };
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\
                 content-type: {content_type}\r\n{length}\r\n\r\n{body}"
            );
            let (status, answer) = server.exchange(request.as_bytes()).await;
            assert_eq!(status, Some(expected), "{path}, {length}: {answer}");
        }
    }
    // The question of a proxy has no body. One that is sent all the same is not read.
    let request =
        format!("POST /auth HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n{}", "x".repeat(1_000));
    let mut stream = server.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.0, Some(401));
    server.stop();
}

#[tokio::test]
async fn a_head_over_64_kib_is_refused_and_none_below() {
    let app = Application::start("heads").await;
    let server = app.serve(&[]);
    let max = 64 * 1_024;
    let long_header = |bytes: usize| {
        let (begin, end) = ("GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: ", "\r\n\r\n");
        format!("{begin}{}{end}", "x".repeat(bytes - begin.len() - end.len()))
    };
    let long_path = |bytes: usize| {
        let (begin, end) = ("GET /live?", " HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        format!("{begin}{}{end}", "x".repeat(bytes - begin.len() - end.len()))
    };
    for (head, expected) in [
        (long_header(max), Some(200)),
        (long_header(max + 1), Some(431)),
        (long_header(70_000), Some(431)),
        (long_path(max), Some(200)),
        (long_path(max + 1), Some(431)),
        // The path alone is longer than any that HTTP libraries take.
        (long_path(70_000), Some(431)),
    ] {
        let (status, answer) = server.exchange(head.as_bytes()).await;
        assert_eq!(status, expected, "{} bytes: {answer:.200}", head.len());
    }
    server.stop();
}

async fn wait_until_refused(address: &str) {
    let began = Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(began.elapsed() < WAIT_MAX, "the program still accepts connections");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_the_signal() {
    let app = Application::start("in_flight").await;
    let session = app.manager.create(UserId::from(1)).await.unwrap();
    let mut server = app.serve_with(&[], &ADMIN);
    let order = br#"{"user":"1","cause":"admin"}"#;
    let head = format!(
        "POST /api/v1/revocations HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        order.len()
    );
    let mut stream = server.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    // Another request, so that the program has read the first head.
    assert_eq!(server.get("/live").await.status, StatusCode::OK);
    server.program.signal(Signal::SIGTERM);
    wait_until_refused(server.address()).await;
    stream.write_all(order).await.unwrap();
    let (status, answer) = read_answer(&mut stream).await;
    assert_eq!(status, Some(200), "{answer}");
    assert!(app.manager.get(session.id()).bypass_cache().await.unwrap().is_none());
    let end = server.program.finish();
    assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
}
