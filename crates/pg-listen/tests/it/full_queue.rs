//! PostgreSQL's queue of notifications is emptied behind its slowest reader by the client that notifies. When it is full no client
//! can, and it stays full when that reader has long gone.

use pg_sandbox::Sandbox;
use tokio_postgres::Client;

use crate::fixtures::{Proxied, started, unique};

/// 8 MB in files of 256 kB: 8 GB would be a full queue, and is left behind in the same way.
const LEFT_BEHIND: &str =
    "SELECT count(pg_notify('nobody', repeat('.', 7980) || n)) FROM generate_series(1, 1000) n";
const FILES_LEFT_BEHIND: i64 = 30;

#[tokio::test]
async fn a_new_connection_clears_what_all_have_read() {
    let sandbox = Sandbox::start().unwrap();
    let proxied = Proxied::on(&sandbox).await;
    let (sleeper, writer) = (proxied.client().await, proxied.client().await);
    sleeper.batch_execute("LISTEN nobody").await.unwrap();
    sleeper.batch_execute("BEGIN").await.unwrap();
    sleeper.batch_execute("SELECT 1").await.unwrap();
    writer.execute(LEFT_BEHIND, &[]).await.unwrap();
    sleeper.batch_execute("COMMIT").await.unwrap();
    sleeper.batch_execute("UNLISTEN *").await.unwrap();
    assert!(files(&writer).await >= FILES_LEFT_BEHIND, "PostgreSQL itself has cleared them away");

    let listener = proxied.quiet_listener().start().unwrap();
    let _subscription = started(&listener, &unique("full")).await;
    let files = files(&writer).await;
    assert!(files <= 2, "{files} files are left");
}

async fn files(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM pg_ls_dir('pg_notify')", &[]).await.unwrap().get(0)
}
