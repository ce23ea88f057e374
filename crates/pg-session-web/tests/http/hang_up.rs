//! A client that does not wait for its response.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::browser::COOKIE_NAME;
use super::world::{Site, eventually, in_time};

/// The handler returns ── the save waits for a lock of its row ── the client hangs up, and the server drops the request ──
/// the row is free.
pub async fn a_save_is_finished_when_the_client_has_gone(site: &Site) {
    let addr = site.serve(site.sessions());
    let mut browser = super::browser::Browser::new(addr);
    browser.page("/set/cart/apples").await;

    let holder = site.client().await;
    holder.batch_execute("BEGIN; SELECT FROM sessions FOR UPDATE").await.expect("the row is locked");
    let mut stream = TcpStream::connect(addr).await.expect("the server listens");
    let token = browser.token().expect("a session");
    let request = format!("GET /set/cart/pears HTTP/1.1\r\nhost: x\r\ncookie: {COOKIE_NAME}={token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let (watcher, holding) = (site.client().await, pid(&holder).await);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))";
    eventually("the save waits for the row", async || {
        watcher.query_one(waiting, &[&holding]).await.expect("a count").get::<_, i64>(0) > 0
    })
    .await;
    stream.shutdown().await.expect("it hangs up");
    let mut rest = Vec::new();
    in_time("the server lets go", stream.read_to_end(&mut rest)).await.expect("the end");
    assert_eq!(String::from_utf8_lossy(&rest), "", "the client was never answered");

    holder.batch_execute("COMMIT").await.expect("the row is free");
    eventually("the save is finished", async || browser.page("/get/cart").await == "pears").await;
}

async fn pid(client: &tokio_postgres::Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a number").get(0)
}
