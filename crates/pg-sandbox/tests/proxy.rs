//! Each fault of the proxy, shown by what it does to a real connection to a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "delays are measured in real time")]

use std::{
    future::Future,
    sync::LazyLock,
    time::{Duration, Instant},
};

use pg_sandbox::{Direction, Proxy, Sandbox};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_postgres::{Client, Error, NoTls};

/// Longer than anything here takes, so that a hang is a failure and not a hang.
const LIMIT: Duration = Duration::from_secs(60);
/// Long enough for a server that is able to answer.
const SILENCE: Duration = Duration::from_millis(300);

static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| Sandbox::start().unwrap());

async fn proxy() -> Proxy {
    Proxy::start(SANDBOX.addr()).await.unwrap()
}

async fn connect(proxy: &Proxy) -> Result<Client, Error> {
    let url = proxy.url_for(&SANDBOX.url());
    let (client, connection) = within(tokio_postgres::connect(&url, NoTls)).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn answers(client: &Client) -> Result<i32, Error> {
    Ok(within(client.query_one("SELECT 7", &[])).await?.get(0))
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(LIMIT, work).await.expect("this hangs")
}

async fn is_silent<T>(work: impl Future<Output = T>) -> bool {
    timeout(SILENCE, work).await.is_err()
}

/// A proxy between two plain sockets, for what a PostgreSQL connection does not show.
async fn wire() -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    let client = TcpStream::connect(proxy.addr()).await.unwrap();
    let (server, _) = within(listener.accept()).await.unwrap();
    (proxy, client, server)
}

async fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let ended = within(stream.read_to_end(&mut bytes)).await.is_ok();
    (bytes, ended)
}

#[tokio::test]
async fn forwards_and_counts() {
    let proxy = proxy().await;
    assert_eq!((proxy.connections(), proxy.bytes(Direction::ToServer)), (0, 0));
    let client = connect(&proxy).await.unwrap();
    assert_eq!(answers(&client).await.unwrap(), 7);
    assert_eq!(proxy.connections(), 1);
    let big: String = within(client.query_one("SELECT repeat('x', 8000000)", &[])).await.unwrap().get(0);
    assert_eq!(big.len(), 8_000_000);
    assert!(proxy.bytes(Direction::ToClient) > 8_000_000);
    let (sent, big) = (proxy.bytes(Direction::ToServer), "y".repeat(3_000_000));
    let length: i32 = within(client.query_one("SELECT length($1)", &[&big])).await.unwrap().get(0);
    assert_eq!(length, 3_000_000);
    assert!(proxy.bytes(Direction::ToServer) > sent + 3_000_000);
    drop(client);
    within(proxy.wait_for_connections(0)).await;
}

#[tokio::test]
async fn half_closed_connection_still_carries_the_other_direction() {
    let (proxy, mut client, mut server) = wire().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await, (b"question".to_vec(), true));
    server.write_all(b"answer").await.unwrap();
    assert_eq!(proxy.connections(), 1);
    drop(server);
    assert_eq!(read_to_end(&mut client).await, (b"answer".to_vec(), true));
    within(proxy.wait_for_connections(0)).await;
}

#[tokio::test]
async fn cut_ends_open_connections_and_lets_new_ones_in() {
    let proxy = proxy().await;
    let (first, second) = (connect(&proxy).await.unwrap(), connect(&proxy).await.unwrap());
    proxy.cut();
    answers(&first).await.unwrap_err();
    answers(&second).await.unwrap_err();
    within(proxy.wait_for_connections(0)).await;
    let third = connect(&proxy).await.unwrap();
    assert_eq!(answers(&third).await.unwrap(), 7);
    proxy.heal();
    assert_eq!(answers(&third).await.unwrap(), 7);
}

#[tokio::test]
async fn forget_silences_open_connections_and_lets_new_ones_in() {
    let proxy = proxy().await;
    let (a, b) = (connect(&proxy).await.unwrap(), connect(&proxy).await.unwrap());
    proxy.forget();
    assert!(is_silent(answers(&a)).await);
    assert_eq!(answers(&connect(&proxy).await.unwrap()).await.unwrap(), 7);
    proxy.heal();
    assert!(is_silent(answers(&b)).await, "they are forgotten for good");
    proxy.cut();
    assert!(answers(&b).await.is_err());
}

#[tokio::test]
async fn refuse_leaves_open_connections_alone() {
    let proxy = proxy().await;
    let open = connect(&proxy).await.unwrap();
    proxy.refuse();
    connect(&proxy).await.unwrap_err();
    assert_eq!(answers(&open).await.unwrap(), 7);
    proxy.accept();
    connect(&proxy).await.unwrap();
    proxy.refuse();
    proxy.heal();
    connect(&proxy).await.unwrap();
}

