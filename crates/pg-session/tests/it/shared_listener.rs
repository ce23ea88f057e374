//! One listening connection for the application and for its nodes.

use std::str::FromStr;
use std::time::Duration;

use pg_session::SessionManager;
use pg_session::pg_listen::{Event, Listener};

use crate::support::{WAIT_MAX, World, eventually};

/// A listener that sends no barrier of its own for as long as a test lasts.
fn listener(world: &World) -> Listener {
    let config = tokio_postgres::Config::from_str(&world.url).unwrap();
    Listener::builder(config).barrier_interval(Duration::from_secs(3_600)).start().unwrap()
}

async fn node(world: &World, listener: &Listener) -> SessionManager {
    let mut config = world.config();
    config.trust_window = Duration::from_secs(1);
    let builder = SessionManager::builder(config).url(&world.url).unwrap().listener(listener.clone());
    let node = builder.connect().await.unwrap();
    node.wait_until_trusted().await.unwrap();
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_and_the_application_share_one_listener() {
    let (world, other) = (World::in_postgres(), World::in_postgres());
    let listener = listener(&world);
    let mut own = listener.subscribe("the application's").await.unwrap();
    let (a, b, elsewhere) =
        (node(&world, &listener).await, world.node().await, node(&other, &listener).await);
    assert_eq!(listener.status().connections(), 1);

    let session = b.create(1).set("n", &1).await.unwrap();
    elsewhere.create(1).await.unwrap();
    assert!(!a.get(session.id()).await.unwrap().unwrap().is_from_cache());
    assert!(a.get(session.id()).await.unwrap().unwrap().is_from_cache());
    b.delete(session.id()).await.unwrap();
    a.catch_up().await.unwrap();
    assert!(a.get(session.id()).await.unwrap().is_none());

    listener.notify("the application's", "hello").await.unwrap();
    loop {
        match own.recv().await {
            Some(Event::Notification(notification)) => break assert_eq!(notification.payload(), "hello"),
            Some(_) => {}
            None => panic!("the listener ended"),
        }
    }
}

/// The listener sends its own barriers once an hour. The node sends some, and finds a half-open connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_gains_trust_over_listener_without_barriers() {
    let world = World::new();
    let listener = listener(&world);
    let node = node(&world, &listener).await;
    let began = listener.status().as_of().unwrap();
    eventually("barriers go on for three windows", || async {
        listener.status().as_of().is_some_and(|as_of| as_of > began + Duration::from_secs(3))
    })
    .await;
    node.wait_until_trusted().await.unwrap();
    assert!(node.status().trusted_for.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_applications_listener_outlives_the_node() {
    let world = World::new();
    let listener = listener(&world);
    let first = node(&world, &listener).await;
    assert!(first.shutdown(WAIT_MAX).await.is_complete());
    let second = node(&world, &listener).await;
    let session = second.create(1).await.unwrap();
    assert!(second.get(session.id()).await.unwrap().unwrap().is_from_cache());
    assert_eq!(listener.status().connections(), 1, "the same connection all along");
}
