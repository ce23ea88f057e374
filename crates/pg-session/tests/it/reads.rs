//! How a read can be asked for: at least some version, past the memory, without counting as an access.

use std::future::IntoFuture as _;
use std::time::{Duration, SystemTime};

use pg_sandbox::Proxy;
use pg_session::{ErrorKind, Session, SessionId, SessionManager, Version};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::fixtures::{hit, make, n, read, update_all};
use crate::support::{WAIT_MAX, World};

/// A has updated a session. B is trusted, has the old version in memory, and does not receive the notification.
struct Stale {
    b: SessionManager,
    updated: Session,
    wire: Proxy,
    _a: SessionManager,
}

impl Stale {
    async fn new() -> Self {
        let world = World::new();
        let [a] = world.nodes().await;
        let wire = world.proxy().await;
        let b = world.node_listening_through(&wire, world.roomy()).await;
        let mut sessions = make(&a, 1).await;
        let id = sessions[0].id();
        read(&b, id).await;
        b.catch_up().await.unwrap();
        wire.stall();
        update_all(&a, &mut sessions, 2).await;
        assert_eq!(hit(&b, id).unwrap().version(), Version::FIRST, "B has not learned of it");
        Self { b, updated: sessions.remove(0), wire, _a: a }
    }
}

#[tokio::test]
async fn at_least_reads_past_an_older_version_in_memory() {
    let Stale { b, updated, wire, _a } = Stale::new().await;
    let id = updated.id();
    let second = updated.version();
    let newer = b.get(id).min_version(second).await.unwrap().unwrap();
    assert_eq!((newer.version(), n(&newer), newer.is_from_cache()), (second, 2, false));
    let again = b.get(id).min_version(second).await.unwrap().unwrap();
    assert!(again.is_from_cache(), "what it loaded replaced what was in memory");
    wire.heal();
}

/// ```text
/// B  get(id) made ─────────────────────────────── awaited: none
/// A                 delete(id) acknowledged, received by B
/// ```
#[tokio::test]
async fn a_get_reads_the_cache_when_it_is_first_polled() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let id = make(&a, 1).await[0].id();
    read(&b, id).await;
    assert!(hit(&b, id).is_some(), "the session is in the cache of B");
    let future = b.get(id).into_future();
    assert!(a.delete(id).await.unwrap());
    b.catch_up().await.unwrap();
    assert!(future.await.unwrap().is_none(), "it was made before the delete and awaited after it");
}

/// B lists the user's sessions, and afterwards must not go back to what is in memory (I2).
#[tokio::test]
async fn what_a_listing_has_shown_is_not_followed_by_an_older_version() {
    let Stale { b, updated, wire, _a } = Stale::new().await;
    let id = updated.id();
    let listed = b.user(updated.user_id().unwrap()).list().await.unwrap();
    assert_eq!((listed.len(), n(&listed[0])), (1, 2));
    let next = read(&b, id).await;
    assert_eq!((next.version(), n(&next)), (listed[0].version(), 2));
    wire.heal();
}

#[tokio::test]
async fn min_version_never_reached_errors_and_deleted_is_none() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut sessions = make(&a, 1).await;
    let id = sessions[0].id();
    update_all(&a, &mut sessions, 2).await;
    let second = sessions[0].version();
    update_all(&a, &mut sessions, 3).await;
    let third = sessions[0].version();
    assert_eq!(b.get(id).min_version(second).await.unwrap().unwrap().version(), third, "newer is fine");

    // As a restored backup would have it.
    let client = world.client().await;
    client.execute("UPDATE sessions SET version = 2", &[]).await.unwrap();
    let error = b.get(id).bypass_cache().min_version(third).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    assert!(a.delete(id).await.unwrap());
    assert!(b.get(id).min_version(third).bypass_cache().await.unwrap().is_none());
}

#[tokio::test]
async fn refresh_asks_the_database_whatever_is_in_memory() {
    let world = World::new();
    let [a] = world.nodes().await;
    let id = make(&a, 1).await[0].id();
    // Past the library: no notification.
    world.client().await.execute("UPDATE sessions SET version = 7", &[]).await.unwrap();
    assert_eq!(read(&a, id).await.version().get(), 1);
    let fresh = a.get(id).bypass_cache().await.unwrap().unwrap();
    assert_eq!((fresh.version().get(), fresh.is_from_cache()), (7, false));
    assert_eq!(hit(&a, id).unwrap().version().get(), 7);
}

#[tokio::test]
async fn only_a_read_that_touches_moves_the_last_access_in_the_table() {
    let world = World::new();
    let [a] = world.nodes().await;
    let client = world.client().await;
    let [touched, untouched] = [make(&a, 1).await[0].id(), make(&a, 1).await[0].id()];
    let an_hour_ago = "UPDATE sessions SET last_accessed_at = now() - interval '1 hour'";
    client.execute(an_hour_ago, &[]).await.unwrap();
    let before = [last_access(&client, touched).await, last_access(&client, untouched).await];

    let [b] = world.nodes().await;
    for _ in 0..2 {
        // First from the database, then from memory.
        b.get(touched).await.unwrap().unwrap();
        b.get(untouched).no_touch().await.unwrap().unwrap();
    }
    assert!(b.shutdown(WAIT_MAX).await.is_complete());
    let after = [last_access(&client, touched).await, last_access(&client, untouched).await];
    assert!(after[0] > before[0] + Duration::from_secs(3_000), "flushed by the shutdown");
    assert_eq!(after[1], before[1]);
    let versions = client.query_one("SELECT max(version) FROM sessions", &[]).await.unwrap();
    assert_eq!(versions.get::<_, i64>(0), 1, "a touch is not a change");
}

async fn last_access(client: &Client, id: SessionId) -> SystemTime {
    let of: Uuid = id.expose();
    client.query_one("SELECT last_accessed_at FROM sessions WHERE id = $1", &[&of]).await.unwrap().get(0)
}