#[tokio::test]
async fn delay_adds_to_both_directions_and_ends_at_once() {
    let proxy = proxy().await;
    let client = connect(&proxy).await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    let delay = Duration::from_millis(100);
    proxy.delay(delay);
    let begin = Instant::now();
    client.batch_execute("SELECT 1").await.unwrap();
    assert!(begin.elapsed() >= 2 * delay, "{:?}", begin.elapsed());

    proxy.delay(Duration::MAX);
    let query = answers(&client);
    tokio::pin!(query);
    assert!(is_silent(&mut query).await);
    proxy.delay(Duration::ZERO);
    assert_eq!(query.await.unwrap(), 7);
}

#[tokio::test]
async fn a_throttle_spreads_bytes_over_time_and_ends_at_once() {
    let (proxy, mut client, mut server) = wire().await;
    proxy.throttle(10_000);
    let begin = Instant::now();
    client.write_all(&[7; 5_000]).await.unwrap();
    let mut bytes = [0; 5_000];
    within(server.read_exact(&mut bytes)).await.unwrap();
    // Half a second's worth, of which the first tenth of a second's passes at once.
    assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());

    proxy.throttle(1);
    client.write_all(&[7; 100]).await.unwrap();
    proxy.heal();
    within(server.read_exact(&mut bytes[..100])).await.unwrap();
}

