//! What a browser talks to: a router in this process, or a server at an address.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum_core::body::Body;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt, service_fn};

use crate::wait::in_time;

pub(crate) type Application = BoxCloneSyncService<Request<Body>, Answer, Infallible>;

/// A response with its whole body.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) fn in_process<S, B>(router: S) -> Application
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: std::fmt::Display,
    S::Future: Send,
    B: BodyExt<Data = Bytes> + Send,
    B::Error: std::fmt::Display,
{
    let answer = move |request| {
        let router = router.clone();
        async move {
            let response = in_time("the application responds", router.oneshot(request)).await;
            Ok(read(response.unwrap_or_else(|error| panic!("the application failed: {error}"))).await)
        }
    };
    BoxCloneSyncService::new(service_fn(answer))
}

pub(crate) fn at(addr: SocketAddr) -> Application {
    BoxCloneSyncService::new(service_fn(move |request| async move {
        let stream = in_time("the server accepts a connection", TcpStream::connect(addr)).await;
        let stream = stream.unwrap_or_else(|error| panic!("no server at {addr}: {error}"));
        let connected = handshake::<_, Body>(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.unwrap_or_else(|error| panic!("no HTTP at {addr}: {error}"));
        tokio::spawn(connection);
        let response = in_time("the server responds", sender.send_request(request)).await;
        Ok(read(response.unwrap_or_else(|error| panic!("no response from {addr}: {error}"))).await)
    }))
}

async fn read<B>(response: Response<B>) -> Answer
where
    B: BodyExt<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let (head, body) = response.into_parts();
    let body = in_time("the whole body arrives", BodyExt::collect(body)).await;
    let body = body.unwrap_or_else(|error| panic!("the body ended early: {error}")).to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}
