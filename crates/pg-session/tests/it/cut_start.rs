//! A connection that is cut while a node starts. A balancer or a pooler may close one and serve the next.

use std::net::SocketAddr;

use pg_session::SessionManager;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::fixtures::in_time;
use crate::statement_modes::pool;
use crate::support::World;

/// Forwards to `server`, and cuts the first connection when it has sent so many bytes to the client.
async fn cuts_first(server: SocketAddr, mut bytes: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(server).await.unwrap();
            let limit = std::mem::replace(&mut bytes, u64::MAX);
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.split();
                let (from_server, mut to_server) = server.split();
                let mut from_server = from_server.take(limit);
                // Both ends close with the first direction that ends.
                tokio::select! {
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                    _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                }
                let _ = to_client.shutdown().await;
            });
        }
    });
    addr
}

/// ```text
/// node   connects ── cut after any number of bytes ┊ connects again: starts
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_does_not_end_the_start() {
    for application_pool in [false, true] {
        // From the login to the checks of the rights.
        for bytes in [1, 100, 500, 600, 800, 1_200, 2_000, 3_000] {
            let world = World::in_postgres();
            let through = World {
                url: format!("postgres://postgres@{}/postgres", cuts_first(world.addr(), bytes).await),
                schema: world.schema.clone(),
            };
            let builder = SessionManager::builder(world.config()).listen_on_url(&world.url).unwrap();
            let builder = if application_pool {
                builder.pool(pool(&through, 2))
            } else {
                builder.url(&through.url).unwrap()
            };
            let started = in_time("the node starts", builder.connect()).await;
            let node = started.unwrap_or_else(|error| panic!("{application_pool} {bytes}: {error:?}"));
            assert!(node.create(1).await.is_ok());
        }
    }
}