#[tokio::test]
async fn delayed_chunks_wait_beside_each_other() {
    let (proxy, mut client, mut server) = wire().await;
    let delay = Duration::from_millis(500);
    proxy.delay(delay);
    let begin = Instant::now();
    for _ in 0..10 {
        client.write_all(b"x").await.unwrap();
        // The proxy may read several writes at once: let it take this one alone.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    within(server.read_exact(&mut [0; 10])).await.unwrap();
    assert!(begin.elapsed() >= delay && begin.elapsed() < 5 * delay, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn stall_is_silent_in_both_directions_and_loses_nothing() {
    let proxy = proxy().await;
    let client = connect(&proxy).await.unwrap();
    proxy.stall();
    let sent = proxy.bytes(Direction::ToServer);
    let query = answers(&client);
    tokio::pin!(query);
    assert!(is_silent(&mut query).await);
    let newcomer = connect(&proxy);
    tokio::pin!(newcomer);
    assert!(is_silent(&mut newcomer).await, "a new connection was answered");
    assert_eq!(proxy.bytes(Direction::ToServer), sent);
    within(proxy.wait_for_connections(2)).await;
    proxy.heal();
    assert_eq!(query.await.unwrap(), 7);
    assert_eq!(answers(&newcomer.await.unwrap()).await.unwrap(), 7);
}

#[tokio::test]
async fn stall_hides_the_end_of_a_connection_and_bounds_what_is_held() {
    let (proxy, mut client, mut server) = wire().await;
    proxy.stall();
    server.write_all(b"last words").await.unwrap();
    server.shutdown().await.unwrap();
    let mut byte = [0];
    assert!(is_silent(client.read(&mut byte)).await);
    // Far more than the proxy holds and the kernel buffers: the sender must feel it.
    let flood = vec![0; 64 * 1024 * 1024];
    assert!(is_silent(client.write_all(&flood)).await);
    proxy.heal();
    let mut words = [0; 10];
    within(client.read_exact(&mut words)).await.unwrap();
    assert_eq!(&words, b"last words");
    assert_eq!(within(client.read(&mut words)).await.unwrap(), 0);
}

#[tokio::test]
async fn stall_hides_a_reset_as_well() {
    let (proxy, client, mut server) = wire().await;
    proxy.stall();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let mut byte = [0];
    assert!(is_silent(server.read(&mut byte)).await);
    proxy.heal();
    assert!(within(server.read(&mut byte)).await.is_err());
}

#[tokio::test]
async fn dropped_direction_swallows_and_heal_cuts_what_lost_bytes() {
    let proxy = proxy().await;
    let (loser, idle) = (connect(&proxy).await.unwrap(), connect(&proxy).await.unwrap());
    SANDBOX_TABLE.get_or_init(create_table).await;
    proxy.drop_direction(Direction::ToClient);
    let insert = loser.execute("INSERT INTO swallowed VALUES (1)", &[]);
    // Only the parse goes out before an answer is needed: a simple query carries everything.
    assert!(is_silent(insert).await);
    assert!(is_silent(loser.batch_execute("INSERT INTO swallowed VALUES (2)")).await);
    proxy.heal();
    answers(&loser).await.unwrap_err();
    assert_eq!(answers(&idle).await.unwrap(), 7);

    proxy.drop_direction(Direction::ToServer);
    let sent = proxy.bytes(Direction::ToServer);
    assert!(is_silent(idle.batch_execute("INSERT INTO swallowed VALUES (3)")).await);
    assert_eq!(proxy.bytes(Direction::ToServer), sent);
    proxy.heal();
    answers(&idle).await.unwrap_err();

    // The server carried out what it got, and never got the last one.
    let direct = connect(&proxy).await.unwrap();
    let rows = direct.query("SELECT n FROM swallowed ORDER BY n", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i32>>(), [2]);
}

static SANDBOX_TABLE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();

async fn create_table() {
    let proxy = proxy().await;
    connect(&proxy).await.unwrap().batch_execute("CREATE TABLE swallowed (n integer)").await.unwrap();
}

#[tokio::test]
async fn cut_before_answer_loses_answer_to_committed_transaction() {
    let proxy = proxy().await;
    let client = connect(&proxy).await.unwrap();
    client.batch_execute("CREATE TABLE unknown_outcome (n integer)").await.unwrap();
    proxy.cut_after(0, Direction::ToClient);
    within(client.batch_execute("INSERT INTO unknown_outcome VALUES (1)")).await.unwrap_err();
    proxy.heal();
    let again = connect(&proxy).await.unwrap();
    let count: i64 = again.query_one("SELECT count(*) FROM unknown_outcome", &[]).await.unwrap().get(0);
    assert_eq!(count, 1);
}

#[tokio::test]
async fn cut_after_lets_exactly_so_many_bytes_pass_on_each_connection() {
    let (proxy, mut client, mut server) = wire().await;
    client.write_all(b"before").await.unwrap();
    within(server.read_exact(&mut [0; 6])).await.unwrap();
    proxy.cut_after(5, Direction::ToServer);
    // The other direction is free.
    server.write_all(b"hello").await.unwrap();
    within(client.read_exact(&mut [0; 5])).await.unwrap();
    client.write_all(b"123").await.unwrap();
    within(server.read_exact(&mut [0; 3])).await.unwrap();
    client.write_all(b"45678").await.unwrap();
    assert_eq!(read_to_end(&mut server).await.0, b"45");
    within(proxy.wait_for_connections(0)).await;

    // 20 bytes are enough for a start, and not for a session; after healing all is well.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    second.cut_after(2, Direction::ToServer);
    let mut newcomer = TcpStream::connect(second.addr()).await.unwrap();
    newcomer.write_all(b"abc").await.unwrap();
    let (mut accepted, _) = within(listener.accept()).await.unwrap();
    assert_eq!(read_to_end(&mut accepted).await.0, b"ab");
    second.heal();
    let mut healed = TcpStream::connect(second.addr()).await.unwrap();
    healed.write_all(b"abc").await.unwrap();
    healed.shutdown().await.unwrap();
    let (mut accepted, _) = within(listener.accept()).await.unwrap();
    assert_eq!(read_to_end(&mut accepted).await, (b"abc".to_vec(), true));
}

#[tokio::test]
async fn faults_add_up_until_heal() {
    let (proxy, mut client, mut server) = wire().await;
    proxy.stall();
    client.write_all(b"held").await.unwrap();
    proxy.delay(Duration::from_millis(1));
    proxy.refuse();
    let mut refused = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(read_to_end(&mut refused).await.0, b"");
    proxy.cut();
    assert_eq!(read_to_end(&mut server).await.0, b"");
}

#[tokio::test]
async fn a_server_that_is_gone_resets_and_one_that_is_back_answers() {
    let sandbox = tokio::task::spawn_blocking(Sandbox::start).await.unwrap().unwrap();
    let proxy = Proxy::start(sandbox.addr()).await.unwrap();
    let url = proxy.url_for(&sandbox.url());
    sandbox.kill().unwrap();
    assert!(within(tokio_postgres::connect(&url, NoTls)).await.is_err());
    sandbox.start_again().unwrap();
    assert!(within(tokio_postgres::connect(&url, NoTls)).await.is_ok());
}

#[tokio::test]
async fn dropping_the_proxy_closes_everything() {
    let proxy = proxy().await;
    let addr = proxy.addr();
    let client = connect(&proxy).await.unwrap();
    drop(proxy);
    answers(&client).await.unwrap_err();
    // The listener is closed by its task: a connection is refused then, and reset before.
    let begin = Instant::now();
    while TcpStream::connect(addr).await.is_ok() {
        assert!(begin.elapsed() < LIMIT);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_after_a_switch_is_subject_to_it() {
    // The interleaving: the proxy's task runs beside the test's, and may be anywhere in its loop when the switch is
    // thrown. If it wrote under the faults that it saw before it read, some of these bytes would pass.
    for round in 0_u8..200 {
        let (proxy, mut client, mut server) = wire().await;
        client.write_all(&[round]).await.unwrap();
        within(server.read_exact(&mut [0])).await.unwrap();
        match round % 3 {
            0 => proxy.cut(),
            1 => proxy.drop_direction(Direction::ToServer),
            _ => proxy.cut_after(0, Direction::ToServer),
        }
        // May fail: the connection may be cut already.
        let _ = client.write_all(b"late").await;
        proxy.cut();
        assert_eq!(read_to_end(&mut server).await.0, b"", "round {round}");
    }
}
