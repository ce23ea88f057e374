//! The examples with sockets: they close with the session, with the reason, on every node.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join;
use futures_util::{SinkExt as _, StreamExt as _};
use pg_sandbox::Sandbox;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_tungstenite::tungstenite::{Error, http::StatusCode};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::http::browser::{Browser, COOKIE_NAME};
use crate::http::example::Server;
use crate::http::world::in_time;

/// Sockets on each node.
const SOCKETS: usize = 100;
/// The default of `trust_window`, and what a close may take beside it.
const CLOSED_WITHIN: Duration = Duration::from_millis(6_250);

pub type Socket = WebSocketStream<TcpStream>;

pub fn fits_sixty_lines(example: &str) {
    let lines =
        example.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with("//"));
    assert!(lines.clone().count() <= 60, "{} lines of code", lines.count());
}

/// Hundreds of sockets on three nodes close when the user logs out everywhere on one of them.
pub async fn sockets_close_with_the_session_on_every_node(name: &str) {
    let sandbox = Sandbox::start().expect("PostgreSQL starts");
    let nodes = [(); 3].map(|()| Server::start(name, &sandbox.url()));
    let (laptop, mut phone) = (logged_in(nodes[0].1, "ann").await, logged_in(nodes[1].1, "ann").await);
    let other = logged_in(nodes[2].1, "bob").await;
    let refused = open(nodes[0].1, "/socket", None).await.expect_err("there is no session");
    assert!(matches!(refused, Error::Http(answer) if answer.status() == StatusCode::UNAUTHORIZED));

    let mut sockets = Vec::new();
    for (_, addr) in &nodes {
        for _ in 0..SOCKETS {
            sockets.push(open(*addr, "/socket", laptop.token()).await.expect("a socket"));
        }
    }
    let mut spared = open(nodes[0].1, "/socket", other.token()).await.expect("a socket");
    for socket in &mut sockets {
        assert!(matches!(next(socket).await, Message::Text(text) if text.starts_with("news")));
    }

    assert_eq!(phone.post("/logout-everywhere").await, "2 logged out");
    let acknowledged = Instant::now();
    let closing = sockets.into_iter().map(async |mut socket| {
        loop {
            if let Message::Close(frame) = next(&mut socket).await {
                let frame = frame.expect("a reason");
                assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4401, "everywhere"));
                return acknowledged.elapsed();
            }
        }
    });
    let mut took: Vec<Duration> = futures_util::future::join_all(closing).await;
    took.sort_unstable();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "from the answer to the close of {} sockets: median {median:?}, longest {longest:?}",
        took.len()
    );
    assert!(longest <= CLOSED_WITHIN, "{longest:?}");
    spared.send(Message::text("still there")).await.expect("the socket is open");
    assert!(matches!(next(&mut spared).await, Message::Text(_)), "another user's");
}

/// Two clients send all the time. One reads, and gets the reason of the close. The other one ignores the close frame.
pub async fn clients_that_send_all_the_time_are_closed(name: &str) {
    let sandbox = Sandbox::start().expect("PostgreSQL starts");
    let (_server, addr) = Server::start(name, &sandbox.url());
    let mut laptop = logged_in(addr, "ann").await;
    let socket = async || {
        let mut socket = open(addr, "/socket", laptop.token()).await.expect("a socket");
        assert!(matches!(next(&mut socket).await, Message::Text(_)));
        socket
    };
    let polite = tokio::spawn(send_until_closed(socket().await));
    let rude = tokio::spawn(send_until_cut_off(socket().await.into_inner()));
    laptop.post("/logout-everywhere").await;
    let acknowledged = Instant::now();
    let frame = in_time("the first has its reason", polite).await.expect("no panic");
    let reason_after = acknowledged.elapsed();
    in_time("the other is cut off", rude).await.expect("no panic");
    let cut_off = acknowledged.elapsed();
    println!(
        "from the answer to the close frame: {reason_after:?}, to the end of the connection: {cut_off:?}"
    );
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4401, "everywhere"));
    assert!(reason_after.max(cut_off) <= CLOSED_WITHIN, "{reason_after:?}, {cut_off:?}");
}

async fn send_until_closed(socket: Socket) -> CloseFrame {
    let (mut sender, mut receiver) = socket.split();
    // A send fails when the close frame was read.
    let sending = async { while sender.send(Message::text("x".repeat(1_000))).await.is_ok() {} };
    let receiving = async {
        loop {
            let message = receiver.next().await.expect("a close frame comes first").expect("a message");
            if let Message::Close(frame) = message {
                return frame.expect("a reason");
            }
        }
    };
    join(sending, receiving).await.1
}

async fn send_until_cut_off(mut stream: TcpStream) {
    // A text of 100 bytes, masked by zeroes.
    let mut frame = vec![0x81, 0x80 | 100, 0, 0, 0, 0];
    frame.extend([b'x'; 100]);
    let (mut reader, mut writer) = stream.split();
    let sending = async { while writer.write_all(&frame).await.is_ok() {} };
    let receiving = async {
        let mut buffer = [0; 4_096];
        while reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    };
    join(sending, receiving).await;
}

pub async fn logged_in(addr: SocketAddr, user: &str) -> Browser {
    let mut browser = Browser::new(addr);
    assert_eq!(browser.post(&format!("/login/{user}")).await, "signed in");
    browser
}

pub async fn open(addr: SocketAddr, path: &str, token: Option<&str>) -> Result<Socket, Error> {
    let mut request = format!("ws://{addr}{path}").into_client_request()?;
    if let Some(token) = token {
        let cookie = format!("{COOKIE_NAME}={token}").parse().expect("a header");
        request.headers_mut().insert("cookie", cookie);
    }
    let stream = TcpStream::connect(addr).await?;
    Ok(in_time("the handshake", client_async(request, stream)).await?.0)
}

async fn next(socket: &mut Socket) -> Message {
    in_time("a message", socket.next()).await.expect("the socket is open").expect("a message")
}
