//! A listener behind a connection pooler: it would seem to work, and miss what other nodes say. The node does not start.

use pg_session::{ErrorKind, SessionManager};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::fixtures::in_time;
use crate::support::World;

/// Answers every startup packet as pgbouncer answers one with parameters that it does not know.
async fn pooler() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let length = client.read_i32().await.unwrap();
            let mut packet = vec![0; usize::try_from(length).unwrap() - 4];
            client.read_exact(&mut packet).await.unwrap();
            let fields = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0";
            client.write_u8(b'E').await.unwrap();
            client.write_i32(i32::try_from(fields.len()).unwrap() + 4).await.unwrap();
            client.write_all(fields).await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn listener_behind_pooler_stops_start_with_reason() {
    let world = World::in_postgres();
    let behind = format!("host=127.0.0.1 port={} user=postgres sslmode=disable", pooler().await);
    let builder = SessionManager::builder(world.config()).url(&world.url).unwrap();
    let started = in_time("it is decided", builder.listen_on(behind.parse().unwrap()).connect()).await;
    let error = started.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("connection pooler"), "{error}");
    assert!(error.to_string().contains("listen_on"), "it says what to do: {error}");
}
