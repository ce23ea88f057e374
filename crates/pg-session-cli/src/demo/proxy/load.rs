//! A client of HTTP/1.1 that asks for one page again and again. It reads what nginx sends to it, and no more.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::failure::{Failure, ensure};

const CONNECTIONS: usize = 16;
const LENGTH: Duration = Duration::from_secs(1);
/// Bytes of an answer, at most.
const ANSWER_MAX: usize = 16 * 1024;

/// Status and body.
pub(super) async fn get(addr: SocketAddr, path: &str, headers: &[&str]) -> Result<(u16, String), Failure> {
    let mut stream = TcpStream::connect(addr).await?;
    ask(&mut stream, &request(path, headers), &mut Vec::new()).await
}

/// How many requests are answered in a second, with status 200.
pub(super) async fn per_second(addr: SocketAddr, path: &str, header: &str) -> Result<u64, Failure> {
    let headers = if header.is_empty() { &[][..] } else { &[header] };
    let request = request(path, headers);
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for _ in 0..CONNECTIONS {
        let request = request.clone();
        clients.spawn(async move {
            let mut stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let (mut buffer, mut answers) = (Vec::new(), 0_u64);
            while began.elapsed() < LENGTH {
                let (status, _) = ask(&mut stream, &request, &mut buffer).await?;
                ensure(status == 200, || format!("status {status} under load"))?;
                answers += 1;
            }
            Ok::<_, Failure>(answers)
        });
    }
    let mut sum = 0;
    while let Some(answers) = clients.join_next().await {
        sum += answers??;
    }
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(sum * 1_000 / milliseconds.max(1))
}

fn request(path: &str, headers: &[&str]) -> Vec<u8> {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: demo.example\r\n{lines}\r\n").into_bytes()
}

async fn ask(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> Result<(u16, String), Failure> {
    let broken = || Failure::new("nginx sent no complete answer");
    stream.write_all(request).await?;
    buffer.clear();
    loop {
        if let Some(answer) = answer_in(buffer) {
            return Ok(answer);
        }
        let read = stream.read_buf(buffer).await?;
        ensure(read > 0 && buffer.len() <= ANSWER_MAX, || broken().to_string())?;
    }
}

/// `None` if it is not complete.
fn answer_in(bytes: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.get(9..12)?.parse().ok()?;
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    if let Some((_, length)) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        let length: usize = length.trim().parse().ok()?;
        return (body.len() >= length).then(|| (status, body.to_owned()));
    }
    // In chunks: one and the last.
    let (_, rest) = body.split_once("\r\n")?;
    rest.strip_suffix("\r\n0\r\n\r\n").map(|chunk| (status, chunk.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_answers_are_read() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes";
        for end in 0..whole.len() {
            assert_eq!(answer_in(&whole.as_bytes()[..end]), None, "{end}");
        }
        assert_eq!(answer_in(whole.as_bytes()), Some((200, "yes".to_owned())));
        let chunked = "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n";
        assert_eq!(answer_in(&chunked.as_bytes()[..chunked.len() - 1]), None);
        assert_eq!(answer_in(chunked.as_bytes()), Some((401, "no!".to_owned())));
    }
}
