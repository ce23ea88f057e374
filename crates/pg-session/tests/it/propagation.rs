//! What one node does, the others show: after the barrier that proves it, and by themselves within milliseconds.

use pg_session::{GroupId, SessionId, SessionManager, UserId};

use crate::fixtures::{all, hit, ids, make, n, read, read_all, update_all};
use crate::support::{World, eventually};

async fn is_gone(node: &SessionManager, id: SessionId) -> bool {
    node.get(id).await.unwrap().is_none()
}

#[tokio::test]
async fn an_update_is_visible_on_every_other_node_after_a_barrier() {
    let [a, b, c] = World::new().nodes().await;
    let mut sessions = make(&a, 20).await;
    let ids = ids(&sessions);
    for node in [&b, &c] {
        read_all(node, &ids).await;
        assert!(ids.iter().all(|&id| hit(node, id).is_some_and(|session| n(&session) == 1)));
    }
    update_all(&a, &mut sessions, 2).await;
    for node in [&b, &c] {
        node.catch_up().await.unwrap();
        assert!(read_all(node, &ids).await.iter().all(|session| n(session) == 2));
    }
    assert!(ids.iter().all(|&id| hit(&a, id).is_some_and(|session| n(&session) == 2)), "published on A");
}

#[tokio::test]
async fn an_update_becomes_visible_on_another_node_by_itself() {
    let [a, b] = World::new().nodes().await;
    let mut session = make(&a, 1).await.remove(0);
    for value in 2..50 {
        assert_eq!(n(&read(&b, session.id()).await), value - 1);
        session.set("n", &value).unwrap();
        a.save(&mut session).await.unwrap();
        eventually("B shows the update", async || n(&read(&b, session.id()).await) == value).await;
    }
}

#[tokio::test]
async fn nodes_that_take_turns_at_updating_see_each_other() {
    let nodes: [SessionManager; 3] = World::new().nodes().await;
    let session = make(&nodes[0], 1).await.remove(0);
    for turn in 0..60 {
        let node = &nodes[turn % 3];
        node.catch_up().await.unwrap();
        let mut on_node = read(node, session.id()).await;
        let next = n(&on_node) + 1;
        on_node.set("n", &next).unwrap();
        node.save(&mut on_node).check_version().await.unwrap();
    }
    for node in &nodes {
        node.catch_up().await.unwrap();
        assert_eq!(n(&read(node, session.id()).await), 61);
    }
}

#[tokio::test]
async fn an_eviction_reaches_every_node_and_deletes_nothing() {
    let world = World::new();
    let nodes: [SessionManager; 3] = world.nodes().await;
    let (ann, bob) = (UserId::named("ann"), UserId::named("bob"));
    let of_ann = nodes[0].create(ann).set("n", &1).await.unwrap().id();
    let of_bob = nodes[0].create(bob).set("n", &1).await.unwrap().id();
    for all_users in [false, true] {
        for node in &nodes {
            read_all(node, &[of_ann, of_bob]).await;
        }
        // Past the library: no notification.
        let client = world.client().await;
        let text = "UPDATE sessions SET attributes = CASE attributes
                        WHEN '{\"n\":[1,1]}' THEN '{\"n\":[2,1]}' WHEN '{\"n\":[2,1]}' THEN '{\"n\":[3,1]}' END";
        assert_eq!(client.execute(text, &[]).await.unwrap(), 2);
        match all_users {
            true => nodes[1].evict_all().await.unwrap(),
            false => nodes[1].user(ann).evict().await.unwrap(),
        }
        assert!(hit(&nodes[1], of_ann).is_none(), "on return, this node has dropped it");
        for node in &nodes {
            node.catch_up().await.unwrap();
            assert_eq!(hit(node, of_bob).is_some(), !all_users, "the session of another user stays");
            assert_eq!(n(&read(node, of_ann).await), if all_users { 3 } else { 2 });
        }
    }
    assert_eq!(n(&read(&nodes[2], of_bob).await), 3);
}

#[tokio::test]
async fn deleting_user_sessions_reaches_all_nodes_and_spares_others() {
    let nodes: [SessionManager; 2] = World::new().nodes().await;
    let to_evict = all((0..7).map(|_| nodes[0].create(1))).await;
    let to_evict: Vec<_> = to_evict.into_iter().map(|born| born.unwrap().id()).collect();
    let spared = nodes[0].create(2).await.unwrap().id();
    read_all(&nodes[1], &to_evict).await;
    read(&nodes[1], spared).await;
    assert_eq!(nodes[0].user(1).delete().await.unwrap(), 7);
    assert!(all(to_evict.iter().map(|&id| is_gone(&nodes[0], id))).await.iter().all(|&gone| gone));
    nodes[1].catch_up().await.unwrap();
    assert!(all(to_evict.iter().map(|&id| is_gone(&nodes[1], id))).await.iter().all(|&gone| gone));
    assert!(hit(&nodes[1], spared).is_some());
    assert_eq!(nodes[0].user(1).delete().await.unwrap(), 0, "once");
}

#[tokio::test]
async fn deleting_group_sessions_reaches_all_nodes_and_spares_others() {
    let nodes: [SessionManager; 2] = World::new().nodes().await;
    let (red, blue) = (GroupId::named("red"), GroupId::named("blue"));
    let in_red = nodes[0].create(1).group(red).await.unwrap().id();
    let in_blue = nodes[0].create(1).group(blue).await.unwrap().id();
    let mut moved = nodes[0].create(1).group(red).await.unwrap();
    read_all(&nodes[1], &[in_red, in_blue, moved.id()]).await;
    nodes[0].save(&mut moved).group(Some(blue)).await.unwrap();
    assert_eq!(nodes[0].group(red).delete().await.unwrap(), 1);
    for node in &nodes {
        node.catch_up().await.unwrap();
        assert!(is_gone(node, in_red).await);
        assert!(!is_gone(node, in_blue).await);
        assert_eq!(read(node, moved.id()).await.group_id(), Some(blue), "it had left the group");
    }
}

#[tokio::test]
async fn deleting_everything_is_seen_on_every_node() {
    let nodes: [SessionManager; 2] = World::new().nodes().await;
    let ids = ids(&make(&nodes[0], 30).await);
    read_all(&nodes[1], &ids).await;
    assert_eq!(nodes[0].delete_all_sessions().await.unwrap(), 30);
    for node in &nodes {
        node.catch_up().await.unwrap();
        assert!(all(ids.iter().map(|&id| is_gone(node, id))).await.iter().all(|&gone| gone));
        assert_eq!(node.status().cache.sessions, 0);
    }
}

#[tokio::test]
async fn a_delete_is_seen_on_another_node_by_itself() {
    let [a, b] = World::new().nodes().await;
    for session in make(&a, 20).await {
        read(&b, session.id()).await;
        assert!(a.delete(session.id()).await.unwrap());
        assert!(is_gone(&a, session.id()).await, "at once on the node that deleted it");
        eventually("B shows the delete", async || is_gone(&b, session.id()).await).await;
    }
}
