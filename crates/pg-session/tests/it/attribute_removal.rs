//! Removal of one attribute from all sessions of a user.

use pg_session::UpdateError;

use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attribute_is_removed_from_all_user_sessions_on_all_nodes() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(a.create(1).set("roles", &["admin"]).set("name", "Ann").await.unwrap().id());
    }
    let without = a.create(1).set("name", "Ann").await.unwrap();
    let other = a.create(2).set("roles", &["admin"]).await.unwrap();
    let mut held = Vec::new();
    for &id in &ids {
        held.push(b.get(id).await.unwrap().unwrap());
    }
    assert_eq!(a.user(1).remove_attribute("roles").await.unwrap(), 3);
    assert_eq!(a.user(1).remove_attribute("roles").await.unwrap(), 0, "no session has it any more");
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
    assert!(a.user(1).remove_attribute("").await.is_err());
}
