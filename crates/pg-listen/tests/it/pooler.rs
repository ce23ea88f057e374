//! A pooler in PostgreSQL's place. Each represents pgbouncer, which does one or the other with a startup packet that it
//! does not know: it refuses it, or (`ignore_startup_parameters = options`) drops what it does not know.

use std::net::SocketAddr;

use pg_listen::{ErrorKind, Listener, Phase};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::fixtures::{SANDBOX, WAIT_MAX, eventually};

/// Reads a startup packet, and returns its parameters.
async fn startup(client: &mut TcpStream) -> Vec<(String, String)> {
    let length = client.read_i32().await.unwrap();
    let mut packet = vec![0; usize::try_from(length).unwrap() - 4];
    client.read_exact(&mut packet).await.unwrap();
    let texts: Vec<String> =
        packet[4..].split(|&byte| byte == 0).map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
    let pairs = texts.chunks(2).filter(|pair| !pair[0].is_empty());
    pairs.map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// Answers as pgbouncer does by default.
async fn refuse(mut client: TcpStream) {
    startup(&mut client).await;
    let fields = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0";
    client.write_u8(b'E').await.unwrap();
    client.write_i32(i32::try_from(fields.len()).unwrap() + 4).await.unwrap();
    client.write_all(fields).await.unwrap();
}

/// Answers as RDS Proxy does.
async fn refuse_options(mut client: TcpStream) {
    startup(&mut client).await;
    let fields =
        b"SFATAL\0VFATAL\0C0A000\0MFeature not supported: RDS Proxy currently doesn't support command-line \
                   options.\0\0";
    client.write_u8(b'E').await.unwrap();
    client.write_i32(i32::try_from(fields.len()).unwrap() + 4).await.unwrap();
    client.write_all(fields).await.unwrap();
}

/// Forwards all but the options.
async fn forward_without_options(mut client: TcpStream) {
    let mut packet = 196_608_i32.to_be_bytes().to_vec();
    for (name, value) in startup(&mut client).await {
        if name != "options" {
            packet.extend(format!("{name}\0{value}\0").bytes());
        }
    }
    packet.push(0);
    let mut server = TcpStream::connect(SANDBOX.addr()).await.unwrap();
    server.write_i32(i32::try_from(packet.len()).unwrap() + 4).await.unwrap();
    server.write_all(&packet).await.unwrap();
    // Ends with either side.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

async fn serve<F: Future<Output = ()> + Send + 'static>(with: fn(TcpStream) -> F) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(with(client));
        }
    });
    addr
}

async fn is_recognised(addr: SocketAddr) {
    let url = format!("postgres://postgres@{addr}/postgres");
    let listener = Listener::builder(url.parse().unwrap()).start().unwrap();
    let _subscription = listener.subscribe("x").await.unwrap();
    let connected = tokio::time::timeout(WAIT_MAX, listener.wait_connected()).await.unwrap();
    assert_eq!(connected.unwrap_err().kind(), ErrorKind::Pooler);
    let status = listener.status();
    assert!(status.last_error().unwrap().contains("connection pooler"), "{status:?}");
    eventually("it tries again", async || listener.status().failures() > 2).await;
    assert_eq!(listener.status().as_of(), None, "it was never in sync");
    assert_ne!(listener.status().phase(), Phase::InSync);
}

#[tokio::test]
async fn a_pooler_that_refuses_the_startup_packet_is_recognised() {
    is_recognised(serve(refuse).await).await;
}

#[tokio::test]
async fn a_proxy_that_refuses_options_is_recognised() {
    is_recognised(serve(refuse_options).await).await;
}

#[tokio::test]
async fn a_pooler_that_drops_startup_parameters_is_recognised() {
    is_recognised(serve(forward_without_options).await).await;
}

#[tokio::test]
async fn options_of_the_user_are_kept() {
    let mut config: tokio_postgres::Config = SANDBOX.url().parse().unwrap();
    config.options("-c application_name=from-the-options");
    let listener = Listener::builder(config).start().unwrap();
    listener.wait_connected().await.unwrap();
    listener.barrier().await.unwrap();
}
