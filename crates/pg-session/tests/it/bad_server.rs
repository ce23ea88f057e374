//! Servers that cannot be used: not there, not for this role, without the tables, or with tables of another program. Each is a
//! typed error at the start that says what to do, and nothing is left behind.

use std::future::IntoFuture as _;
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, Error, ErrorKind, LockError, Migrations, SessionManager};
use tokio::net::TcpListener;

use crate::support::{World, eventually};

async fn refused(url: &str, config: Config) -> Error {
    SessionManager::connect(url, config).await.expect_err("it must not start")
}

fn chain(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!(": {cause} {cause:?}"));
        next = cause.source();
    }
    text
}

fn assert_says(error: &Error, kind: ErrorKind, advice: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains(advice), "{error:?} does not say {advice:?}");
}

fn as_role(world: &World, role: &str) -> String {
    let (_, server) = world.url.split_once('@').expect("the sandbox's URL has a role");
    format!("postgres://{role}@{server}")
}

fn checking(world: &World) -> Config {
    let mut config = world.config();
    config.migrations = Migrations::Check;
    config
}

/// A role that may log in and nothing else, named after the test's schema.
async fn role(world: &World, grants: &str) -> String {
    let (role, schema) = (format!("role_{}", world.schema), &world.schema);
    let script =
        format!("CREATE ROLE {role} LOGIN; {}", grants.replace("{role}", &role).replace("{schema}", schema));
    world.client().await.batch_execute(&script).await.unwrap();
    role
}

#[tokio::test]
async fn a_connection_string_that_does_not_parse_is_not_repeated() {
    let world = World::new();
    for url in [
        "postgres://ann:hunter2@localhost:port/db",
        "postgres://ann:hunter2@localhost/db?sslmod=require",
        "postgres://ann:hunter2@localhost/db?connect_timeout=hunter2",
        "host=localhost password=hunter2 user",
        "host=localhost password='hunter2",
        "hunter2",
    ] {
        let error = refused(url, world.config()).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error:?}");
        assert!(!chain(&error).contains("hunter2"), "{}", chain(&error));
    }
    let error = refused("localhost", world.config()).await;
    assert!(error.to_string().contains("postgres://user:password@host:5432/database"), "{error}");
}

