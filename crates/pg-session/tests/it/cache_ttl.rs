//! The lifetime of an entry in the cache.

use std::time::Duration;

use crate::clocks::Clocks;
use crate::support::World;

/// The predecessor read a session on every request for ever, once its lifetime in the cache was over.
///
/// Both clocks move: if the node's moved alone, the first load would correct it, and the old entry would be young again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry_past_cache_ttl_is_reloaded_once_and_renewed() {
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
