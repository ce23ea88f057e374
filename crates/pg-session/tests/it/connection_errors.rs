//! The page about connection errors: each row is tried, and the text on the page is the error's own.

use std::collections::BTreeSet;

use pg_sandbox::Sandbox;
use pg_session::{ConnectOptions, ErrorKind, SessionManager};

use crate::listener_refused::{answering, refusing};
use crate::support::World;
use crate::tls::{Pem, Secured, authority};

/// The rows of the table under this heading, as cells.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/connection-errors.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let (_, section) = page.split_once(&format!("## {heading}\n")).expect("the heading");
    let lines = section.lines().skip_while(|line| !line.starts_with("|---"));
    let lines = lines.skip(1).take_while(|line| line.starts_with('|'));
    lines
        .map(|line| line.trim_matches('|').split(" |").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// Fails with the rows as the page should have them.
pub fn compare(found: &[String], heading: &str) {
    let expected: Vec<String> =
        rows(heading).iter().map(|cells| format!("| {} |", cells.join(" | "))).collect();
    assert_eq!(found.len(), found.iter().collect::<BTreeSet<_>>().len(), "each row once");
    let wrong: Vec<&String> = found.iter().filter(|row| !expected.contains(row)).collect();
    assert!(
        wrong.is_empty(),
        "docs/connection-errors.md should have:\n{found:#?}\nit does not have:\n{wrong:#?}"
    );
    assert_eq!(found.len(), expected.len());
}

#[test]
fn wrong_connection_strings_have_the_errors_on_the_page() {
    let mut found = Vec::new();
    for cells in rows("Connection strings") {
        let text = cells[0].trim_matches('`');
        let error = ConnectOptions::parse(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        found.push(format!("| `{text}` | {error} |"));
    }
    assert!(found.len() >= 40, "{}", found.len());
    compare(&found, "Connection strings");
}

/// The value that an error must not repeat is in each place where a form can have one. A cut form leaves the rest of a
/// password there.
#[test]
fn no_error_repeats_a_value() {
    for text in [
        "hunter2",
        "hunter2://h",
        "postgres://u:hunter2@h:notaport/d",
        "postgres://u:a/hunter2?x=y@h/d",
        "postgres://u:1/a?hunter2=b@h/d",
        "postgres://u:1/a?sslmode=hunter2",
        "postgres://u:1/a?sslmode=disable&hunter2 x=1",
        "postgres://u:a@hunter2@h/d",
        "postgres://u:hunter2%@h/d",
        "postgres://u@[hunter2/d",
        "postgres://h/d?sslmod%=hunter2",
        "host=h password=hunter2 sslmode=sometimes",
        "host=h password=my hunter2=x",
        "host=h password=my hunter2",
        "host=h password='my hunter2",
        "host=h password='my'hunter2'",
        "user=hunter2",
        "host=h port=hunter2",
        "host=h hostaddr=hunter2",
        "host=h passfile=/hunter2",
        "host=h connect_timeout=hunter2",
    ] {
        let error = ConnectOptions::parse(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    let options =
        ConnectOptions::parse("postgres://u:hunter2@h/d?sslkey=/secret.key&sslcert=c").expect("it parses");
    assert!(!format!("{options:?}").contains("hunter2"));
}

const HBA: &str = "local all all trust
host all nobody all reject
host nowhere all all reject
host all postgres all trust
host all all all scram-sha-256
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_connections_have_the_errors_on_the_page() {
    let secured = Secured::start();
    let sandbox = Sandbox::builder().file("pg_hba.conf", HBA).start().unwrap();
    let world = World::on(&sandbox);
    let client = world.client().await;
    client.batch_execute("CREATE DATABASE closed").await.unwrap();
    client.batch_execute("CREATE DATABASE locked ALLOW_CONNECTIONS false").await.unwrap();
    client
        .batch_execute(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE app LOGIN PASSWORD 'right'; CREATE ROLE group_role PASSWORD 'right';
             CREATE ROLE few LOGIN PASSWORD 'right' CONNECTION LIMIT 0;
             CREATE ROLE nobody LOGIN; REVOKE CONNECT ON DATABASE closed FROM PUBLIC;",
        )
        .await
        .unwrap();
    let (right, other) = (Pem::new(&secured.authority.pem()), Pem::new(&authority().pem()));
    let port = sandbox.addr().port();
    let tls_port = secured.sandbox.addr().port();
    let to = |user: &str, database: &str| format!("host=127.0.0.1 port={port} user={user} dbname={database}");
    let tls = |host: &str, roots: &Pem| {
        let path = roots.0.display();
        format!("host={host} port={tls_port} user=postgres sslmode=verify-full sslrootcert={path}")
    };
    let missing = Pem("/does/not/exist".into());
    // As `openssl x509 -req` makes one without -extfile, and the documentation of PostgreSQL with it.
    let version_1 = include_str!("version_1.pem");
    let old = Pem::new(version_1);
    let old_server = Sandbox::builder().setting("ssl", "on");
    let old_server = old_server.file("server.crt", version_1).file("server.key", version_1).start().unwrap();
    let old_port = old_server.addr().port();
    let states = [
        ("the server is down", "host=127.0.0.1 port=1".to_owned()),
        ("another service has the port", answering(b"HTTP/1.1 400 Bad Request\r\n\r\n").await),
        ("the host does not exist", "host=does-not-exist.invalid".to_owned()),
        ("the host is a Unix socket that does not exist", "host=/does/not/exist".to_owned()),
        ("the password is wrong", to("app", "postgres") + " password=wrong"),
        ("the password is missing", to("app", "postgres")),
        ("the role does not exist", to("other", "postgres") + " password=wrong"),
        ("the role may not log in", to("group_role", "postgres") + " password=right"),
        ("the database does not exist", to("postgres", "other")),
        ("the role may not connect to the database", to("app", "closed") + " password=right"),
        ("the database accepts no connections", to("postgres", "locked")),
        ("a setting in `options` does not exist", to("postgres", "postgres") + " options='-c nonsense=1'"),
        (
            "the role may not change a setting in `options`",
            to("app", "postgres") + " password=right options='-c log_statement=all'",
        ),
        ("`options` has a word that is no setting", to("postgres", "postgres") + " options=endpoint=a"),
        (
            "the role may not take the role in `options`",
            to("app", "postgres") + " password=right options='-c role=postgres'",
        ),
        ("the server has no connection left", to("few", "postgres") + " password=right"),
        ("`pg_hba.conf` has no entry for the client", to("nobody", "postgres")),
        (
            "the server does not do TLS, and `sslmode` requires it",
            to("postgres", "postgres") + " sslmode=require",
        ),
        (
            "`sslnegotiation` is direct, and the server does not do that",
            to("postgres", "postgres") + " sslmode=require sslnegotiation=direct",
        ),
        ("the certificate is of another authority", tls("localhost", &other)),
        ("the certificate is for another host", tls("127.0.0.1", &right)),
        (
            "the certificate is of X.509 version 1",
            format!(
                "host=localhost port={old_port} user=postgres sslmode=verify-ca sslrootcert={}",
                old.0.display()
            ),
        ),
        ("the file in `sslrootcert` does not exist", tls("localhost", &missing)),
        (
            "the file in `sslkey` does not exist",
            tls("localhost", &right) + &format!(" sslcert={} sslkey=/none", right.0.display()),
        ),
        (
            "the certificate in `sslcert` is of X.509 version 1",
            tls("localhost", &right) + &format!(" sslcert={0} sslkey={0}", old.0.display()),
        ),
    ];
    let mut found = Vec::new();
    for (state, text) in states {
        let mut config = world.config();
        config.query_timeout = std::time::Duration::from_secs(10);
        let error = SessionManager::connect(&text, config).await.expect_err(state);
        found.push(format!("| {state} | `{:?}` | {error} |", error.kind()));
    }
    compare(&found, "Connections");
}

/// What poolers answer, and the setting that the error names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_by_poolers_name_the_setting() {
    let world = World::new();
    for (code, message, says) in [
        ("08P01", "no more connections allowed (max_client_conn)", "max_client_conn"),
        ("XX000", "MaxClientsInSessionMode: max clients reached", "max_client_conn"),
        ("53300", "sorry, too many clients already", "max_connections"),
        ("08P01", "no such database: app", "a pooler or proxy before PostgreSQL"),
        ("XX000", "Tenant or user not found", "a pooler or proxy before PostgreSQL"),
    ] {
        let mut config = world.config();
        config.query_timeout = std::time::Duration::from_secs(3);
        let url = refusing(code, message).await;
        let error = SessionManager::connect(&url, config).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{message}: {error:?}");
        assert!(error.to_string().contains(says), "{message}: {error:?}");
        assert!(format!("{error:?}").contains(message), "it has the cause: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_that_cannot_be_loaded_is_named() {
    let sandbox = Sandbox::start().unwrap();
    let world = World::on(&sandbox);
    let client = world.client().await;
    client
        .batch_execute(
            "CREATE ROLE odd LOGIN; ALTER ROLE odd SET session_preload_libraries = 'no_such_library'",
        )
        .await
        .unwrap();
    let url = world.url.replace("postgres@", "odd@");
    let mut config = world.config();
    config.query_timeout = std::time::Duration::from_secs(3);
    let error = SessionManager::connect(&url, config).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains("session_preload_libraries"), "{error}");
    assert!(format!("{error:?}").contains("no_such_library"), "{error:?}");
}
