//! Beats, ticks and barriers do not fill PostgreSQL's lists of statements: all of a kind have the same text.

use std::collections::BTreeSet;
use std::time::Duration;

use pg_sandbox::{Sandbox, SandboxBuilder};
use pg_session::SessionManager;
use tokio_postgres::Client;

use crate::fixtures::in_time;
use crate::support::{World, eventually};

/// Ticks that the test waits for.
const BARRIERS: usize = 8;
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

/// The first line of a beat.
const BEAT: &str = "WITH own AS (";

/// The beats and the listener's barriers in the server's log, each as the first line of its text.
fn logged(sandbox: &Sandbox) -> Vec<String> {
    let log = sandbox.log();
    let statements = log.lines().filter_map(|line| line.split_once("LOG:  ")).map(|(_, statement)| statement);
    // Without `execute s7`: each connection has its own names.
    let texts =
        statements.filter_map(|statement| statement.split_once(": ")).map(|(_, text)| text.to_owned());
    texts.filter(|text| text.to_lowercase().contains("notify") || text == BEAT).collect()
}

/// The entries of `pg_stat_statements`, none if there is no such extension.
async fn entries(client: &Client, has_statistics: bool) -> BTreeSet<String> {
    if !has_statistics {
        return BTreeSet::new();
    }
    let text = "SELECT query FROM public.pg_stat_statements WHERE query ~* $1";
    client.query(text, &[&OURS]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Waits for more beats.
async fn send_barriers(node: &SessionManager, sandbox: &Sandbox) {
    let before = logged(sandbox).len();
    for _ in 0..BARRIERS {
        node.catch_up().await.unwrap();
    }
    eventually("the log has the beats", async || logged(sandbox).len() >= before + BARRIERS).await;
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
    if has_statistics {
        eventually("the barrier of the listener is counted", async || {
            entries(&client, true).await.iter().any(|text| text.starts_with("SELECT pg_catalog.pg_notify("))
        })
        .await;
    }
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
    let added: Vec<_> = entries(&client, has_statistics).await.difference(&known).cloned().collect();
    assert!(added.is_empty(), "{added:#?}");
    let texts: BTreeSet<String> =
        logged(&sandbox).into_iter().filter(|text| text.starts_with("SELECT") || text == BEAT).collect();
    assert_eq!(texts.len(), 2, "one through the pool, one of the listener: {texts:#?}");
    let pasted = logged(&sandbox).into_iter().find(|text| text.starts_with("NOTIFY"));
    assert_eq!(pasted, None, "a payload is a parameter");
}
