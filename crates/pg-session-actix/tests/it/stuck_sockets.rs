//! A client that does not read: its connection ends, by a limit of the operating system.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, rt, web};
use actix_ws::CloseReason;
use futures_util::{StreamExt as _, stream};
use pg_session_actix::prelude::*;
use socket2::SockRef;

use crate::edge;
use crate::http::world::{Site, eventually, in_time};
use crate::live::open;

/// More than the buffers of a connection hold.
const TOO_LARGE: usize = 32 << 20;
const SILENT_MAX: Duration = Duration::from_secs(1);

/// As the example `actix_live`, with a message that is too large.
async fn socket(session: Session, request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Error> {
    let large = stream::repeat(()).map(|()| "x".repeat(TOO_LARGE));
    let mut news = session.guard(large).await.map_err(SessionError::from)?.expect("a session");
    let (response, mut socket, mut messages) = actix_ws::handle(&request, body)?;
    rt::spawn(async move {
        rt::spawn(async move { while messages.next().await.is_some() {} });
        let pin = news.pin().clone();
        let sending = pin.limit(async move {
            while let Some(item) = news.next().await {
                match item {
                    Ok(text) => socket.text(text).await?,
                    Err(closed) => {
                        let (code, description) = (closed.close_code().into(), Some(closed.to_string()));
                        return socket.close(Some(CloseReason { code, description })).await;
                    }
                }
            }
            Ok(())
        });
        sending.await
    });
    Ok(response)
}

/// A connection of the server, counted until it is given up.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves until the process ends, in a thread of its own.
fn serve(sessions: SessionConfig, connections: Arc<AtomicUsize>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a port");
    std::thread::spawn(move || {
        let sessions = SessionMiddleware::from(sessions);
        let app = move || App::new().wrap(sessions.clone()).route("/socket", web::get().to(socket));
        let server = HttpServer::new(app).workers(1).on_connect(move |io, data| {
            let io = io.downcast_ref::<TcpStream>().expect("no TLS");
            SockRef::from(io).set_tcp_user_timeout(Some(SILENT_MAX)).expect("an option of the system");
            connections.fetch_add(1, Ordering::SeqCst);
            data.insert(Counted(Arc::clone(&connections)));
        });
        let server = server.listen(listener).expect("a socket").run();
        rt::System::new().block_on(server).expect("it serves for ever");
    });
    addr
}

/// client   upgrade ┊ reads nothing, the server's first message fills all buffers ┊ logout
pub async fn a_client_that_does_not_read_keeps_no_connection() {
    let site = Site::new(edge::serve).await;
    let connections = Arc::default();
    let addr = serve(site.sessions(), Arc::clone(&connections));
    let session = site.node.create(1).await.expect("a session");
    let token = site.signer.issue(session.id(), session.version()).expose_into();
    let mut socket = open(addr, "/socket", Some(&token)).await.expect("a socket");
    in_time("something is sent", socket.get_ref().readable()).await.expect("a connection");
    assert_eq!((connections.load(Ordering::SeqCst), site.node.status().pins), (1, 1));
    assert!(site.node.delete(session.id()).await.expect("the database answers"));
    eventually("its task is dropped", async || site.node.status().pins == 0).await;
    eventually("its connection ends", async || connections.load(Ordering::SeqCst) == 0).await;
    let message = in_time("the client notices", socket.next()).await;
    assert!(!matches!(message, Some(Ok(_))), "no message was complete");
}
