//! The example with server-sent events: the last one says why the stream ends, and no other stream begins.

use pg_sandbox::Sandbox;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http::browser::COOKIE_NAME;
use crate::http::example::Server;
use crate::http::world::in_time;
use crate::live::logged_in;

/// A stream of server-sent events ends with an event that says why.
pub async fn a_stream_of_events_says_why_it_ends(name: &str) {
    let sandbox = Sandbox::start().expect("PostgreSQL starts");
    let (_server, addr) = Server::start(name, &sandbox.url());
    let mut laptop = logged_in(addr, "ann").await;
    let mut stream = TcpStream::connect(addr).await.expect("the server accepts");
    let cookie = format!("{COOKIE_NAME}={}", laptop.token().expect("a cookie"));
    let request = format!("GET /events HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut received = String::new();
    read_until(&mut stream, &mut received, "data: news 1").await;
    laptop.post("/logout-everywhere").await;
    read_until(&mut stream, &mut received, "event: closed\ndata: everywhere").await;
    // The last chunk: the response is complete.
    read_until(&mut stream, &mut received, "\r\n0\r\n\r\n").await;
    // A browser asks again by itself, until it gets another status than 200.
    let mut again = TcpStream::connect(addr).await.expect("the server accepts");
    again.write_all(request.as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    read_until(&mut again, &mut answer, "\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

async fn read_until(stream: &mut TcpStream, received: &mut String, text: &str) {
    let mut buffer = [0; 4_096];
    while !received.contains(text) {
        let count = in_time(text, stream.read(&mut buffer)).await.expect("the stream is read");
        assert_ne!(count, 0, "ended before {text:?}: {received}");
        received.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}
