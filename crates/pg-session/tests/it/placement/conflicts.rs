//! Two nodes at one session, whose attributes move between its row and rows of their own: what is checked, notified and
//! carried along is what the database holds.

use std::time::Duration;

use pg_session::{Session, UpdateError};

use super::{HOUR, expiring, seen, shown, sized};
use crate::clocks::{Clocks, at};
use crate::fixtures::read;
use crate::support::World;
use crate::tables::{in_places, places, stored, stored_version};

/// In the row, in the row as another size, apart, and apart with an end of its own.
fn set(session: &mut Session, key: &str, kind: usize) {
    match kind {
        0 => session.set(key, &1).unwrap(),
        1 => session.set(key, &sized(400)).unwrap(),
        2 => session.set(key, &sized(600)).unwrap(),
        _ => session.set_for(key, &1, HOUR).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflict_names_differing_keys_inline_or_overflow() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
        let mut on_a = a.create(1).await.unwrap();
        for key in ["changed", "removed", "same"] {
            set(&mut on_a, key, from);
        }
        a.save(&mut on_a).await.unwrap();
        let id = on_a.id();
        let mut on_b = read(&b, id).await;
        set(&mut on_b, "changed", to);
        set(&mut on_b, "new", to);
        set(&mut on_b, "theirs", to);
        on_b.remove("removed");
        b.save(&mut on_b).await.unwrap();

        let mut refused = on_a.clone();
        for key in ["changed", "removed", "new", "same", "mine"] {
            set(&mut refused, key, 0);
        }
        match a.save(&mut refused).check_attributes().await {
            Err(UpdateError::Conflict { keys }) => {
                assert_eq!(keys, ["changed", "new", "removed"], "{from} {to}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(stored_version(&observer, id).await, Some(3), "nothing was written");
        assert_eq!(read(&a, id).await.version().get(), 3, "what has lost is not served again");

        // Changes of keys that the other node has not touched pass, on top of its version.
        set(&mut on_a, "mine", from);
        set(&mut on_a, "same", to);
        a.save(&mut on_a).check_attributes().await.unwrap();
        let versions = |session: &Session| {
            ["changed", "mine", "new", "same", "theirs"]
                .map(|key| session.attribute_version(key).unwrap().get())
        };
        b.catch_up().await.unwrap();
        for session in [&on_a, &read(&a, id).await, &read(&b, id).await] {
            assert_eq!(session.keys(), ["changed", "mine", "new", "same", "theirs"]);
            assert_eq!((session.version().get(), versions(session)), (4, [3, 4, 3, 4, 3]), "{from} {to}");
        }
        let held = stored(&observer, id).await;
        assert_eq!(held.values().map(|held| held.version).collect::<Vec<_>>(), [3, 4, 3, 4, 3]);
        a.delete(id).await.unwrap();
    }
}

/// Each from the same version, at the same time: of those of one key one passes, those of different keys all do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checked_updates_conflict_on_one_key_not_on_two() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    for round in 0..40 {
        let same = round % 2 == 0;
        let mut first = a.create(1).set("x", &0).set("y", &0).await.unwrap();
        let mut second = read(&b, first.id()).await;
        let id = first.id();
        set(&mut first, "x", round / 2 % 4);
        set(&mut second, if same { "x" } else { "y" }, round / 8 % 4);
        let outcomes = tokio::join!(async { a.save(&mut first).check_attributes().await }, async {
            b.save(&mut second).check_attributes().await
        },);
        let failed: Vec<UpdateError> = [outcomes.0, outcomes.1].into_iter().filter_map(Result::err).collect();
        let versions: Vec<i64> = stored(&observer, id).await.values().map(|held| held.version).collect();
        if same {
            assert!(matches!(&failed[..], [UpdateError::Conflict { keys }] if keys == &["x"]), "{failed:?}");
            assert_eq!(versions, [2, 1]);
        } else {
            assert!(failed.is_empty(), "{failed:?}");
            assert!(versions == [2, 3] || versions == [3, 2], "{versions:?}");
        }
        a.delete(id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflict_is_reported_only_if_checked_and_applicable() {
    for (notifies_conflicts, notify) in [(true, true), (true, false), (false, true)] {
        let world = World::new();
        let mut config = world.roomy();
        config.notify_conflicts = notifies_conflicts;
        let (a, b) = (world.node_with(config.clone()).await, world.node_with(config).await);
        let third = world.node().await;
        let mut on_a = a.create(1).set("x", &1).await.unwrap();
        let mut on_b = read(&b, on_a.id()).await;
        read(&third, on_a.id()).await;
        on_a.set("x", &sized(600)).unwrap();
        a.save(&mut on_a).no_notify().await.unwrap();
        on_b.set("x", &2).unwrap();
        let update = b.save(&mut on_b).check_attributes();
        let outcome = if notify { update.await } else { update.no_notify().await };
        assert!(matches!(outcome, Err(UpdateError::Conflict { keys }) if keys == ["x"]));
        third.catch_up().await.unwrap();
        let shown = read(&third, on_a.id()).await.version().get();
        assert_eq!(shown, if notifies_conflicts && notify { 2 } else { 1 }, "{notifies_conflicts} {notify}");
    }
}

/// The handle was read before another node changed nearly everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_of_updated_session_continues_with_database_state() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    let mut create = a.create(1).group(7);
    for key in ["cart", "grows", "left", "mine", "over"] {
        create = create.set(key, &1);
    }
    let create = create.set("shrinks", &sized(600)).set_for("offer", &1, HOUR);
    let mut stale = create.set("ends", &1).await.unwrap();
    let old = stale.id();
    let mut on_b = read(&b, old).await;
    on_b.set("cart", &sized(7)).unwrap();
    on_b.set("grows", &sized(700)).unwrap();
    on_b.set("shrinks", &1).unwrap();
    on_b.set("left", &sized(9)).unwrap();
    on_b.set("mine", &sized(11)).unwrap();
    on_b.set("new", &1).unwrap();
    on_b.set_for("ends", &1, HOUR).unwrap();
    on_b.remove("over");
    b.save(&mut on_b).group(Some(8.into())).expires_in(HOUR * 2).await.unwrap();

    stale.set("mine", &1).unwrap();
    stale.set("more", &sized(800)).unwrap();
    a.rotate(&mut stale)
        .keep(["cart", "grows", "shrinks", "mine", "over", "new", "offer", "ends"])
        .await
        .unwrap();
    let session = stale;
    assert_eq!(session.version().get(), 3);
    assert_eq!((session.group_id(), session.expires_at()), (Some(8.into()), on_b.expires_at()));
    let expected = seen(&[
        ("cart", 7, 3),
        ("ends", 1, 3),
        ("grows", 700, 3),
        ("mine", 1, 3),
        ("more", 800, 3),
        ("new", 1, 3),
        ("offer", 1, 3),
        ("shrinks", 1, 3),
    ]);
    for node in [&a, &b] {
        assert_eq!(shown(node, session.id()).await, expected);
        let same = read(node, session.id()).await;
        for key in ["ends", "offer"] {
            assert!(same.attribute_expires_at(key).is_some());
            assert_eq!(same.attribute_expires_at(key), on_b.attribute_expires_at(key), "{key}");
        }
        let left = read(node, old).await;
        assert!(left.is_retired() && left.contains("left") && left.contains("new") && !left.contains("more"));
    }
    let inline = ["ends", "offer"].map(|key| {
        let end = session.attribute_expires_at(key).unwrap();
        expiring(key, 1, 3, end)
    });
    let [ends, offer] = inline;
    let packed = format!(r#"{{"cart":["xxxxx",3],{ends},"mine":[1,3],"new":[1,3],{offer},"shrinks":[1,3]}}"#);
    let apart = [("grows", 3), ("more", 3)];
    assert_eq!(places(&observer, session.id()).await, in_places(&packed, &apart, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_keeps_attribute_expiries_and_drops_expired() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let (a, b) = (clocks.node(&world, world.config()).await, clocks.node(&world, world.config()).await);
    let observer = world.client().await;
    let create = a.create(1).set_until("cart", &1, at(HOUR));
    let create = create.set_until("code", &sized(600), at(HOUR));
    let mut session = create.set_until("offer", &sized(600), at(HOUR * 2)).await.unwrap();
    let cart = expiring("cart", 1, 2, at(HOUR));
    for (now, packed, apart) in [
        (HOUR - Duration::from_secs(1), format!("{{{cart}}}"), &[("code", 2), ("offer", 2)][..]),
        (HOUR, "{}".to_owned(), &[("offer", 3)]),
        (HOUR * 2, "{}".to_owned(), &[]),
    ] {
        clocks.set(now).await;
        a.rotate(&mut session).await.unwrap();
        assert_eq!(
            places(&observer, session.id()).await,
            in_places(&packed, apart, !apart.is_empty()),
            "{now:?}"
        );
        for (key, end) in [("cart", HOUR), ("code", HOUR), ("offer", HOUR * 2)] {
            let read = read(&b, session.id()).await;
            assert_eq!(read.attribute_expires_at(key), (now < end).then(|| at(end)), "{key} at {now:?}");
        }
    }
}
