//! The tables: made once by any number of nodes, kept apart by prefix, and what their columns contain.

use pg_session::{ErrorKind, Migrations, SessionManager, UserId};
use uuid::Uuid;

use crate::support::World;
use crate::tables::counts;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_that_start_together_make_the_tables_once() {
    let world = World::new();
    let starts: Vec<_> = (0..5)
        .map(|_| {
            let (url, config) = (world.url.clone(), world.config());
            tokio::spawn(async move { SessionManager::connect(&url, config).await })
        })
        .collect();
    for start in starts {
        start.await.unwrap().expect("each node starts");
    }
    let node = world.node().await;
    node.create(1).await.unwrap();
    let observer = world.client().await;
    let rows = observer.query("SELECT version FROM session_migrations", &[]).await.unwrap();
    let versions: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(versions, (1..).take(versions.len()).collect::<Vec<i32>>(), "each migration once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applying_again_changes_nothing() {
    let world = World::new();
    let id = world.node().await.create(1).set("x", &1).await.unwrap().id();
    let again = world.node().await;
    assert!(again.get(id).await.unwrap().is_some());
    assert_eq!(counts(&world.client().await).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_sql_satisfies_the_check() {
    let world = World::new();
    let mut config = world.config();
    config.migrations = Migrations::Check;
    config.table_prefix = "app \"1\" ".to_owned();
    let error = SessionManager::connect(&world.url, config.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    let script = format!("BEGIN; {} COMMIT;", Migrations::sql(&config).unwrap());
    world.client().await.batch_execute(&script).await.unwrap();
    let node = world.node_with(config).await;
    let id = node.create(1).set("x", &1).await.unwrap().id();
    assert!(node.get(id).bypass_cache().await.unwrap().is_some());
}

/// A type of the client's path has the name of one of PostgreSQL's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_sql_ignores_the_clients_search_path() {
    for (begin, end) in [("BEGIN;", "COMMIT;"), ("", "")] {
        let world = World::new();
        let mut config = world.config();
        config.migrations = Migrations::Check;
        let client = world.client().await;
        let schema = format!("{}_hostile", world.schema);
        let plant = format!(
            "CREATE SCHEMA {schema}; CREATE DOMAIN {schema}.uuid AS text; CREATE DOMAIN {schema}.timestamptz AS text;
             CREATE DOMAIN {schema}.int8 AS text; SET search_path = {schema}, pg_catalog"
        );
        client.batch_execute(&plant).await.unwrap();
        let printed = Migrations::sql(&config).unwrap();
        client.batch_execute(&format!("{begin} {printed} {end}")).await.unwrap();
        let path: String = client.query_one("SHOW search_path", &[]).await.unwrap().get(0);
        assert_eq!(path, format!("{schema}, pg_catalog"), "it is restored");
        client.batch_execute(&Migrations::definer_sql(&config).unwrap()).await.unwrap();
        let foreign = "SELECT count(*) FROM pg_depend d JOIN pg_type t ON d.refclassid = 'pg_type'::regclass AND d.refobjid = t.oid
                       WHERE t.typnamespace = $1::text::regnamespace AND d.classid <> 'pg_type'::regclass";
        let foreign: i64 = client.query_one(foreign, &[&schema]).await.unwrap().get(0);
        assert_eq!(foreign, 0, "objects that use the planted types");
        let node = world.node_with(config).await;
        assert!(node.create(1).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tables_are_made_in_a_template_database() {
    let world = World::in_own_database().await;
    let name = world.url.rsplit_once('/').unwrap().1;
    let client = World::new().client().await;
    client.batch_execute(&format!("ALTER DATABASE {name} IS_TEMPLATE true")).await.unwrap();
    let error = SessionManager::connect(&world.url, world.config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains(name) && text.contains("CREATE DATABASE"), "{text}");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
    let found = world.client().await.query_one(schemas, &[&world.schema]).await.unwrap();
    assert_eq!(found.get::<_, i64>(0), 0);
    client.batch_execute(&format!("ALTER DATABASE {name} IS_TEMPLATE false")).await.unwrap();
    world.node().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_prefixes_in_one_schema_do_not_see_each_other() {
    let world = World::new();
    let (mut left, mut right) = (world.config(), world.config());
    left.table_prefix = "left_".to_owned();
    right.table_prefix = "right_".to_owned();
    let (left, right) = (world.node_with(left).await, world.node_with(right).await);
    let (on_left, on_right) = (left.create(1).await.unwrap(), right.create(1).await.unwrap());
    assert!(right.get(on_left.id()).await.unwrap().is_none());
    assert!(left.get(on_right.id()).await.unwrap().is_none());
    assert_eq!(left.delete_all_sessions().await.unwrap(), 1);
    right.catch_up().await.unwrap();
    assert!(right.get(on_right.id()).await.unwrap().unwrap().is_from_cache(), "it received nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_column_holds_the_id_as_documented() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    let uuid = Uuid::new_v4();
    let users =
        [UserId::from(42), UserId::from(-1_i64), UserId::named("ann@example.org"), UserId::from(uuid)];
    for user in users {
        let id = node.create(user).await.unwrap().id();
        let text = "SELECT user_id FROM sessions WHERE id = $1";
        let stored: Uuid = observer.query_one(text, &[&id.expose()]).await.unwrap().get(0);
        assert_eq!(stored, user.as_uuid());
        let read = node.get(id).bypass_cache().await.unwrap().unwrap();
        assert_eq!(read.user_id(), Some(user));
        assert_eq!(read.user_id().and_then(UserId::as_integer), user.as_integer());
    }
    assert_eq!(
        users[0].as_uuid().to_string(),
        "70677365-7373-8000-8000-00000000002a",
        "an integer, embedded"
    );
    assert_eq!((users[0].as_integer(), users[1].as_integer()), (Some(42), Some(-1)));
    assert_eq!((users[2].as_uuid().get_version_num(), users[2].as_integer()), (8, None), "a text, hashed");
    assert_eq!(users[3].as_uuid(), uuid, "a uuid, as it is");
}
