//! The tables: made once whoever makes them, kept apart by prefix, and what stands in their columns.

use pg_session::{ErrorKind, Migrations, SessionId, SessionManager, UpdateError, UserId, migrations_sql};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::World;
use crate::tables::{counts, in_places, places};

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
    let id = world.node().await.create(1).set("x", &1).unwrap().await.unwrap().id();
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
    let script = format!("BEGIN; {} COMMIT;", migrations_sql(&config).unwrap());
    world.client().await.batch_execute(&script).await.unwrap();
    let node = world.node_with(config).await;
    let id = node.create(1).set("x", &1).unwrap().await.unwrap().id();
    assert!(node.get(id).refresh().await.unwrap().is_some());
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
    assert!(right.get(on_right.id()).await.unwrap().unwrap().is_from_cache(), "it heard nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_id_stands_in_the_column_as_documented() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    let uuid = Uuid::new_v4();
    let users = [UserId::from(42), UserId::from(-1_i64), UserId::from("ann@example.org"), UserId::from(uuid)];
    for user in users {
        let id = node.create(user).await.unwrap().id();
        let text = "SELECT user_id FROM sessions WHERE id = $1";
        let stored: Uuid = observer.query_one(text, &[&id.expose()]).await.unwrap().get(0);
        assert_eq!(stored, user.as_uuid());
        let read = node.get(id).refresh().await.unwrap().unwrap();
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

/// The tables as they were before a migration, in use: with a session, its attributes, and a lock that is held.
async fn in_use(world: &World, before: &str) -> (Client, SessionId) {
    let script = migrations_sql(&world.config()).unwrap();
    let (old, _) = script.split_once(before).expect("the migration has its number");
    let observer = world.client().await;
    observer.batch_execute(old).await.unwrap();
    let (id, user) = (SessionId::from_uuid(Uuid::new_v4()), UserId::from(42));
    let text = "WITH born AS (
                    INSERT INTO sessions (id, user_id, version, idle_limited, created_at, updated_at,
                                          last_accessed_at, expires_at)
                    VALUES ($1, $2, 3, true, now(), now(), now(), now() + interval '1 day') RETURNING id
                ), locked AS (
                    INSERT INTO session_locks (session_id, name, owner, fence, acquired_at, expires_at)
                    SELECT id, 'checkout', gen_random_uuid(), 7, now(), now() + interval '1 hour' FROM born
                )
                INSERT INTO session_attributes (session_id, key, value, version, expires_at)
                SELECT id, key, value, version, now() + lifetime FROM born CROSS JOIN (VALUES
                    ('cart', '1', 3, NULL), ('name', '\"Ann\"', 2, NULL), ('coupon', '9', 1, NULL),
                    ('offer', '7', 2, interval '1 hour'), ('over', '0', 2, interval '-1 hour')
                ) a (key, value, version, lifetime)";
    observer.execute(text, &[&id.expose(), &user.as_uuid()]).await.unwrap();
    (observer, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_in_use_are_brought_up_to_date_and_keep_what_they_hold() {
    for (version, next) in
        [(2, "-- 0003:"), (4, "-- 0005:"), (5, "-- 0006:"), (6, "-- 0007:"), (7, "-- 0008:")]
    {
        let world = World::new();
        let (_, id) = in_use(&world, next).await;
        let mut checking = world.config();
        checking.migrations = Migrations::Check;
        let error = SessionManager::connect(&world.url, checking).await.unwrap_err();
        let told = format!("at version {version}, this library needs 8");
        assert!(error.to_string().contains(&told), "{error}");

        let node = world.node().await;
        let mut session = node.get(id).await.unwrap().unwrap();
        assert_eq!((session.user_id(), session.is_rotated()), (Some(UserId::from(42)), false));
        node.rotate(&mut session).await.unwrap();
        assert_eq!((session.version().get(), session.get("cart").unwrap()), (4, Some(1)));
        assert_eq!(session.keys(), ["cart", "coupon", "name", "offer"]);
        assert!(session.attribute_expires_at("offer").is_some());
        let lock = node.session_lock_holder(session.id(), "checkout").await.unwrap().unwrap();
        assert_eq!(lock.fence.get(), 7);
        assert!(node.get(id).await.unwrap().unwrap().is_rotated());
        let read = node.get(session.id()).refresh().await.unwrap().unwrap();
        assert_eq!((read.keys(), read.get("cart").unwrap()), (session.keys(), Some(1)));
    }
}

/// They have rows of their own, as all attributes had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_from_before_they_were_in_the_row_are_read_and_move_there_when_they_are_set() {
    let world = World::new();
    let (observer, id) = in_use(&world, "-- 0005:").await;
    let (a, b) = (world.node().await, world.node().await);
    let mut session = a.get(id).await.unwrap().unwrap();
    let versions =
        ["cart", "coupon", "name", "offer"].map(|key| session.attribute_version(key).unwrap().get());
    assert_eq!((session.keys(), versions), (vec!["cart", "coupon", "name", "offer"], [3, 1, 2, 2]));
    let mut stale = b.get(id).await.unwrap().unwrap();

    session.set("cart", &2).unwrap();
    a.update(&mut session).await.unwrap();
    let apart = [("coupon", 1), ("name", 2), ("offer", 2), ("over", 2)];
    assert_eq!(places(&observer, id).await, in_places(r#"{"cart":[2,4]}"#, &apart, true));

    // One that is where it was is checked, and removed, by what it was.
    stale.set("cart", &3).unwrap();
    assert!(matches!(
        b.update(&mut stale).check_attributes().await,
        Err(UpdateError::Conflict { keys }) if keys == ["cart"]
    ));
    stale.discard_changes();
    stale.remove("name");
    b.update(&mut stale).check_attributes().await.unwrap();
    assert_eq!((stale.version().get(), stale.keys()), (5, vec!["cart", "coupon", "offer"]));
    assert_eq!(a.delete_attribute_from_user_sessions(42, "coupon").await.unwrap(), 1);
    let apart = [("offer", 2), ("over", 2)];
    assert_eq!(places(&observer, id).await, in_places(r#"{"cart":[2,4]}"#, &apart, true));

    // One that expired unseen, and is set again.
    stale.set("over", "not").unwrap();
    b.update(&mut stale).await.unwrap();
    a.catch_up().await.unwrap();
    for node in [&a, &b] {
        for read in [node.get(id).await, node.get(id).refresh().await] {
            let read = read.unwrap().unwrap();
            assert_eq!((read.version().get(), read.keys()), (7, vec!["cart", "offer", "over"]));
            assert_eq!(read.get::<String>("over").unwrap().as_deref(), Some("not"));
        }
    }
    assert!(a.delete(id).await.unwrap());
    assert_eq!(counts(&observer).await, (0, 0));
}
