//! Barriers do not fill PostgreSQL's lists of statements: all of them have the same text.

use std::collections::BTreeSet;
use std::time::Duration;

use pg_sandbox::{Sandbox, SandboxBuilder};
use pg_session::SessionManager;
use tokio_postgres::Client;

use crate::fixtures::in_time;
use crate::support::{World, eventually};

/// Barriers that the test waits for, of the listener and through the pool.
const BARRIERS: usize = 8;
/// Reconnects of the listener.
const RECONNECTS: usize = 4;
/// What belongs to a listener or a barrier.
const OURS: &str = "notif|listen|current_setting|^show";

fn logging() -> SandboxBuilder {
    Sandbox::builder().setting("log_statement", "all")
}

/// A server with `pg_stat_statements`, and whether this PostgreSQL has it.
fn server() -> (Sandbox, bool) {
    match logging().setting("shared_preload_libraries", "pg_stat_statements").start() {
        Ok(sandbox) => (sandbox, true),
        Err(error) => {
            assert!(error.to_string().contains("could not access file \"pg_stat_statements\""), "{error}");
            (logging().start().unwrap(), false)
        }
    }
}

/// The barriers of the listener and of the pool in the server's log, each as its text.
fn logged(sandbox: &Sandbox) -> Vec<String> {
    let log = sandbox.log();
    let statements = log.lines().filter_map(|line| line.split_once("LOG:  ")).map(|(_, statement)| statement);
    // Without `execute s7`: each connection has its own names.
    let texts =
        statements.filter_map(|statement| statement.split_once(": ")).map(|(_, text)| text.to_owned());
    texts.filter(|text| text.to_lowercase().contains("notify")).collect()
}

/// The entries of `pg_stat_statements`, none if there is no such extension.
async fn entries(client: &Client, has_statistics: bool) -> BTreeSet<String> {
    if !has_statistics {
        return BTreeSet::new();
    }
    let text = "SELECT query FROM public.pg_stat_statements WHERE query ~* $1";
    client.query(text, &[&OURS]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Waits for more barriers of both kinds.
async fn send_barriers(node: &SessionManager, sandbox: &Sandbox) {
    let before = logged(sandbox).len();
    for _ in 0..BARRIERS {
        node.catch_up().await.unwrap();
    }
    // The listener sends its own, one in half a trust window.
    eventually("the listener has sent barriers", async || logged(sandbox).len() >= before + 2 * BARRIERS)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn barriers_and_reconnects_add_no_statement_text() {
    let (sandbox, has_statistics) = server();
    let world = World::on(&sandbox);
    let client = world.client().await;
    if has_statistics {
        client.batch_execute("CREATE EXTENSION pg_stat_statements SCHEMA public").await.unwrap();
    }
    let mut config = world.config();
    config.trust_window = Duration::from_millis(500);
    let wire = world.proxy().await;
    let node = world.node_listening_through(&wire, config).await;
    send_barriers(&node, &sandbox).await;
    let known = entries(&client, has_statistics).await;
    assert_eq!(known.is_empty(), !has_statistics);

    send_barriers(&node, &sandbox).await;
    for _ in 0..RECONNECTS {
        wire.refuse();
        wire.cut();
        eventually("the listener is lost", async || node.status().trusted_for.is_none()).await;
        wire.accept();
        in_time("the node is in sync", node.wait_until_trusted()).await.unwrap();
    }
    send_barriers(&node, &sandbox).await;
    assert_eq!(entries(&client, has_statistics).await, known);
    let texts: BTreeSet<String> =
        logged(&sandbox).into_iter().filter(|text| text.starts_with("SELECT")).collect();
    assert_eq!(texts.len(), 2, "one through the pool, one of the listener: {texts:#?}");
    let pasted = logged(&sandbox).into_iter().find(|text| text.starts_with("NOTIFY"));
    assert_eq!(pasted, None, "a payload is a parameter");
}
