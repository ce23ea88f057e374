//! An attribute that is taken from all sessions of a user, wherever it is.

use pg_session::{Create, SessionManager};

use super::{HOUR, sized};
use crate::fixtures::{all, in_time, read};
use crate::support::World;
use crate::tables::{Holder, counts, stored, stored_version};

async fn take(node: &SessionManager, key: &str) -> u64 {
    in_time("it is taken away", node.user(1).remove_attribute(key)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attribute_is_removed_inline_or_overflow_and_no_other() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    for key in ["role", "ro\"le", "ro\\le", "%", "rôle"] {
        let make = async |create: Create<'_>| create.set("cart", &1).await.unwrap();
        let mut small = make(a.create(1).set(key, &1)).await;
        let mut large = make(a.create(1).set(key, &sized(600))).await;
        let ends = make(a.create(1).set_for(key, &1, HOUR)).await.id();
        let old = [small.id(), large.id()];
        a.rotate(&mut small).await.unwrap();
        a.rotate(&mut large).await.unwrap();
        let has = [old[0], small.id(), old[1], large.id(), ends];

        // What merely looks like it: as a key of a value, in the row and apart, and as a longer or shorter key.
        let nested = serde_json::json!({ key: [1, 1] });
        let inside = a.create(1).set("cart", &nested).await.unwrap().id();
        let page = [nested.to_string(), sized(600)];
        let inside_large = a.create(1).set("cart", &nested).set("page", &page).await.unwrap().id();
        let longer = a.create(1).set(&format!("{key}s"), &1).set(&format!("a {key}"), &1);
        let longer = longer.await.unwrap().id();
        let stranger = a.create(2).set(key, &1).await.unwrap().id();
        let others = [inside, inside_large, longer, stranger];
        let mut kept = Vec::new();
        for id in others {
            kept.push((stored_version(&observer, id).await, stored(&observer, id).await));
        }
        let mut versions = Vec::new();
        for id in has {
            versions.push(stored_version(&observer, id).await.unwrap());
            assert!(read(&b, id).await.contains(key));
        }

        assert_eq!(take(&b, key).await, 3, "{key:?}: a retired id is no session");
        assert_eq!(take(&a, key).await, 0);
        a.catch_up().await.unwrap();
        for (id, version) in has.into_iter().zip(versions) {
            assert_eq!(stored_version(&observer, id).await, Some(version + 1));
            assert_eq!(stored(&observer, id).await.keys().collect::<Vec<_>>(), ["cart"], "{key:?}");
            for node in [&a, &b] {
                assert_eq!(read(node, id).await.keys(), ["cart"]);
            }
        }
        for (id, kept) in others.into_iter().zip(kept) {
            assert_eq!((stored_version(&observer, id).await, stored(&observer, id).await), kept, "{key:?}");
        }
        a.delete_all_sessions().await.unwrap();
    }
}

/// More sessions than one statement takes, every third of which only looks as if it had the attribute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attribute_is_taken_from_thousands_of_sessions_of_one_user() {
    const SESSIONS: usize = 3_001;
    let world = World::new();
    let [a, b] = world.nodes().await;
    let new_sessions = (0..SESSIONS).map(|at| match at % 3 {
        0 => a.create(1).set("role", &1),
        1 => a.create(1).set("role", &sized(600)),
        _ => a.create(1).set("cart", &serde_json::json!({ "role": [1] })),
    });
    for born in all(new_sessions).await {
        born.unwrap();
    }
    assert_eq!(take(&b, "role").await, 2_001);
    assert_eq!(counts(&world.client().await).await, (3_001, 1_000));
    assert_eq!(take(&a, "role").await, 0);
}

/// The page was read, and then another node sets the attribute again, where it was or in the other place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_set_and_removal_of_attribute_are_serialised() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    for (before, after) in [(1, 5), (600, 700), (1, 600), (600, 1)].map(|(x, y)| (x + 4, y + 4)) {
        let session = a.create(1).set("role", &sized(before)).await.unwrap();
        let id = session.id();
        let other = a.create(1).set("role", &1).await.unwrap().id();
        let holder = Holder::hold(&world, &[id]).await;
        let update = tokio::spawn({
            let (a, mut session) = (a.clone(), session);
            async move {
                session.set("role", &sized(after)).unwrap();
                session.set("seen", &1).unwrap();
                a.save(&mut session).await
            }
        });
        holder.blocks_many(&observer, 1).await;
        let taken = tokio::spawn({
            let b = b.clone();
            async move { take(&b, "role").await }
        });
        holder.blocks_many(&observer, 2).await;
        holder.commit().await;
        in_time("the update", update).await.unwrap().unwrap();
        assert_eq!(taken.await.unwrap(), 2);
        for id in [id, other] {
            assert!(!stored(&observer, id).await.contains_key("role"), "{before} to {after} bytes");
        }
        for node in [&a, &b] {
            node.catch_up().await.unwrap();
            assert_eq!(read(node, id).await.keys(), ["seen"]);
        }
        a.delete_all_sessions().await.unwrap();
    }
}
