//! What PostgreSQL's own log holds if it logs every statement: ids and values, unless the documented settings keep them out.

use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{SessionManager, StatementMode};

use crate::support::World;

/// As docs/security.md lists them.
const SETTINGS: [(&str, &str); 3] = [
    ("log_parameter_max_length", "0"),
    ("log_parameter_max_length_on_error", "0"),
    ("log_error_verbosity", "terse"),
];

fn logging_all(settings: &[(&str, &str)]) -> Sandbox {
    let all = [("log_statement", "all"), ("log_min_duration_statement", "0")];
    let builder =
        all.iter().chain(settings).fold(Sandbox::builder(), |b, (name, value)| b.setting(name, value));
    builder.start().expect("PostgreSQL starts")
}

/// Writes, reads and deletes sessions, and fails a statement. Returns what must not be in the log.
async fn story(node: &SessionManager, world: &World) -> Vec<String> {
    let large = format!("secret-large-{}", "x".repeat(4_000));
    let mut session = node.create(7).group(8).set("a", &"secret-inline").set("b", &large).await.unwrap();
    let old = session.id();
    session.set("a", &"secret-update").unwrap();
    node.save(&mut session).await.unwrap();
    session.set("b", &format!("{large}y")).unwrap();
    node.save(&mut session).group(Some(9.into())).await.unwrap();
    node.rotate(&mut session).await.unwrap();
    assert!(node.get(session.id()).bypass_cache().await.unwrap().is_some());
    assert_eq!(node.user(7).list().await.unwrap().len(), 1);
    node.locks().session_lock(session.id(), "secret-lock").await.unwrap().release().await.unwrap();
    // An error whose DETAIL quotes the row.
    let reject = "ALTER TABLE sessions ADD CONSTRAINT full_up CHECK (version < 0) NOT VALID";
    let client = world.client().await;
    client.batch_execute(reject).await.unwrap();
    assert!(node.create(7).set("a", &"secret-rejected").await.is_err());
    client.batch_execute("ALTER TABLE sessions DROP CONSTRAINT full_up").await.unwrap();
    assert!(node.delete(session.id()).await.unwrap());
    let ids = [old, session.id()].map(|id| id.expose());
    let ids = ids.iter().flat_map(|id| [id.to_string(), id.simple().to_string()]);
    ids.chain(["secret-".to_owned()]).collect()
}

async fn leaks(settings: &[(&str, &str)], statements: StatementMode) -> Vec<String> {
    let server = logging_all(settings);
    let world = World::on(&server);
    let mut config = world.config();
    config.statement_mode = statements;
    let node = world.node_with(config).await;
    let secrets = story(&node, &world).await;
    assert!(node.shutdown(Duration::from_secs(30)).await.is_complete());
    let log = server.log();
    assert!(log.contains("pg_catalog.pg_notify"), "the server logs the statements");
    assert!(log.contains("full_up"), "and the error");
    secrets.into_iter().filter(|secret| log.contains(secret)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_settings_keep_ids_out_of_the_server_log() {
    for (name, value) in SETTINGS {
        let page = include_str!("../../../../docs/security.md");
        assert!(page.contains(&format!("SET {name} = {value};")), "docs/security.md lists {name}");
    }
    for statements in [StatementMode::Prepared, StatementMode::Unnamed] {
        assert_eq!(leaks(&SETTINGS, statements).await, [""; 0]);
    }
}

/// The server's log and its views name the client by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_have_a_name_unless_the_user_gives_one() {
    for (parameter, expected) in
        [("", ["pg-listen", "pg-session"].as_slice()), ("?application_name=shop", &["shop"])]
    {
        let world = World::in_own_database().await;
        let url = format!("{}{parameter}", world.url);
        let node = SessionManager::connect(&url, world.config()).await.unwrap();
        node.wait_until_trusted().await.unwrap();
        let names = "SELECT DISTINCT application_name FROM pg_stat_activity
                     WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
                     ORDER BY application_name";
        let rows = world.client().await.query(names, &[]).await.unwrap();
        let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(names, expected);
    }
}

/// Control: what the settings are for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_these_settings_the_server_log_holds_ids() {
    assert!(leaks(&[], StatementMode::Prepared).await.len() > 1);
}
