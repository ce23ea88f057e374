//! Updates without a notification, by call and by configuration.

use std::time::Duration;

use pg_session::{GroupId, UpdateError};

use crate::support::{World, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_notify_update_is_unseen_and_conflict_notifies() {
    let world = World::new();
    let mut config = world.config();
    config.notify_conflicts = true;
    let (a, b) = (world.node_with(config.clone()).await, world.node_with(config).await);
    let mut on_a = a.create(1).set("n", &1).await.unwrap();
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
        "b's conflict notified a"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notify_updates_false_sends_no_notification() {
    let world = World::new();
    let mut config = world.config();
    config.notify_updates = false;
    let (a, b) = (world.node_with(config).await, world.node().await);
    let mut on_a = a.create(1).set("n", &1).await.unwrap();
    b.get(on_a.id()).await.unwrap().unwrap();
    on_a.set("n", &2).unwrap();
    a.save(&mut on_a).await.unwrap();
    b.catch_up().await.unwrap();
    assert_eq!(b.get(on_a.id()).await.unwrap().unwrap().get::<i32>("n").unwrap(), Some(1));
}

/// ```text
/// A   moves the session to a group, or shortens it, without a notification ── ends the group
/// B   has the session in memory ─────────────────────────────────────────────────── must not serve it
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_limits_and_groups_are_notified_in_any_case() {
    let world = World::new();
    let mut config = world.config();
    config.notify_updates = false;
    let (a, b) = (world.node_with(config).await, world.node().await);
    let blue = GroupId::named("blue");
    let mut moved = a.create(1).await.unwrap();
    let mut shortened = a.create(2).await.unwrap();
    for session in [&moved, &shortened] {
        assert!(b.get(session.id()).await.unwrap().is_some());
    }
    a.save(&mut moved).group(Some(blue)).no_notify().await.unwrap();
    assert_eq!(a.group(blue).delete().await.unwrap(), 1);
    b.catch_up().await.unwrap();
    assert!(b.get(moved.id()).await.unwrap().is_none(), "it has ended with its group");
    a.save(&mut shortened).expires_in(Duration::from_millis(100)).no_notify().await.unwrap();
    eventually("it expires on B", async || b.get(shortened.id()).await.unwrap().is_none()).await;
}
