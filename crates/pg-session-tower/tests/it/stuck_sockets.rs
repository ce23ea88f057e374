//! Clients that hinder the close of their sockets: one does not read, one has gone without a word.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use futures_util::future::join;
use futures_util::{StreamExt as _, stream};
use pg_sandbox::Proxy;
use pg_session::Session as CoreSession;
use pg_session_tower::prelude::*;
use tokio::time::Instant;

use crate::edge;
use crate::http::world::{Site, eventually, in_time};
use crate::live::{Socket, open};

/// More than the buffers of a connection hold.
const TOO_LARGE: usize = 32 << 20;
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
