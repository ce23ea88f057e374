//! The life of a session on two nodes.

use pg_session::UpdateError;

use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_on_two_nodes() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let mut on_a = a.create(42).set("role", "admin").set("cart", &vec![1, 2]).await.unwrap();
    assert!(a.get(on_a.id()).await.unwrap().unwrap().is_from_cache(), "published after the commit");
    let on_b = b.get(on_a.id()).await.unwrap().unwrap();
    assert!(!on_b.is_from_cache());
    assert_eq!(on_b.get::<String>("role").unwrap().as_deref(), Some("admin"));
    assert!(b.get(on_a.id()).await.unwrap().unwrap().is_from_cache());

    on_a.set("role", "user").unwrap();
    on_a.remove("cart");
    a.save(&mut on_a).check_attributes().await.unwrap();
    assert_eq!(on_a.version().get(), 2);
    b.catch_up().await.unwrap();
    let mut on_b = b.get(on_a.id()).await.unwrap().unwrap();
    assert_eq!(on_b.get::<String>("role").unwrap().as_deref(), Some("user"));
    assert_eq!(on_b.keys(), ["role"]);

    assert!(a.delete(on_a.id()).await.unwrap());
    assert!(!a.delete(on_a.id()).await.unwrap(), "once");
    assert!(a.get(on_a.id()).await.unwrap().is_none());
    b.catch_up().await.unwrap();
    assert!(b.get(on_a.id()).await.unwrap().is_none());
    on_b.set("role", "ghost").unwrap();
    assert!(matches!(b.save(&mut on_b).await, Err(UpdateError::NotFound)));
}
