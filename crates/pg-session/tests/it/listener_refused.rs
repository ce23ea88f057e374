//! A listener that cannot connect. A mistake in its configuration is an error of `connect` that names the setting; an outage
//! is waited for; both are in the status.

use std::net::SocketAddr;
use std::time::Duration;

use pg_session::{Config, Error, ErrorKind, SessionManager};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::config::SslMode;

use crate::fixtures::{driver_config, in_time};
use crate::support::{WAIT_MAX, World, eventually};

fn config(world: &World) -> Config {
    let mut config = world.config();
    config.query_timeout = Duration::from_secs(3);
    config.connect_timeout = Duration::from_secs(1);
    config.trust_window = Duration::from_secs(1);
    config
}

async fn connect(world: &World, listen_on: tokio_postgres::Config) -> Result<SessionManager, Error> {
    let builder = SessionManager::builder(config(world)).url(&world.url)?;
    in_time("it is decided", builder.listen_on(listen_on).connect()).await
}

/// The server's configuration with another database.
fn other_database(world: &World, name: &str) -> tokio_postgres::Config {
    let mut config = driver_config(&world.url);
    config.dbname(name);
    config
}

/// Answers every startup packet with one error. Returns the URL.
pub async fn refusing(code: &str, message: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut packet = startup_packet(&mut client).await;
            if packet == TLS_REQUEST {
                client.write_u8(b'N').await.unwrap();
                packet = startup_packet(&mut client).await;
            }
            assert!(packet.starts_with(b"\0\x03\0\0"), "protocol 3.0");
            client.write_u8(b'E').await.unwrap();
            client.write_i32(i32::try_from(fields.len()).unwrap() + 4).await.unwrap();
            client.write_all(fields.as_bytes()).await.unwrap();
        }
    });
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

/// Answers whatever it receives with this, and ends the connection. Returns the URL.
pub async fn answering(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            // The client may have gone.
            let _ = client.read_u8().await;
            let _ = client.write_all(answer).await;
        }
    });
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

/// A pooler like RDS Proxy: it refuses command-line options in the startup packet, and passes on everything else. Returns
/// the URL.
pub async fn refusing_options(server: SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let fields = b"SFATAL\0VFATAL\0C0A000\0MRDS Proxy currently doesn't support command-line options.\0\0";
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut packet = startup_packet(&mut client).await;
                if packet == TLS_REQUEST {
                    client.write_u8(b'N').await.unwrap();
                    packet = startup_packet(&mut client).await;
                }
                if packet.windows(9).any(|bytes| bytes == b"\0options\0") {
                    client.write_u8(b'E').await.unwrap();
                    client.write_i32(i32::try_from(fields.len()).unwrap() + 4).await.unwrap();
                    client.write_all(fields).await.unwrap();
                    return;
                }
                let mut server = TcpStream::connect(server).await.unwrap();
                server.write_i32(i32::try_from(packet.len()).unwrap() + 4).await.unwrap();
                server.write_all(&packet).await.unwrap();
                // Ends with either side.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

/// A client's question whether the server has TLS.
const TLS_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

async fn startup_packet(client: &mut TcpStream) -> Vec<u8> {
    let length = client.read_i32().await.unwrap();
    let mut packet = vec![0; usize::try_from(length).unwrap() - 4];
    client.read_exact(&mut packet).await.unwrap();
    packet
}

fn assert_refused(outcome: Result<SessionManager, Error>, kind: ErrorKind, says: &str) {
    let error = outcome.expect_err(says);
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains("listen_on"), "it names the setting: {error:?}");
    assert!(format!("{error:?}").contains(says), "it has the cause {says:?}: {error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_in_listen_on_is_an_error_of_connect() {
    let world = World::new();
    let missing = connect(&world, other_database(&world, "no_such_database")).await;
    assert_refused(missing, ErrorKind::Config, "no_such_database");

    let mut role = driver_config(&world.url);
    role.user("unknown_role");
    assert_refused(connect(&world, role).await, ErrorKind::Config, "unknown_role");

    let mut tls = driver_config(&world.url);
    tls.ssl_mode(SslMode::Require);
    assert_refused(connect(&world, tls).await, ErrorKind::Config, "server does not support TLS");

    let mut options = driver_config(&world.url);
    options.options("-c no_such_setting=1");
    assert_refused(connect(&world, options).await, ErrorKind::Config, "no_such_setting");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let closed = driver_config(&format!("postgres://postgres@{closed}/postgres"));
    assert_refused(connect(&world, closed).await, ErrorKind::Unavailable, "host and port");

    let mut unknown = tokio_postgres::Config::new();
    unknown.host("no-such-host.invalid").user("postgres");
    assert_refused(connect(&world, unknown).await, ErrorKind::Unavailable, "host and port");

    for (code, message, says) in [
        ("28P01", "password authentication failed for user", "password authentication failed"),
        ("28000", "no pg_hba.conf entry for host", "no pg_hba.conf entry"),
        (
            "0A000",
            "Feature not supported: RDS Proxy currently doesn't support command-line options.",
            "connection pooler",
        ),
    ] {
        let url = refusing(code, message).await;
        assert_refused(connect(&world, driver_config(&url)).await, ErrorKind::Config, says);
    }
}

/// A proxy or pooler that answers like this never serves this client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_refuses_the_settings_is_an_error_of_connect() {
    let world = World::new();
    for (code, message) in [
        ("08P01", "no such database: app"),
        ("08P01", "SSL required"),
        ("XX000", "Tenant or user not found"),
        ("XX000", "password authentication failed for user \"app\""),
    ] {
        let url = refusing(code, message).await;
        assert_refused(connect(&world, driver_config(&url)).await, ErrorKind::Config, message);
    }
}

