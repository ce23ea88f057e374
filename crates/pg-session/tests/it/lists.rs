//! Lists of the sessions of a user or a group.

use pg_session::GroupId;

use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_show_live_sessions_latest_access_first() {
    let world = World::new();
    let node = world.node().await;
    let desk = node.create(7).set("device", "desk").group(GroupId::named("acme")).await.unwrap();
    let phone = node.create(7).set("device", "phone").await.unwrap();
    node.create(8).group(GroupId::named("acme")).await.unwrap();
    let statement =
        "UPDATE sessions SET last_accessed_at = last_accessed_at - interval '1 hour' WHERE id = $1";
    world.client().await.execute(statement, &[&phone.id().expose()]).await.unwrap();

    let of_user = node.user(7).list().await.unwrap();
    let devices: Vec<String> =
        of_user.iter().map(|session| session.get("device").unwrap().unwrap()).collect();
    assert_eq!(devices, ["desk", "phone"]);
    assert_eq!(node.group(GroupId::named("acme")).list().await.unwrap().len(), 2);
    assert!(node.group(GroupId::named("other")).list().await.unwrap().is_empty());
    node.delete(desk.id()).await.unwrap();
    assert_eq!(node.user(7).list().await.unwrap().len(), 1);
    assert_eq!(node.group(GroupId::named("acme")).list().await.unwrap().len(), 1);
}
