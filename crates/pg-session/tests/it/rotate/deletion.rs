//! Nothing that is left of a session outlives it, nor its grace.

use std::collections::BTreeMap;
use std::time::Duration;

use pg_session::{GroupId, Session, SessionId, SessionManager, UserId};

use crate::clocks::Clocks;
use crate::fixtures::{hit, read};
use crate::support::{World, eventually};
use crate::tables::{counts, stored, stored_time};

const SECOND: Duration = Duration::from_secs(1);

/// A session of user 1 in group 7 that was anonymous at first, and its ids, the newest last. All are in the memory
/// of both nodes.
async fn rotated_twice(a: &SessionManager, b: &SessionManager) -> (Session, [SessionId; 3]) {
    let mut session = a.create_anonymous().set("cart", &1).await.unwrap();
    let first = session.id();
    a.rotate(&mut session).user(1).keep_all().group(Some(GroupId::from(7))).await.unwrap();
    let second = session.id();
    a.rotate(&mut session).await.unwrap();
    let ids = [first, second, session.id()];
    b.catch_up().await.unwrap();
    for node in [a, b] {
        for id in ids {
            eventually("it is in memory", async || read(node, id).await.is_from_cache()).await;
        }
    }
    (session, ids)
}

/// On `here` at once, on `there` with the notification.
async fn assert_gone(here: &SessionManager, there: &SessionManager, ids: &[SessionId]) {
    for &id in ids {
        assert!(here.get(id).await.unwrap().is_none());
    }
    there.catch_up().await.unwrap();
    for &id in ids {
        assert!(hit(there, id).is_none(), "it was notified");
        assert!(there.get(id).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_by_any_of_its_ids_ends_a_session_under_all_of_them() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    for named in 0..3 {
        let (_, ids) = rotated_twice(&a, &b).await;
        assert!(a.delete(ids[named]).await.unwrap(), "it was alive");
        assert_gone(&a, &b, &ids).await;
        assert!(!a.delete(ids[named]).await.unwrap());

        let (_, ids) = rotated_twice(&a, &b).await;
        let other = a.create(2).await.unwrap().id();
        assert_eq!(a.delete_many([ids[named], ids[0], other]).await.unwrap(), 2, "two sessions");
        assert_gone(&a, &b, &ids).await;
    }
    assert_eq!(counts(&world.client().await).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_by_user_group_or_all_includes_retired_ids() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    for how in 0..4 {
        let (_, ids) = rotated_twice(&a, &b).await;
        let bystander = a.create(2).await.unwrap().id();
        let ended = match how {
            0 => a.user(1).delete().await,
            1 => a.group(7).delete().await,
            2 => a.user(1).delete_except(bystander).await,
            _ => a.delete_all_sessions().await.map(|count| count - 4),
        };
        assert_eq!(ended.unwrap(), 1, "one session, whatever is left of it");
        assert_gone(&a, &b, &ids).await;
        if how < 3 {
            read(&b, bystander).await;
        }
    }
}

/// What is left after a change of user shows the former user, and ends with that user's sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_change_of_user_either_users_end_holds() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    for end_former in [true, false] {
        let mut session = a.create(1).await.unwrap();
        let old = session.id();
        a.rotate(&mut session).user(2).await.unwrap();
        let new = session.id();
        b.catch_up().await.unwrap();
        for node in [&a, &b] {
            assert_eq!(read(node, old).await.user_id(), Some(UserId::from(1)));
            assert_eq!(read(node, new).await.user_id(), Some(UserId::from(2)));
        }
        if end_former {
            assert_eq!(b.user(1).delete().await.unwrap(), 0, "no session of theirs is left");
            assert_gone(&b, &a, &[old]).await;
            for node in [&a, &b] {
                read(node, new).await;
            }
        } else {
            assert_eq!(b.user(2).delete().await.unwrap(), 2);
            assert_gone(&b, &a, &[old, new]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_id_ends_with_its_grace_on_every_node() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let (a, b) = (clocks.node(&world, world.config()).await, clocks.node(&world, world.config()).await);
    let mut session = a.create(1).await.unwrap();
    let first = session.id();
    a.rotate(&mut session).grace(SECOND * 30).await.unwrap();
    let second = session.id();
    a.rotate(&mut session).grace(SECOND * 5).await.unwrap();
    b.catch_up().await.unwrap();
    for since in [SECOND * 4, SECOND * 5 - Duration::from_micros(1)] {
        clocks.set(since).await;
        for node in [&a, &b] {
            for id in [first, second] {
                assert!(read(node, id).await.is_retired(), "still for requests in flight");
            }
        }
    }
    clocks.set(SECOND * 5).await;
    for node in [&a, &b] {
        for id in [first, second] {
            assert!(hit(node, id).is_none());
            assert!(node.get(id).await.unwrap().is_none(), "a later rotation shortens an earlier grace");
        }
        assert!(!read(node, session.id()).await.is_retired());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_lives_no_longer_than_the_session_did_or_does() {
    let world = World::new();
    let node = world.node().await;
    let observer = world.client().await;
    let mut session = node.create(1).expires_in(SECOND * 3).await.unwrap();
    let (old, end) = (session.id(), session.expires_at());
    node.rotate(&mut session).expires_in(SECOND * 3_600).await.unwrap();
    assert_eq!(stored_time(&observer, "expires_at", old).await, end);

    let mut session = node.create(1).await.unwrap();
    let old = session.id();
    node.rotate(&mut session).expires_in(SECOND * 3).await.unwrap();
    assert_eq!(stored_time(&observer, "expires_at", old).await, session.expires_at());
}

/// A read of the old id is no access. Accesses that waited when the session was rotated write nothing into the row of a
/// retired id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_touch_of_a_retired_id_changes_nothing() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let node = clocks.node(&world, world.config()).await;
    let mut session = node.create(1).await.unwrap();
    let old = session.id();
    let observer = world.client().await;
    let created = stored_time(&observer, "last_accessed_at", old).await;
    clocks.set(SECOND * 2).await;
    read(&node, old).await;
    node.rotate(&mut session).grace(SECOND * 60).await.unwrap();
    clocks.set(SECOND * 4).await;
    read(&node, old).await;
    assert!(node.shutdown(SECOND * 10).await.is_complete(), "the access that waits is flushed now");
    assert_eq!(stored_time(&observer, "last_accessed_at", old).await, created);
    assert_eq!(stored_time(&observer, "last_accessed_at", session.id()).await, created + SECOND * 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_user_attribute_includes_retired_ids() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut session = a.create(1).set("role", "admin").set("cart", &1).await.unwrap();
    let old = session.id();
    a.rotate(&mut session).await.unwrap();
    b.catch_up().await.unwrap();
    read(&b, old).await;
    assert_eq!(a.user(1).remove_attribute("role").await.unwrap(), 1);
    b.catch_up().await.unwrap();
    for node in [&a, &b] {
        for id in [old, session.id()] {
            assert_eq!(read(node, id).await.keys(), ["cart"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_show_a_session_once_with_its_attributes() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let (session, _) = rotated_twice(&a, &b).await;
    for listed in [b.user(1).list().await.unwrap(), b.group(7).list().await.unwrap()] {
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].id(), listed[0].get("cart").unwrap()), (session.id(), Some(1)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_up_takes_what_is_left_and_spares_the_session() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let node = clocks.node(&world, world.config()).await;
    let observer = world.client().await;
    let mut lasting = node.create(1).set("cart", &1).await.unwrap();
    node.rotate(&mut lasting).await.unwrap();
    clocks.set(SECOND * 11).await;
    assert_eq!(node.cleanup().await.unwrap().expired, 1);
    assert_eq!(counts(&observer).await, (1, 1));
    assert_eq!(stored(&observer, lasting.id()).await.keys().cloned().collect::<Vec<_>>(), ["cart"]);

    // Past this library: a session that ends before its retired id.
    let mut ending = node.create(2).await.unwrap();
    let old = ending.id();
    node.rotate(&mut ending).await.unwrap();
    let end = "UPDATE sessions SET expires_at = last_accessed_at WHERE id = $1";
    observer.execute(end, &[&ending.id().expose()]).await.unwrap();
    assert_eq!(node.cleanup().await.unwrap().expired, 0, "left to the next one");
    clocks.set(SECOND * 22).await;
    node.cleanup().await.unwrap();
    node.cleanup().await.unwrap();
    let rows = observer.query("SELECT id FROM sessions", &[]).await.unwrap();
    let rows: BTreeMap<uuid::Uuid, ()> = rows.iter().map(|row| (row.get(0), ())).collect();
    assert_eq!(rows.into_keys().collect::<Vec<_>>(), [lasting.id().expose()]);
    assert!(node.get(old).await.unwrap().is_none());
}
