//! HTTP/1.1 as bytes: requests that a library would not send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::Server;
use crate::support::WAIT_MAX;

impl Server {
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("an address")
    }

    /// A connection of its own.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.expect("a connection")
    }

    /// The status, or `None` if the connection ended without an answer, and the whole answer.
    pub async fn exchange(&self, request: &[u8]) -> (Option<u16>, String) {
        let mut stream = self.connect().await;
        // An error means that the server has closed before it read all.
        let _ = stream.write_all(request).await;
        read_answer(&mut stream).await
    }
}

/// Until the server closes.
pub async fn read_answer(stream: &mut TcpStream) -> (Option<u16>, String) {
    let mut answer = Vec::new();
    // An error is a reset: the server did not read all. What it has answered counts.
    let read = tokio::time::timeout(WAIT_MAX, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection ends in time");
    let text = String::from_utf8_lossy(&answer);
    // The invitation to send the body comes before the answer.
    let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text).to_owned();
    (text.get(9..12).and_then(|code| code.parse().ok()), text)
}