/// It may be an outage, so `connect` waits before it reports the cause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_never_connects_is_an_error_of_connect() {
    let world = World::new();
    let silent = world.silent_host().await;
    let silent = driver_config(&format!("postgres://postgres@{}/postgres", silent.addr()));
    let [down, broken] = [
        driver_config(&refusing("08006", "the server behind the proxy is gone").await),
        driver_config(&refusing("XX000", "internal error of the proxy").await),
    ];
    let (silent, down, broken) =
        tokio::join!(connect(&world, silent), connect(&world, down), connect(&world, broken));
    assert_refused(silent, ErrorKind::Unavailable, "no connection to postgres within 1s");
    assert_refused(down, ErrorKind::Unavailable, "the server behind the proxy is gone");
    assert_refused(broken, ErrorKind::Unavailable, "internal error of the proxy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_service_in_listen_on_is_an_error_of_connect() {
    let world = World::new();
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"N-ERR unknown command\r\n", b""] {
        let url = answering(answer).await;
        assert_refused(connect(&world, driver_config(&url)).await, ErrorKind::Unavailable, "host and port");
    }
}

/// It would look like a node that has lost its listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_start_leaves_no_node_in_the_registry() {
    let world = World::new();
    // It makes the tables.
    assert!(world.node().await.shutdown(WAIT_MAX).await.is_complete());
    let url = answering(b"").await;
    assert_refused(connect(&world, driver_config(&url)).await, ErrorKind::Unavailable, "host and port");
    let rows = world.client().await.query_one("SELECT count(*) FROM session_nodes", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 0);
}

/// ```text
/// node   starts: the listener's way is cut ── reads from the database ┊ the way is back: trusted
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_listener_at_start_is_waited_for() {
    let world = World::new();
    let outage = refusing("57P03", "the database system is starting up").await;
    let wire = world.proxy().await;
    let addr = driver_config(&outage).get_ports()[0];
    wire.redirect(format!("127.0.0.1:{addr}").parse().unwrap());
    let node = connect(&world, driver_config(&wire.url_for(&world.url))).await.unwrap();
    let status = node.status();
    assert!(status.trusted_for.is_none());
    let cause = status.trust_error.expect("a reason");
    assert!(cause.contains("starting up"), "{cause}");
    assert!(in_time("it is created", node.create(1)).await.is_ok(), "the database serves");

    wire.redirect(world.addr());
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
    assert_eq!(node.status().trust_error, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_says_why_the_listener_is_refused_later() {
    let world = World::new();
    let wire = world.proxy().await;
    let node = world.node_listening_through(&wire, config(&world)).await;
    assert_eq!(node.status().trust_error, None);

    let silent = world.silent_host().await;
    let mut addresses = vec![(silent.addr(), "no connection to postgres within 1s")];
    for (code, message) in [
        ("28P01", "password authentication failed for user"),
        ("08006", "the server behind the proxy is gone"),
        ("XX000", "internal error of the proxy"),
    ] {
        let port = driver_config(&refusing(code, message).await).get_ports()[0];
        addresses.push((SocketAddr::from(([127, 0, 0, 1], port)), message));
    }
    for (address, expected) in addresses {
        wire.redirect(address);
        wire.cut();
        eventually(expected, async || {
            let status = node.status();
            assert_eq!(status.trusted_for.is_none(), status.trust_error.is_some(), "{status:?}");
            status.trust_error.is_some_and(|cause| cause.contains(expected))
        })
        .await;
    }

    wire.redirect(world.addr());
    // The attempt at the former address ends.
    wire.cut();
    in_time("it is trusted again", node.wait_until_trusted()).await.unwrap();
    assert_eq!(node.status().trust_error, None);
}
