//! Accepts connections, within limits, and ends them in order.
//!
//! | limit | reached |
//! |---|---|
//! | connections | the next one waits in the kernel's queue |
//! | bytes and time of a request's head | the connection is closed, after status 431 for the bytes |
//! | time of a request's body | the body ends with an error: status 400, or as without a body |
//! | time of a request | status 503 |

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bytes of a request's head. Browsers send at most 4 kB for each cookie, and proxies take 8 to 32 kB.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// For requests in flight, after a signal.
const END_WAIT: Duration = Duration::from_secs(10);
/// After an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What clients may take of the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at one time. A proxy keeps a few for each of its processes.
    pub(super) connections: usize,
    /// Until a head is complete, also of the next request on an open connection.
    pub(super) client_wait: Duration,
    /// Until a request is answered. Statements have a shorter limit of their own.
    pub(super) answer_wait: Duration,
}

/// Serves until `stop`, and then until the requests in flight are answered, but not longer than [`END_WAIT`].
pub(super) async fn run(listener: TcpListener, app: Router, limits: Limits, stop: &CancellationToken) {
    let Limits { connections, client_wait, answer_wait } = limits;
    let within = move |request: Request, next| {
        within_time(answer_wait, request.map(|body| SlowBody::within(client_wait, body)), next)
    };
    let app = app.layer(middleware::from_fn(within));
    let slots = Arc::new(Semaphore::new(connections));
    let connections = TaskTracker::new();
    while let Some((stream, slot)) = accept(&listener, &slots, stop).await {
        connections.spawn(serve(stream, slot, client_wait, app.clone(), stop.clone()));
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(END_WAIT, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut: they did not end in time");
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        // An error means that the semaphore is closed. It never is.
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, slot)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = next => accepted,
        () = stop.cancelled() => None,
    }
}

async fn serve(
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    client_wait: Duration,
    app: Router,
    stop: CancellationToken,
) {
    // Answers are small: none waits for another packet. An error means that the connection is gone.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(client_wait);
    // The buffer alone bounds no head: one that arrives as a whole may be larger.
    builder.max_header_size(HEAD_BYTES_MAX).max_buf_size(HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
    drop(slot);
}

async fn within_time(wait: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(wait, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "no answer in time\n").into_response(),
    }
}

/// A body that ends with an error if it is not complete in time.
struct SlowBody {
    body: Body,
    end: Pin<Box<Sleep>>,
}

impl SlowBody {
    fn within(wait: Duration, body: Body) -> Body {
        if body.is_end_stream() { body } else { Body::new(Self { body, end: Box::pin(sleep(wait)) }) }
    }
}

impl HttpBody for SlowBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new("the body did not come in time"))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }
}
