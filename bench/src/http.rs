//! A small HTTP client for load: one connection, one request at a time, with the cookie of the session it asks for.
//!
//! The client shares the processors with the server. So it writes ready bytes and parses only the head of a response.

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of the longest response that is accepted.
const RESPONSE_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 32;

/// A browser's cookie of one session.
#[derive(Debug, Default)]
pub(crate) struct Jar {
    cookie: String,
}

/// A connection to the application, kept open.
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    response: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("no connection to the application")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), response: Vec::new() })
    }

    /// Sends one request, keeps the cookie that the response sets, and returns the body.
    ///
    /// # Errors
    /// If the status is not 200.
    pub(crate) async fn send(&mut self, method: &str, path: &str, jar: &mut Jar) -> anyhow::Result<&str> {
        self.request.clear();
        let line = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: same-origin\r\n");
        self.request.extend_from_slice(line.as_bytes());
        if !jar.cookie.is_empty() {
            self.request.extend_from_slice(b"cookie: ");
            self.request.extend_from_slice(jar.cookie.as_bytes());
            self.request.extend_from_slice(b"\r\n");
        }
        let length = if method == "GET" { "\r\n" } else { "content-length: 0\r\n\r\n" };
        self.request.extend_from_slice(length.as_bytes());
        self.stream.write_all(&self.request).await?;
        let body = self.receive(jar).await.with_context(|| format!("{method} {path}"))?;
        Ok(std::str::from_utf8(&self.response[body..])?)
    }

    /// Where the body begins in the buffer.
    async fn receive(&mut self, jar: &mut Jar) -> anyhow::Result<usize> {
        self.response.clear();
        loop {
            ensure!(self.response.len() < RESPONSE_MAX, "the response is too long");
            ensure!(
                self.stream.read_buf(&mut self.response).await? > 0,
                "the application closed the connection"
            );
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut head = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(body) = head.parse(&self.response)? else { continue };
            let mut length = 0;
            for header in head.headers.iter() {
                if header.name.eq_ignore_ascii_case("content-length") {
                    length = std::str::from_utf8(header.value)?.parse()?;
                } else if header.name.eq_ignore_ascii_case("set-cookie") {
                    let cookie = std::str::from_utf8(header.value)?;
                    let pair = cookie.split(';').next().unwrap_or_default();
                    pair.clone_into(&mut jar.cookie);
                }
            }
            if self.response.len() < body + length {
                continue;
            }
            if head.code != Some(200) {
                bail!("status {:?}: {}", head.code, String::from_utf8_lossy(&self.response[body..]));
            }
            return Ok(body);
        }
    }
}
