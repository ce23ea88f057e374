//! Other ways to connect: statements that are never prepared, and the application's own pool.

use std::str::FromStr;
use std::time::Duration;

use deadpool_postgres::{Manager, Pool};
use pg_session::{Config, ErrorKind, SessionLimit, SessionManager, StatementMode, UpdateError};
use tokio_postgres::NoTls;

use crate::support::World;

pub fn pool(world: &World, connections: usize) -> Pool {
    let server = tokio_postgres::Config::from_str(&world.url).unwrap();
    Pool::builder(Manager::new(server, NoTls)).max_size(connections).build().unwrap()
}

pub async fn node_on(world: &World, pool: &Pool, config: Config) -> SessionManager {
    let builder = SessionManager::builder(config).url(&world.url).unwrap().pool(pool.clone());
    let node = builder.connect().await.unwrap();
    node.wait_until_trusted().await.unwrap();
    node
}

/// Every statement that the library has, once.
pub async fn story(a: &SessionManager, b: &SessionManager) {
    let mut on_a = a.create(1).group(2).set("x", &1).await.unwrap();
    let mut on_b = b.get(on_a.id()).await.unwrap().unwrap();
    on_a.set("x", &2).unwrap();
    a.save(&mut on_a).check_attributes().await.unwrap();
    on_b.set("x", &3).unwrap();
    let outcome = b.save(&mut on_b).check_version().await;
    assert!(matches!(outcome, Err(UpdateError::Conflict { .. })));
    b.save(&mut on_b).expires_in(Duration::from_secs(60)).await.unwrap();
    assert_eq!(on_b.version().get(), 3);
    a.catch_up().await.unwrap();
    assert_eq!(a.get(on_a.id()).await.unwrap().unwrap().get::<i32>("x").unwrap(), Some(3));

    for _ in 0..5 {
        a.create(1).await.unwrap();
    }
    assert!(a.get(on_a.id()).await.unwrap().is_none(), "the cap holds");
    let grouped = a.create(9).group(2).await.unwrap();
    b.user(9).evict().await.unwrap();
    assert_eq!(b.group(2).delete().await.unwrap(), 1);
    a.catch_up().await.unwrap();
    assert!(a.get(grouped.id()).await.unwrap().is_none());
    let lone = a.create(3).await.unwrap();
    assert!(b.delete(lone.id()).await.unwrap());
    assert_eq!(a.user(1).delete().await.unwrap(), 5);
    assert_eq!(a.delete_all_sessions().await.unwrap(), 0);
}

/// Plans that the server has made for the actual values of statements that begin so, on the pool's only connection.
async fn custom_plans(pool: &Pool, begin: &str) -> i64 {
    let connection = pool.get().await.unwrap();
    let sql = format!(
        "SELECT sum(custom_plans)::bigint FROM pg_prepared_statements WHERE statement LIKE '{begin}%' HAVING count(*) = 1"
    );
    let rows = connection.query_typed(&sql, &[]).await.unwrap();
    rows.first().expect("one statement").get(0)
}

#[tokio::test]
async fn a_create_is_planned_once_whatever_the_table_becomes() {
    let world = World::new();
    let version =
        world.client().await.query_one("SELECT current_setting('server_version_num')::int", &[]).await;
    if version.unwrap().get::<_, i32>(0) < 140_000 {
        return; // PostgreSQL does not count custom plans before version 14.
    }
    let pool = pool(&world, 1);
    let mut config = world.config();
    config.statement_mode = StatementMode::Prepared;
    let node = node_on(&world, &pool, config).await;
    let client = world.client().await;
    let analysed = async |users: std::ops::Range<i64>| {
        for user in users {
            // The last of them has to make room.
            for _ in 0..6 {
                node.create(user).await.unwrap();
            }
        }
        client.batch_execute("ANALYZE sessions").await.unwrap();
    };
    analysed(1..10).await;
    // By default the first five plans of a statement are for the actual values.
    assert_eq!(custom_plans(&pool, "WITH room").await, 5);
    analysed(10..40).await;
    node.create(99).await.unwrap();
    assert_eq!(custom_plans(&pool, "WITH room").await, 5, "nothing in it depends on the table");
    let room = "SELECT proconfig FROM pg_proc
                WHERE proname = 'session_make_room' AND pronamespace = $1::text::regnamespace";
    let room = client.query_one(room, &[&world.schema]).await.unwrap();
    assert!(room.get::<_, Vec<String>>(0).contains(&"plan_cache_mode=force_generic_plan".to_owned()));
}

/// What the server has prepared on the pool's only connection.
async fn prepared(pool: &Pool) -> i64 {
    let connection = pool.get().await.unwrap();
    // Not prepared by the driver, either.
    let rows = connection.query_typed("SELECT count(*) FROM pg_prepared_statements", &[]).await.unwrap();
    rows[0].get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unnamed_statements_agree_and_leave_nothing_prepared() {
    let world = World::new();
    let mut config = world.config();
    config.statement_mode = StatementMode::Unnamed;
    let pool = pool(&world, 1);
    let (a, b) = (node_on(&world, &pool, config.clone()).await, node_on(&world, &pool, config).await);
    story(&a, &b).await;
    assert_eq!(prepared(&pool).await, 0, "a pooler may give the next statement another connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unnamed_statements_keep_the_cap() {
    let world = World::new();
    let mut config = world.config();
    config.statement_mode = StatementMode::Unnamed;
    config.on_session_limit = SessionLimit::Refuse;
    let nodes = [world.node_with(config.clone()).await, world.node_with(config).await];
    let creates: Vec<_> = (0..50)
        .map(|login| {
            let node = nodes[login % 2].clone();
            tokio::spawn(async move { node.create(1).await })
        })
        .collect();
    let mut made = 0;
    for create in creates {
        match create.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::SessionLimit),
        }
    }
    assert_eq!(made, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_pool_is_used_and_survives_the_node() {
    let world = World::new();
    let pool = pool(&world, 2);
    let (a, b) = (node_on(&world, &pool, world.config()).await, node_on(&world, &pool, world.config()).await);
    story(&a, &b).await;
    assert!(prepared(&pool).await > 0, "on the pool's connections");
    for node in [a, b] {
        assert!(node.shutdown(Duration::from_secs(10)).await.is_complete());
    }
    assert!(!pool.is_closed());
    assert!(pool.get().await.unwrap().simple_query("SELECT 1").await.is_ok(), "the application goes on");
}

#[tokio::test]
async fn a_pool_alone_does_not_say_where_to_listen() {
    let world = World::new();
    let error = SessionManager::builder(world.config()).pool(pool(&world, 1)).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("listen_on"), "{error}");
}
