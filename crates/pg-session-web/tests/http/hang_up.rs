//! A client that does not wait for its response.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::browser::{Browser, COOKIE_NAME};
use super::world::{Site, eventually, in_time};

/// The handler returns ── the save waits for a lock of its row ── the client closes its side, upon which hyper drops the request
/// ── the row is free.
pub async fn a_save_is_finished_when_the_server_has_dropped_the_request(site: &Site) {
    let (mut stream, held) = request_whose_save_waits(site).await;
    stream.shutdown().await.expect("it hangs up");
    let mut rest = Vec::new();
    in_time("the server lets go", stream.read_to_end(&mut rest)).await.expect("the end");
    assert_eq!(String::from_utf8_lossy(&rest), "", "the request was dropped without an answer");
    held.release_and_see_it_saved().await;
}

/// The same with a connection that is reset: for servers that go on while only the client's side is closed.
pub async fn a_save_is_finished_when_the_connection_was_reset(site: &Site) {
    let (stream, held) = request_whose_save_waits(site).await;
    stream.set_zero_linger().expect("a socket");
    drop(stream);
    held.release_and_see_it_saved().await;
}

/// A save that waits for a row.
struct Held {
    holder: tokio_postgres::Client,
    browser: Browser,
}

async fn request_whose_save_waits(site: &Site) -> (TcpStream, Held) {
    let addr = site.serve(site.sessions());
    let mut browser = Browser::new(addr);
    browser.page("/set/cart/apples").await;
    let (holder, watcher) = (site.client().await, site.client().await);
    holder.batch_execute("BEGIN; SELECT FROM sessions FOR UPDATE").await.expect("the row is locked");
    let mut stream = TcpStream::connect(addr).await.expect("the server listens");
    let token = browser.token().expect("a session");
    let request = format!("GET /set/cart/pears HTTP/1.1\r\nhost: x\r\ncookie: {COOKIE_NAME}={token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let holding = pid(&holder).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))";
    eventually("the save waits for the row", async || {
        watcher.query_one(waiting, &[&holding]).await.expect("a count").get::<_, i64>(0) > 0
    })
    .await;
    (stream, Held { holder, browser })
}

impl Held {
    async fn release_and_see_it_saved(mut self) {
        self.holder.batch_execute("COMMIT").await.expect("the row is free");
        let browser = &mut self.browser;
        eventually("the save is finished", async || browser.page("/get/cart").await == "pears").await;
    }
}

async fn pid(client: &tokio_postgres::Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a number").get(0)
}
