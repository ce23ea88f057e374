//! Loads of one session one after the other, on two lanes.

use crate::support::World;

/// ```text
/// lane 1   answers its readers
/// reader                       asks again at once
/// lane 2                                          takes off for the same session
/// lane 1                                                                         cleans up after its own flight
/// ```
/// What lane 1 cleans up must not be lane 2's flight: its readers would get the error that the node is shutting down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_has_landed_does_not_take_the_next_one_down() {
    let world = World::new();
    let node = world.node().await;
    let id = node.create(1).await.unwrap().id();
    for _ in 0..1_000 {
        assert!(node.get(id).bypass_cache().await.expect("the node is up").is_some());
    }
}
