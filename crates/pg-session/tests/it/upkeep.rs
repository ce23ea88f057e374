//! What keeps the tables and the memories in order: clean-up, lists, roles dropped, quiet updates, renewed entries.

use std::time::Duration;

use pg_session::{GroupId, IdleLimit, UpdateError, UserId};

use crate::clocks::Clocks;
use crate::support::{World, eventually};

/// Makes the sessions' last access, or end, lie in the past, as only time could.
async fn age(world: &World, column: &str, users: &[i64]) {
    let users: Vec<uuid::Uuid> = users.iter().map(|&user| UserId::from(user).as_uuid()).collect();
    let statement =
        format!("UPDATE sessions SET {column} = {column} - interval '365 days' WHERE user_id = ANY ($1)");
    world.client().await.execute(&statement, &[&users]).await.unwrap();
}

async fn count(world: &World, table: &str) -> i64 {
    world.client().await.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_up_deletes_what_has_ended_and_nothing_else() {
    let world = World::new();
    let mut config = world.config();
    config.cleanup_batch_max = 3; // several statements each
    config.sessions_per_user_max = 0;
    let node = world.node_with(config).await;
    for user in [1, 2, 3] {
        for _ in 0..10 {
            let create = node.create(user).set("a", "x").unwrap();
            create.set("page", &"x".repeat(600)).unwrap().await.unwrap();
        }
    }
    node.create(2).idle_limit(IdleLimit::Exempt).await.unwrap();
    let with_offer = node
        .create(4)
        .set_until("offer", &"20 %".repeat(200), std::time::SystemTime::UNIX_EPOCH)
        .unwrap()
        .set("name", "Ann")
        .unwrap()
        .await
        .unwrap();
    assert_eq!(with_offer.keys(), ["name"], "expired before it began");
    age(&world, "expires_at", &[1]).await;
    age(&world, "last_accessed_at", &[2]).await;

    let done = node.cleanup().await.unwrap();
    assert_eq!(
        (done.expired, done.idle, done.attributes, done.left_to_another),
        (10, 10, 1, false),
        "{done:?}"
    );
    assert_eq!(count(&world, "sessions").await, 12, "user 3, the exempt one, the one with the offer");
    assert_eq!(count(&world, "session_attributes").await, 10, "those of deleted sessions went with them");
    assert_eq!(node.user_sessions(3).await.unwrap().len(), 10);
    let again = node.cleanup().await.unwrap();
    assert_eq!((again.expired, again.idle, again.attributes), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_up_leaves_the_work_to_a_node_that_is_at_it() {
    let world = World::new();
    let node = world.node().await;
    node.create(1).await.unwrap();
    age(&world, "expires_at", &[1]).await;
    let mut client = world.client().await;
    let channel: String = client
        .query_one("SELECT 'pg_session_' || left(encode(sha256(convert_to($1, 'UTF8') || '\\x00'::bytea), 'hex'), 16)", &[&world.schema])
        .await
        .unwrap()
        .get(0);
    let other = client.transaction().await.unwrap();
    let lock = format!("SELECT pg_advisory_xact_lock(hashtextextended('{channel}/clean', 0))");
    other.batch_execute(&lock).await.unwrap();
    let done = node.cleanup().await.unwrap();
    assert!(done.left_to_another && done.expired == 0, "{done:?}");
    other.rollback().await.unwrap();
    assert_eq!(node.cleanup().await.unwrap().expired, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_up_runs_by_itself_and_skips_rows_that_are_in_use() {
    let world = World::new();
    let node = world.node().await;
    let held = node.create(1).await.unwrap();
    node.create(2).await.unwrap();
    age(&world, "expires_at", &[1, 2]).await;
    let mut client = world.client().await;
    let holder = client.transaction().await.unwrap();
    holder.execute("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", &[&held.id().expose()]).await.unwrap();
    let mut config = world.config();
    config.cleanup_interval = Duration::from_millis(20);
    let cleaner = world.node_with(config).await;
    eventually("the other row is gone while one is held", || async { count(&world, "sessions").await == 1 })
        .await;
    holder.rollback().await.unwrap();
    eventually("and then the held one", || async { count(&world, "sessions").await == 0 }).await;
    drop(cleaner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cleaned_up_session_leaves_every_memory() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let session = a.create(1).await.unwrap();
    b.get(session.id()).await.unwrap().unwrap();
    assert_eq!(b.status().cache.sessions, 1);
    age(&world, "expires_at", &[1]).await;
    assert_eq!(a.cleanup().await.unwrap().expired, 1);
    b.catch_up().await.unwrap();
    assert_eq!(b.status().cache.sessions, 0);
    assert!(b.get(session.id()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_show_the_living_the_latest_used_first() {
    let world = World::new();
    let node = world.node().await;
    let desk = node.create(7).set("device", "desk").unwrap().group(GroupId::named("acme")).await.unwrap();
    let phone = node.create(7).set("device", "phone").unwrap().await.unwrap();
    node.create(8).group(GroupId::named("acme")).await.unwrap();
    let statement =
        "UPDATE sessions SET last_accessed_at = last_accessed_at - interval '1 hour' WHERE id = $1";
    world.client().await.execute(statement, &[&phone.id().expose()]).await.unwrap();

    let of_user = node.user_sessions(7).await.unwrap();
    let devices: Vec<String> =
        of_user.iter().map(|session| session.get("device").unwrap().unwrap()).collect();
    assert_eq!(devices, ["desk", "phone"]);
    assert_eq!(node.group_sessions(GroupId::named("acme")).await.unwrap().len(), 2);
    assert!(node.group_sessions(GroupId::named("other")).await.unwrap().is_empty());
    node.delete(desk.id()).await.unwrap();
    assert_eq!(node.user_sessions(7).await.unwrap().len(), 1);
    assert_eq!(node.group_sessions(GroupId::named("acme")).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attribute_is_removed_from_all_sessions_of_a_user_on_every_node() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(
            a.create(1).set("roles", &["admin"]).unwrap().set("name", "Ann").unwrap().await.unwrap().id(),
        );
    }
    let without = a.create(1).set("name", "Ann").unwrap().await.unwrap();
    let other = a.create(2).set("roles", &["admin"]).unwrap().await.unwrap();
    let mut held = Vec::new();
    for &id in &ids {
        held.push(b.get(id).await.unwrap().unwrap());
    }
    assert_eq!(a.delete_attribute_from_user_sessions(1, "roles").await.unwrap(), 3);
    assert_eq!(a.delete_attribute_from_user_sessions(1, "roles").await.unwrap(), 0, "nobody has it any more");
    b.catch_up().await.unwrap();
    for node in [&a, &b] {
        for &id in &ids {
            let session = node.get(id).await.unwrap().unwrap();
            assert_eq!((session.keys(), session.version().get()), (vec!["name"], 2));
        }
        assert_eq!(node.get(without.id()).await.unwrap().unwrap().version().get(), 1);
        assert!(node.get(other.id()).await.unwrap().unwrap().contains("roles"));
    }
    let stale = &mut held[0];
    stale.set("roles", &["user"]).unwrap();
    assert!(
        matches!(b.save(stale).check_attributes().await, Err(UpdateError::Conflict { keys }) if keys == ["roles"])
    );
    assert!(a.delete_attribute_from_user_sessions(1, "").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_update_is_not_heard_and_a_told_conflict_is() {
    let world = World::new();
    let mut config = world.config();
    config.notify_conflicts = true;
    let (a, b) = (world.node_with(config.clone()).await, world.node_with(config).await);
    let mut on_a = a.create(1).set("n", &1).unwrap().await.unwrap();
    let mut on_b = b.get(on_a.id()).await.unwrap().unwrap();
    on_a.set("n", &2).unwrap();
    a.save(&mut on_a).no_notify().await.unwrap();
    b.catch_up().await.unwrap();
    assert_eq!(b.get(on_a.id()).await.unwrap().unwrap().get::<i32>("n").unwrap(), Some(1), "as it asked for");
    assert_eq!(
        a.get(on_a.id()).await.unwrap().unwrap().get::<i32>("n").unwrap(),
        Some(2),
        "but its own node knows"
    );
    let third = world.node().await;
    let mut on_third = third.get(on_a.id()).await.unwrap().unwrap();
    on_b.set("n", &3).unwrap();
    assert!(matches!(b.save(&mut on_b).check_version().await, Err(UpdateError::Conflict { .. })));
    on_third.set("n", &4).unwrap();
    third.save(&mut on_third).no_notify().await.unwrap();
    on_b.set("n", &5).unwrap();
    assert!(matches!(b.save(&mut on_b).check_version().await, Err(UpdateError::Conflict { .. })));
    a.catch_up().await.unwrap();
    assert_eq!(
        a.get(on_a.id()).await.unwrap().unwrap().get::<i32>("n").unwrap(),
        Some(4),
        "b's conflict told a"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_stay_quiet_by_configuration() {
    let world = World::new();
    let mut config = world.config();
    config.notify_updates = false;
    let (a, b) = (world.node_with(config).await, world.node().await);
    let mut on_a = a.create(1).set("n", &1).unwrap().await.unwrap();
    b.get(on_a.id()).await.unwrap().unwrap();
    on_a.set("n", &2).unwrap();
    a.save(&mut on_a).await.unwrap();
    b.catch_up().await.unwrap();
    assert_eq!(b.get(on_a.id()).await.unwrap().unwrap().get::<i32>("n").unwrap(), Some(1));
}

/// The predecessor read a session on every request for ever, once its lifetime in the cache was over.
///
/// Both clocks move: if the node's moved alone, it would learn with the first load that the database's has not, and the old
/// entry would be young again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_past_its_lifetime_in_the_cache_is_read_once_and_renewed() {
    const LIFETIME: Duration = Duration::from_secs(3_600);
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let mut config = world.config();
    config.cache_ttl = LIFETIME;
    let node = clocks.node(&world, config).await;
    let session = node.create(1).await.unwrap();
    clocks.set(LIFETIME - Duration::from_millis(1)).await;
    node.catch_up().await.unwrap();
    assert!(node.get(session.id()).await.unwrap().unwrap().is_from_cache());
    clocks.set(LIFETIME).await;
    assert!(!node.get(session.id()).await.unwrap().unwrap().is_from_cache(), "read again");
    for _ in 0..100 {
        assert!(node.get(session.id()).await.unwrap().unwrap().is_from_cache(), "and renewed");
    }
    assert_eq!(node.status().loads.sessions, 1);
}
