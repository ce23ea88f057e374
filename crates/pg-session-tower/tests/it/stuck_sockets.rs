//! Clients that hinder the end of their sockets and streams: one does not read, one has gone without a word.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::serve::ListenerExt as _;
use futures_util::future::join;
use futures_util::{StreamExt as _, stream};
use pg_sandbox::Proxy;
use pg_session::Session as CoreSession;
use pg_session_tower::prelude::*;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::edge;
use crate::http::browser::COOKIE_NAME;
use crate::http::world::{Site, eventually, in_time};
use crate::live::{Socket, open};

/// More than the buffers of a connection hold.
const TOO_LARGE: usize = 32 << 20;
const SILENT_MAX: Duration = Duration::from_secs(1);
/// The trust window of a site, and what a close may take beside it.
const CLOSED_WITHIN: Duration = Duration::from_millis(6_250);

/// As the example `axum_live`, with messages of this size.
async fn socket<const BYTES: usize>(
    session: Session,
    upgrade: WebSocketUpgrade,
) -> Result<Response, SessionError> {
    let large = stream::repeat(()).map(|()| "x".repeat(BYTES));
    let out = session.guard(large).await?.expect("a session");
    let pin = out.pin().clone();
    let messages = out.map(|item| match item {
        Ok(text) => Message::text(text),
        Err(closed) => {
            let (code, reason) = (closed.close_code(), closed.to_string().into());
            Message::Close(Some(CloseFrame { code, reason }))
        }
    });
    Ok(upgrade.on_upgrade(async move |socket| {
        let (sender, receiver) = socket.split();
        let receiving = receiver.for_each(async |_| ());
        drop(pin.limit(join(messages.map(Ok).forward(sender), receiving)).await);
    }))
}

async fn events(session: Session) -> Result<Response, SessionError> {
    let large = stream::repeat(()).map(|()| "x".repeat(TOO_LARGE));
    let out = session.guard(large).await?.expect("a session");
    let events = out.map(|item| match item {
        Ok(text) => Event::default().data(text),
        Err(closed) => Event::default().event("closed").data(closed.to_string()),
    });
    Ok(Sse::new(events.map(Ok::<_, Infallible>)).into_response())
}

struct Served {
    site: Site,
    addr: SocketAddr,
    session: CoreSession,
}

impl Served {
    async fn new() -> Self {
        let site = Site::new(edge::serve).await;
        let app = Router::new()
            .route("/socket", any(socket::<TOO_LARGE>))
            .route("/small/socket", any(socket::<1_000>))
            .layer(SessionLayer::from(site.sessions()));
        let addr = edge::listen(app);
        let session = site.node.create(1).await.expect("a session");
        Self { site, addr, session }
    }

    /// A socket that is sent something.
    async fn open(&self, addr: SocketAddr, path: &str) -> Socket {
        let token = self.site.signer.issue(self.session.id(), self.session.version()).expose_into();
        let socket = open(addr, path, Some(&token)).await.expect("a socket");
        in_time("something is sent", socket.get_ref().readable()).await.expect("a connection");
        assert_eq!(self.site.node.status().pins, 1);
        socket
    }

    async fn log_out_and_wait(&self) {
        assert!(self.site.node.delete(self.session.id()).await.expect("the database answers"));
        let acknowledged = Instant::now();
        eventually("the server gives the socket up", async || self.site.node.status().pins == 0).await;
        assert!(acknowledged.elapsed() <= CLOSED_WITHIN, "{:?}", acknowledged.elapsed());
    }
}

/// client   upgrade ┊ reads nothing, the server's first message fills all buffers ┊ logout ┊ reads
pub async fn a_client_that_does_not_read_keeps_no_socket() {
    let served = Served::new().await;
    let mut socket = served.open(served.addr, "/socket").await;
    served.log_out_and_wait().await;
    let message = in_time("the connection ends", socket.next()).await;
    assert!(!matches!(message, Some(Ok(_))), "no message was complete");
}

/// wire     upgrade ┊ delivers nothing any more, in both directions ┊ logout
pub async fn a_client_that_has_gone_keeps_no_socket() {
    for path in ["/socket", "/small/socket"] {
        let served = Served::new().await;
        let wire = Proxy::start(served.addr).await.expect("a free port");
        let _socket = served.open(wire.addr(), path).await;
        wire.stall();
        served.log_out_and_wait().await;
    }
}

/// client   asks ┊ reads nothing, the server's first event fills all buffers ┊ logout ┊ reads what it got before
pub async fn a_client_that_does_not_read_keeps_no_stream_of_events() {
    let served = Served::new().await;
    let app = Router::new().route("/events", any(events)).layer(SessionLayer::from(served.site.sessions()));
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("a port");
    let listener = listener.tap_io(|io| {
        SockRef::from(&*io).set_tcp_user_timeout(Some(SILENT_MAX)).expect("an option of the system");
    });
    tokio::spawn(async { axum::serve(listener, app).await.expect("it serves for ever") });
    let mut stream = TcpStream::connect(addr).await.expect("the server accepts");
    let token = served.site.signer.issue(served.session.id(), served.session.version()).expose_into();
    let request = format!("GET /events HTTP/1.1\r\nHost: localhost\r\nCookie: {COOKIE_NAME}={token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    in_time("something is sent", stream.readable()).await.expect("a connection");
    assert_eq!(served.site.node.status().pins, 1);
    served.log_out_and_wait().await;
    let mut received = Vec::new();
    let end = in_time("the connection ends", stream.read_to_end(&mut received)).await;
    assert!(received.len() < TOO_LARGE, "{end:?}: no event was complete");
}