#[tokio::test]
async fn a_closed_port_is_unavailable_and_said_to_be() {
    let world = World::new();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = refused(&format!("postgres://ann:hunter2@{free}/db"), world.config()).await;
    assert_says(&error, ErrorKind::Unavailable, "check host, port and network");
    assert!(!chain(&error).contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_character_outside_the_encoding_is_named_without_bytes() {
    let world = World::new();
    let name = format!("latin1_{}", world.schema);
    let create =
        format!("CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    world.client().await.batch_execute(&create).await.unwrap();
    let (server, _) = world.url.rsplit_once('/').unwrap();
    let node = SessionManager::connect(&format!("{server}/{name}"), world.config()).await.unwrap();
    // Both values travel in one statement. Only the euro sign is refused.
    let euro = node.create(1).set("price", &"5 \u{20ac}").into_future();
    let pound = node.create(1).set("price", &"5 \u{a3}").into_future();
    let (euro, pound) = tokio::join!(euro, pound);
    assert!(pound.is_ok(), "{pound:?}");
    let Err(LockError::Failed(name)) = node.locks().lock("\u{20ac}").await else {
        panic!("it cannot be stored")
    };
    for error in [euro.unwrap_err(), name] {
        assert_says(&error, ErrorKind::Config, "encoding UTF8");
        assert!(!chain(&error).contains("0xe2"), "{}", chain(&error));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_function_is_named_with_what_restores_it() {
    let world = World::new();
    let node = world.node().await;
    world.client().await.batch_execute("DROP FUNCTION session_make_room").await.unwrap();
    let running = node.create(1).await.unwrap_err();
    let starting = refused(&world.url, checking(&world)).await;
    for error in [running, starting] {
        assert_says(&error, ErrorKind::Schema, "session_make_room");
        assert_says(&error, ErrorKind::Schema, "restore it as the SQL of `Migrations::sql` makes it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_disappears_is_named_with_its_setting() {
    let world = World::new();
    let node = world.node().await;
    let drop = format!("DROP SCHEMA {} CASCADE", world.schema);
    world.client().await.batch_execute(&drop).await.unwrap();
    let error = node.create(1).await.unwrap_err();
    assert_says(&error, ErrorKind::Schema, "migrations = \"apply\"");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_after_the_timeout() {
    let world = World::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = world.config();
    config.query_timeout = Duration::from_millis(50);
    config.migrations = Migrations::Check;
    let url = format!("postgres://ann@{}/db", silent.local_addr().unwrap());
    let error = refused(&url, config).await;
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_role_and_a_wrong_database_are_named_as_such() {
    let world = World::new();
    let error = refused(&as_role(&world, "unknown_role"), world.config()).await;
    assert_says(&error, ErrorKind::Config, "correct the connection string");
    let (server, _) = world.url.rsplit_once('/').unwrap();
    let error = refused(&format!("{server}/no_such_database"), world.config()).await;
    assert_says(&error, ErrorKind::Config, "the database does not exist; create it");
}

/// A sandbox trusts every role, so one of its own is made to ask one role for its password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_named_as_such_and_not_repeated() {
    let sandbox = Sandbox::start().unwrap();
    let world = World::on(&sandbox);
    let role = role(&world, "ALTER ROLE {role} PASSWORD 'right'").await;
    let observer = world.client().await;
    let row = observer
        .query_one("SELECT current_setting('hba_file'), pg_read_file(current_setting('hba_file'))", &[]);
    let row = row.await.unwrap();
    let (file, rules): (String, String) = (row.get(0), row.get(1));
    let rules = format!("host all {role} all scram-sha-256\n{rules}");
    let script = format!(
        "COPY (SELECT line FROM unnest(string_to_array($rules${rules}$rules$, E'\n')) AS line) TO '{file}';
         SELECT pg_reload_conf()"
    );
    observer.batch_execute(&script).await.unwrap();
    let url = as_role(&world, &format!("{role}:hunter2"));
    eventually("the server asks for the password", async || {
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_err()
    })
    .await;
    let error = refused(&url, world.config()).await;
    assert_says(&error, ErrorKind::Config, "user name or password; correct the connection string");
    assert!(!chain(&error).contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_tables_are_not_made_unless_asked_for() {
    let world = World::new();
    let error = refused(&world.url, checking(&world)).await;
    assert_says(&error, ErrorKind::Schema, "migrations = \"apply\"");
    assert!(error.to_string().contains("Migrations::sql"), "{error}");
    let text = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
    let made: i64 = world.client().await.query_one(text, &[&world.schema]).await.unwrap().get(0);
    assert_eq!(made, 0, "not even the schema");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_a_newer_version_are_left_alone() {
    let world = World::new();
    let node = world.node().await;
    assert!(node.shutdown(Duration::from_secs(10)).await.is_complete());
    let script = "INSERT INTO session_migrations (version, name) VALUES (1000, 'from the future')";
    world.client().await.batch_execute(script).await.unwrap();
    for config in [checking(&world), world.config()] {
        let error = refused(&world.url, config).await;
        assert_says(&error, ErrorKind::Schema, "upgrade this node");
        assert!(error.to_string().contains("version 1000"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_rights_are_named_with_the_grant_that_gives_them() {
    let world = World::new();
    world.node().await;
    let role = role(&world, "").await;
    let url = as_role(&world, &role);
    let owner = world.client().await;
    let schema = &world.schema;
    let steps = [
        "SELECT 'nothing yet'".to_owned(),
        format!("GRANT USAGE ON SCHEMA {schema} TO {role}"),
        format!("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}"),
    ];
    for step in steps {
        owner.batch_execute(&step).await.unwrap();
        let error = refused(&url, checking(&world)).await;
        assert_says(&error, ErrorKind::Permission, "GRANT USAGE ON SCHEMA");
        assert_says(&error, ErrorKind::Permission, "GRANT SELECT, INSERT, UPDATE, DELETE ON");
    }

    // What the message says, done as it says.
    owner.batch_execute(&format!("REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {role}")).await.unwrap();
    let text = refused(&url, checking(&world)).await.to_string();
    let grants = text.split_once("run: ").expect("it says what to run").1.to_owned();
    assert!(grants.contains(&format!(" TO {role}")), "{grants}");
    owner.batch_execute(&grants).await.unwrap();
    let node = SessionManager::connect(&url, checking(&world)).await.expect("now it may");
    let id = node.create(1).set("x", &1).await.unwrap().id();
    assert!(node.delete(id).await.unwrap());
}

/// Everyone may execute PostgreSQL's functions and read its catalogs, until an administrator revokes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_rights_on_postgresqls_own_objects_are_named() {
    let world = World::in_own_database().await;
    world.node().await;
    let role = role(
        &world,
        "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role};
         GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {schema} TO {role}",
    )
    .await;
    let client = world.client().await;
    let url = as_role(&world, &role);
    let node = SessionManager::connect(&url, checking(&world)).await.unwrap();
    for object in [
        "EXECUTE ON FUNCTION pg_catalog.pg_notify(text,text)",
        "EXECUTE ON FUNCTION pg_catalog.pg_notification_queue_usage()",
        "EXECUTE ON FUNCTION pg_catalog.set_config(text,text,boolean)",
        "EXECUTE ON FUNCTION pg_catalog.pg_advisory_xact_lock(bigint)",
        "SELECT ON pg_catalog.pg_roles",
        "SELECT ON pg_catalog.pg_auth_members",
        "SELECT ON pg_catalog.pg_policy",
        "SELECT ON pg_catalog.pg_inherits",
    ] {
        client.batch_execute(&format!("REVOKE {object} FROM PUBLIC")).await.unwrap();
        let advice = format!("run: GRANT {object} TO <role>");
        assert_says(&refused(&url, checking(&world)).await, ErrorKind::Permission, &advice);
        if object.contains("set_config") {
            assert_says(&node.create(1).await.unwrap_err(), ErrorKind::Permission, &advice);
        }
        client.batch_execute(&format!("GRANT {object} TO PUBLIC")).await.unwrap();
    }
    SessionManager::connect(&url, checking(&world)).await.unwrap();
}

/// The role may create tables, and lacks what everyone has by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_the_migrations_need_are_named() {
    let world = World::in_own_database().await;
    let role = role(&world, "CREATE SCHEMA {schema} AUTHORIZATION {role}").await;
    let (client, url) = (world.client().await, as_role(&world, &role));
    for object in ["USAGE ON LANGUAGE plpgsql", "USAGE ON TYPE uuid", "SELECT ON pg_catalog.pg_default_acl"] {
        client.batch_execute(&format!("REVOKE {object} FROM PUBLIC")).await.unwrap();
        let advice = format!("run: GRANT {object} TO <role>");
        assert_says(&refused(&url, world.config()).await, ErrorKind::Permission, &advice);
        client.batch_execute(&format!("GRANT {object} TO PUBLIC")).await.unwrap();
    }
    client.batch_execute("DROP EXTENSION plpgsql").await.unwrap();
    assert_says(&refused(&url, world.config()).await, ErrorKind::Schema, "CREATE EXTENSION plpgsql");
    let made = "SELECT count(*) FROM pg_class WHERE relnamespace = $1::text::regnamespace";
    let made: i64 = client.query_one(made, &[&world.schema]).await.unwrap().get(0);
    assert_eq!(made, 0, "nothing is half-made");
    client.batch_execute("CREATE EXTENSION plpgsql").await.unwrap();
    SessionManager::connect(&url, world.config()).await.expect("all rights are back");
}

/// Any role may take an advisory lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_the_migrations_wait_for_is_named() {
    let world = World::in_own_database().await;
    let client = world.client().await;
    client.batch_execute("SELECT pg_advisory_lock(8099547404077069056)").await.unwrap();
    let mut config = world.config();
    config.query_timeout = Duration::from_secs(1);
    let error = refused(&world.url, config).await;
    assert_says(&error, ErrorKind::Timeout, "advisory lock 8099547404077069056 (classid 1885822835)");
    client.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    SessionManager::connect(&world.url, world.config()).await.expect("the lock is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_create_learns_who_can() {
    let world = World::new();
    let role = role(&world, "").await;
    let error = refused(&as_role(&world, &role), world.config()).await;
    assert_says(&error, ErrorKind::Permission, "GRANT CREATE ON SCHEMA");
    assert_says(&error, ErrorKind::Permission, "Migrations::sql");
    let text = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
    let observer = world.client().await;
    let made: i64 = observer.query_one(text, &[&world.schema]).await.unwrap().get(0);
    assert_eq!(made, 0);

    // A schema that exists but takes no tables from this role: nothing half-made, either.
    observer
        .batch_execute(&format!("CREATE SCHEMA {0}; GRANT USAGE ON SCHEMA {0} TO {role}", world.schema))
        .await
        .unwrap();
    let error = refused(&as_role(&world, &role), world.config()).await;
    assert_says(&error, ErrorKind::Permission, "GRANT CREATE ON SCHEMA");
    assert_says(&error, ErrorKind::Permission, "Migrations::sql");
    let text = "SELECT count(*) FROM pg_tables WHERE schemaname = $1";
    let made: i64 = observer.query_one(text, &[&world.schema]).await.unwrap().get(0);
    assert_eq!(made, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsuitable_isolation_level_is_refused_with_its_remedy() {
    let world = World::in_own_database().await;
    let client = world.client().await;
    let role = role(&world, "ALTER ROLE {role} SUPERUSER").await;
    let set = async |isolation: &str| {
        let set = format!("ALTER ROLE {role} SET default_transaction_isolation = '{isolation}'");
        client.batch_execute(&set).await.unwrap();
    };
    for isolation in ["repeatable read", "serializable"] {
        set(isolation).await;
        let error = refused(&as_role(&world, &role), world.config()).await;
        assert_says(&error, ErrorKind::Config, &format!("are {isolation}, and sessions need read committed"));
        assert_says(&error, ErrorKind::Config, "SET default_transaction_isolation = 'read committed'");
        let made = client.query_one("SELECT to_regclass('sessions') IS NOT NULL", &[]).await.unwrap();
        assert!(!made.get::<_, bool>(0), "nothing is left behind");
    }
    set("read committed").await;
    SessionManager::connect(&as_role(&world, &role), world.config()).await.unwrap();
}
