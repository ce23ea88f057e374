//! Attributes are inline or overflow. A reader sees no difference.

mod conflicts;
mod removal;

use std::time::{Duration, SystemTime};

use pg_session::{ErrorKind, GroupId, IdleLimit, Session, SessionId, SessionManager, UpdateError, UserId};
use tokio_postgres::Client;

use crate::clocks::{Clocks, at};
use crate::fixtures::{all, make, read};
use crate::support::World;
use crate::tables::{in_places, places};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// A value whose JSON takes this many bytes; the session's row takes up to 512.
fn sized(bytes: usize) -> String {
    "x".repeat(bytes - 2)
}

/// What a node shows, from memory and from the database: key, bytes of the value and version of each attribute.
async fn shown(node: &SessionManager, id: SessionId) -> Vec<(String, usize, i64)> {
    let of = |session: &Session| {
        let attribute = |key: &str| {
            let bytes = session.get_raw(key).expect("it is shown").len();
            (key.to_owned(), bytes, session.attribute_version(key).expect("it is saved").get())
        };
        session.keys().into_iter().map(attribute).collect::<Vec<_>>()
    };
    node.catch_up().await.unwrap();
    let first = of(&read(node, id).await);
    assert_eq!(first, of(&node.get(id).bypass_cache().await.unwrap().expect("it is alive")));
    let listed = node.user(1).list().await.unwrap();
    assert_eq!(
        listed.iter().find(|session| session.id() == id).map(of),
        Some(first.clone()),
        "as a listing shows it"
    );
    first
}

fn seen(attributes: &[(&str, usize, i64)]) -> Vec<(String, usize, i64)> {
    attributes.iter().map(|&(key, bytes, version)| (key.to_owned(), bytes, version)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growing_attribute_overflows_and_returns_inline_when_smaller() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    let id = a.create(1).set("cart", &1).set("seen", &2).await.unwrap().id();
    assert_eq!(places(&observer, id).await, in_places(r#"{"cart":[1,1],"seen":[2,1]}"#, &[], false));

    // Each node goes on from what the other has written.
    for (version, bytes) in [(2, 512), (3, 513), (4, 2_000), (5, 10), (6, 9), (7, 600), (8, 512)] {
        let node = if version % 2 == 0 { &a } else { &b };
        let mut session = read(node, id).await;
        session.set("cart", &sized(bytes)).unwrap();
        node.save(&mut session).await.unwrap();
        let expected = if bytes <= 512 {
            let packed = format!(r#"{{"cart":["{}",{version}],"seen":[2,1]}}"#, sized(bytes));
            in_places(&packed, &[], version > 2)
        } else {
            in_places(r#"{"seen":[2,1]}"#, &[("cart", version)], true)
        };
        assert_eq!(places(&observer, id).await, expected, "{bytes} bytes");
        for node in [&a, &b] {
            assert_eq!(shown(node, id).await, seen(&[("cart", bytes, version), ("seen", 1, 1)]));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_attributes_fill_inline_budget_others_overflow() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    let keys: Vec<String> = (0..60).map(|number| format!("key {number:02}")).collect();
    let mut create = a.create(1);
    for key in &keys {
        create = create.set(key, &sized(60));
    }
    let mut session = create.await.unwrap();
    let id = session.id();
    let is = |version: i64| keys.iter().map(|key| (key.clone(), 60, version)).collect::<Vec<_>>();
    let bounded = async |version: i64| {
        let at = places(&observer, id).await;
        let packed = at.packed.matches(&format!(",{version}]")).count();
        assert!((1_100..=1_536).contains(&at.packed.len()), "{} bytes", at.packed.len());
        assert_eq!(packed + at.apart.len(), keys.len(), "each in one place");
        for node in [&a, &b] {
            assert_eq!(shown(node, id).await, is(version));
        }
    };
    bounded(1).await;

    // Written again, all at once: the row is filled as before.
    for key in &keys {
        session.set(key, &sized(60)).unwrap();
    }
    a.save(&mut session).await.unwrap();
    bounded(2).await;

    // Where one leaves, another has room once it is set.
    let last = keys.last().unwrap();
    session.remove(&keys[0]);
    a.save(&mut session).await.unwrap();
    let before = places(&observer, id).await;
    assert!(before.apart.iter().any(|(key, _)| key == last), "nothing moves by itself");
    session.set(last, &sized(60)).unwrap();
    a.save(&mut session).await.unwrap();
    let after = places(&observer, id).await;
    assert!(after.packed.contains(&format!("{last:?}:[")) && after.apart.len() == before.apart.len() - 1);
    assert_eq!(shown(&b, id).await.len(), 59);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_with_inline_attributes_only_reads_no_overflow_rows() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    let mut session = a.create(1).set("cart", &1).await.unwrap();
    session.set("seen", &1).unwrap();
    a.save(&mut session).group(Some(7.into())).await.unwrap();
    session.remove("cart");
    session.remove("never was");
    a.save(&mut session).await.unwrap();
    a.rotate(&mut session).await.unwrap();
    a.create(2).await.unwrap();
    let text = "SELECT count(*) FROM sessions WHERE has_overflow";
    assert_eq!(observer.query_one(text, &[]).await.unwrap().get::<_, i64>(0), 0);
    let id = session.id();
    assert_eq!(places(&observer, id).await, in_places(r#"{"seen":[1,4]}"#, &[], false));

    // Past the library: a client that inserts a row marks the session's row.
    let text =
        "INSERT INTO session_attributes (session_id, key, value, version) VALUES ($1, 'by hand', '1', 4)";
    observer.execute(text, &[&id.expose()]).await.unwrap();
    assert_eq!(b.get(id).bypass_cache().await.unwrap().unwrap().keys(), ["seen"]);
    let text = "UPDATE sessions SET has_overflow = true, version = version + 1 WHERE id = $1";
    observer.execute(text, &[&id.expose()]).await.unwrap();
    assert_eq!(b.get(id).bypass_cache().await.unwrap().unwrap().keys(), ["by hand", "seen"]);
}

/// On one thread, so that they leave together: in one statement, as creates and as updates.
#[tokio::test]
async fn only_batch_members_with_overflow_are_marked() {
    let world = World::new();
    let [node] = world.nodes().await;
    let observer = world.client().await;
    let value = |at: i32| sized(if at == 3 { 600 } else { 60 });
    let new_sessions = (0..6).map(|at| node.create(i64::from(at)).set("n", &value(at - 1)));
    let mut sessions: Vec<Session> = all(new_sessions).await.into_iter().map(Result::unwrap).collect();
    let has_overflow = async || {
        let text = "SELECT array_agg(user_id ORDER BY user_id) FROM sessions WHERE has_overflow";
        let users: Vec<uuid::Uuid> = observer.query_one(text, &[]).await.unwrap().get(0);
        users.into_iter().map(|user| UserId::from(user).as_integer().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(has_overflow().await, [4]);
    let updates = sessions.iter_mut().zip(0..).map(|(session, at)| {
        session.set("m", &value(at)).unwrap();
        node.save(session)
    });
    all(updates).await.into_iter().for_each(Result::unwrap);
    assert_eq!(has_overflow().await, [3, 4]);
    let writes = node.status().writes;
    assert!(writes.update_statements < writes.updates, "{writes:?}");
}

async fn rows(observer: &Client) -> i64 {
    observer.query_one("SELECT count(*) FROM session_attributes", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_their_own_go_with_the_session_however_it_ends() {
    let world = World::new();
    let node = world.node().await;
    let observer = world.client().await;
    for grown in [false, true] {
        for way in 0..8 {
            let create = node.create(1).group(7).set("seen", &1);
            // From the start, or only once it had outgrown the row.
            let mut session = if grown {
                let mut session = create.set("page", &1).await.unwrap();
                session.set("page", &sized(600)).unwrap();
                node.save(&mut session).await.unwrap();
                session
            } else {
                create.set("page", &sized(600)).await.unwrap()
            };
            let id = session.id();
            assert_eq!(rows(&observer).await, 1);
            match way {
                0 => assert!(node.delete(id).await.unwrap()),
                1 => assert_eq!(node.delete_many([id]).await.unwrap(), 1),
                2 => assert_eq!(node.user(1).delete().await.unwrap(), 1),
                3 => assert_eq!(node.group(7).delete().await.unwrap(), 1),
                4 => assert_eq!(node.delete_all_sessions().await.unwrap(), 1),
                5 => {
                    for _ in 0..world.config().sessions_per_user_max {
                        node.create(1).await.unwrap();
                    }
                }
                6 => {
                    node.save(&mut session).expires_at(SystemTime::UNIX_EPOCH + HOUR).await.unwrap();
                    assert_eq!(node.cleanup().await.unwrap().expired, 1);
                }
                _ => node.rotate(&mut session).keep_none().grace(Duration::ZERO).await.unwrap(),
            }
            assert_eq!(rows(&observer).await, 0, "way {way}");
            node.delete_all_sessions().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clean_up_deletes_a_large_attribute_that_has_expired() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let (a, b) = (clocks.node(&world, world.config()).await, clocks.node(&world, world.config()).await);
    let observer = world.client().await;
    let create = a.create(1).set_for("offer", &sized(600), HOUR).set("code", &1);
    let id = create.await.unwrap().id();
    assert_eq!(places(&observer, id).await, in_places(r#"{"code":[1,1]}"#, &[("offer", 1)], true));
    assert_eq!(shown(&b, id).await, seen(&[("code", 1, 1), ("offer", 600, 1)]));

    assert_eq!(a.cleanup().await.unwrap().attributes, 0);
    clocks.set(HOUR + SECOND).await;
    for cleaned in [false, true] {
        for node in [&a, &b] {
            assert_eq!(shown(node, id).await, seen(&[("code", 1, 1)]));
        }
        let done = b.cleanup().await.unwrap();
        assert_eq!(done.attributes, u64::from(!cleaned), "{done:?}");
    }
    assert_eq!(places(&observer, id).await, in_places(r#"{"code":[1,1]}"#, &[], true));
}

/// What a session's row holds of an attribute that expires, with its expiry.
fn expiring(key: &str, value: i32, version: i64, expires_at: SystemTime) -> String {
    let expiry = expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    format!(r#""{key}":[{value},{version},{expiry}]"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_expiring_attribute_is_inline_until_next_write() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let (a, b) = (clocks.node(&world, world.config()).await, clocks.node(&world, world.config()).await);
    let observer = world.client().await;
    let create = a.create(1).set_until("offer", &7, at(HOUR)).set("n", &1);
    let mut session = create.await.unwrap();
    let id = session.id();
    let offer = |version| expiring("offer", 7, version, at(HOUR));
    let row = |offer: &str, n: i64| format!(r#"{{"n":[1,{n}],{offer}}}"#);
    assert_eq!(places(&observer, id).await, in_places(&row(&offer(1), 1), &[], false));
    for node in [&a, &b] {
        let session = read(node, id).await;
        assert_eq!(session.attribute_expires_at("offer"), Some(at(HOUR)));
        assert_eq!((session.get("offer").unwrap(), session.attribute_expires_at("n")), (Some(7), None));
    }

    // Another write keeps it, and a rotation does.
    session.set("n", &1).unwrap();
    b.save(&mut session).await.unwrap();
    assert_eq!(places(&observer, id).await, in_places(&row(&offer(1), 2), &[], false));
    b.rotate(&mut session).await.unwrap();
    let id = session.id();
    assert_eq!(places(&observer, id).await, in_places(&row(&offer(3), 3), &[], false));

    // No node shows it any more, and the row keeps it until the session is written.
    clocks.set(HOUR).await;
    for node in [&a, &b] {
        assert_eq!(shown(node, id).await, seen(&[("n", 1, 3)]));
    }
    assert_eq!(a.cleanup().await.unwrap().attributes, 0);
    assert_eq!(places(&observer, id).await, in_places(&row(&offer(3), 3), &[], false));
    session.set("n", &1).unwrap();
    a.save(&mut session).check_attributes().await.unwrap();
    assert_eq!(places(&observer, id).await, in_places(r#"{"n":[1,4]}"#, &[], false));
}

/// B has read the session after the end of the attribute, so it has never seen it. Then it sets the key to a large value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_inline_attribute_gives_way_to_a_large_one() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let (a, b) = (clocks.node(&world, world.config()).await, clocks.node(&world, world.config()).await);
    let observer = world.client().await;
    let id = a.create(1).set_until("code", &1, at(HOUR)).await.unwrap().id();
    clocks.set(HOUR).await;
    let mut session = read(&b, id).await;
    assert!(session.keys().is_empty());
    session.set("code", &sized(600)).unwrap();
    b.save(&mut session).check_attributes().await.unwrap();
    assert_eq!(places(&observer, id).await, in_places("{}", &[("code", 2)], true));
    clocks.set(HOUR + SECOND).await;
    assert_eq!(shown(&a, id).await, seen(&[("code", 600, 2)]));
}

/// The node that sets it has never seen the expired row, which stays until the clean-up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_after_expiry_survives_cleanup() {
    for removed in [false, true] {
        let world = World::new();
        let clocks = Clocks::new(&world).await;
        let (a, b) = (clocks.node(&world, world.config()).await, clocks.node(&world, world.config()).await);
        let observer = world.client().await;
        let id = a.create(1).set_until("code", &sized(600), at(HOUR)).await.unwrap().id();
        clocks.set(HOUR).await;
        let mut session = read(&b, id).await;
        session.set("code", &sized(10)).unwrap();
        b.save(&mut session).check_attributes().await.unwrap();
        let packed = format!(r#"{{"code":["{}",2]}}"#, sized(10));
        assert_eq!(
            places(&observer, id).await,
            in_places(&packed, &[("code", 1)], true),
            "the old one is left"
        );
        let mut expected = seen(&[("code", 10, 2)]);
        // A node has caught up with an instant, so the clocks go on after each update: else an earlier barrier would do.
        clocks.set(HOUR + SECOND).await;
        if removed {
            assert_eq!(shown(&a, id).await, expected);
            session.remove("code");
            b.save(&mut session).await.unwrap();
            expected.clear();
            clocks.set(HOUR + SECOND * 2).await;
        }
        for left in [1, 0] {
            for node in [&a, &b] {
                assert_eq!(shown(node, id).await, expected);
            }
            assert_eq!(a.cleanup().await.unwrap().attributes, left);
        }
        // And once more in a row of its own.
        session.set("code", &sized(700)).unwrap();
        b.save(&mut session).await.unwrap();
        let version = session.version().get();
        assert_eq!(places(&observer, id).await, in_places("{}", &[("code", version)], true));
        clocks.set(HOUR + SECOND * 3).await;
        assert_eq!(shown(&a, id).await, seen(&[("code", 700, version)]));
    }
}

/// An attribute that is apart again takes the place of the row; one that is in the session's row takes it away, if the node
/// knows of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_has_expired_gives_way_to_the_next_of_its_key() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let (a, b) = (clocks.node(&world, world.config()).await, clocks.node(&world, world.config()).await);
    let observer = world.client().await;
    let create = a.create(1).set_until("known", &sized(600), at(HOUR));
    let mut session = create.set_until("unknown", &sized(600), at(HOUR)).await.unwrap();
    let id = session.id();
    clocks.set(HOUR).await;
    let mut on_b = read(&b, id).await;
    on_b.set_until("unknown", &sized(600), at(HOUR * 2)).unwrap();
    b.save(&mut on_b).check_attributes().await.unwrap();
    session.set("known", &2).unwrap();
    a.save(&mut session).check_attributes().await.unwrap();
    assert_eq!(
        places(&observer, id).await,
        in_places(r#"{"known":[2,3]}"#, &[("known", 1), ("unknown", 2)], true)
    );

    // A node that has the row in memory takes it away.
    let mut fresh = a.create(1).set_until("known", &sized(600), at(HOUR * 2)).await.unwrap();
    clocks.set(HOUR * 2).await;
    fresh.set("known", &2).unwrap();
    a.save(&mut fresh).await.unwrap();
    assert_eq!(places(&observer, fresh.id()).await, in_places(r#"{"known":[2,2]}"#, &[], true));
    clocks.set(HOUR * 2 + SECOND).await;
    for node in [&a, &b] {
        assert_eq!(shown(node, id).await, seen(&[("known", 1, 3)]));
        assert_eq!(shown(node, fresh.id()).await, seen(&[("known", 1, 2)]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupt_inline_text_is_an_error_and_session_is_deletable() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    let mut session = a.create(1).set("n", &1).await.unwrap();
    let id = session.id();
    for text in
        [r#"{"token":["top-secret"#, r#"{"token":"top-secret"}"#, r#"{"token":["top-secret","top-secret"]}"#]
    {
        let corrupt = "UPDATE sessions SET attributes = $1::text, version = version + 1 WHERE id = $2";
        observer.execute(corrupt, &[&text, &id.expose()]).await.unwrap();
        session.set("n", &2).unwrap();
        let update = match a.save(&mut session).await {
            Err(UpdateError::Failed(error)) => error,
            other => panic!("{other:?}"),
        };
        let errors = [
            b.get(id).await.unwrap_err(),
            a.get(id).bypass_cache().await.unwrap_err(),
            b.user(1).list().await.unwrap_err(),
            update,
        ];
        for error in errors {
            let source = std::error::Error::source(&error).expect("where it is at fault");
            let messages = format!("{error} {error:?} {source} {source:?}");
            assert_eq!(error.kind(), ErrorKind::Schema, "{messages}");
            assert!(
                messages.contains("attributes column")
                    && !messages.contains("secret")
                    && !messages.contains("token"),
                "{messages}"
            );
        }
        assert_eq!(b.status().cache.sessions, 0, "nothing of it is kept");
    }
    assert!(b.delete(id).await.unwrap());
    assert!(a.get(id).bypass_cache().await.unwrap().is_none());
}

/// White space, another order, a key twice: all of it is a text that reads, and the next update writes it as nodes do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_inline_text_is_read_and_rewritten_in_our_form() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let observer = world.client().await;
    let mut session = a.create(1).set("n", &1).await.unwrap();
    let id = session.id();
    let by_hand = "{ \"seen\" : [ [4, 1] , 2 ],\n \"cart\": [\"first\", 1], \"cart\": [\"second\", 2] }";
    let rewrite = "UPDATE sessions SET attributes = $1::text, version = version + 1 WHERE id = $2";
    observer.execute(rewrite, &[&by_hand, &id.expose()]).await.unwrap();
    let read = b.get(id).bypass_cache().await.unwrap().unwrap();
    assert_eq!(read.keys(), ["cart", "seen"]);
    assert_eq!((read.get_raw("cart"), read.get_raw("seen")), (Some("\"first\""), Some("[4, 1]")));
    assert_eq!(read.attribute_version("seen").unwrap().get(), 2);
    assert_eq!(places(&observer, id).await.packed, by_hand, "nothing is written by a read");

    session.set("n", &3).unwrap();
    a.save(&mut session).await.unwrap();
    let written = r#"{"cart":["first",1],"n":[3,3],"seen":[[4, 1],2]}"#;
    assert_eq!(places(&observer, id).await, in_places(written, &[], false));
    for node in [&a, &b] {
        assert_eq!(shown(node, id).await, seen(&[("cart", 7, 1), ("n", 1, 3), ("seen", 6, 2)]));
    }
}

/// A value that hand-written SQL corrupted is an error of its session only, not of its batch.
#[tokio::test]
async fn a_corrupt_text_spoils_no_other_session_of_its_statement() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut sessions = make(&a, 10).await;
    let spoilt = sessions[3].id();
    let corrupt = "UPDATE sessions SET attributes = '{', version = version + 1 WHERE id = $1";
    world.client().await.execute(corrupt, &[&spoilt.expose()]).await.unwrap();

    let before = b.status().loads.statements;
    let found = all(sessions.iter().map(|session| b.get(session.id()))).await;
    assert_eq!(b.status().loads.statements - before, 1, "they share a statement");
    for (session, found) in sessions.iter().zip(found) {
        match found {
            Err(error) => assert_eq!((session.id(), error.kind()), (spoilt, ErrorKind::Schema)),
            Ok(found) => assert!(found.is_some() && session.id() != spoilt),
        }
    }

    // All of them are overtaken, read again by one statement, and updated by the next.
    for session in &sessions {
        let text = "UPDATE sessions SET version = version + 1 WHERE id = $1";
        world.client().await.execute(text, &[&session.id().expose()]).await.unwrap();
    }
    let updated = all(sessions.iter_mut().map(|session| {
        session.set("n", &7).unwrap();
        a.save(session)
    }))
    .await;
    for (session, updated) in sessions.iter().zip(updated) {
        match updated {
            Err(UpdateError::Failed(error)) => {
                assert_eq!((session.id(), error.kind()), (spoilt, ErrorKind::Schema));
            }
            other => assert!(other.is_ok() && session.id() != spoilt),
        }
    }
}

#[tokio::test]
async fn update_of_overflow_attribute_can_change_row_too() {
    let world = World::new();
    let node = world.node().await;
    let mut session = node.create(1).set("page", &"x".repeat(600)).await.unwrap();
    session.set("page", &"y".repeat(600)).unwrap();
    let update = node.save(&mut session).group(Some(GroupId::from(7))).idle_limit(IdleLimit::Exempt);
    update.expires_in(HOUR).await.unwrap();
    let read = node.get(session.id()).bypass_cache().await.unwrap().unwrap();
    assert_eq!((read.group_id(), read.idle_limit()), (Some(GroupId::from(7)), IdleLimit::Exempt));
    let lifetime = read.expires_at().duration_since(read.updated_at()).unwrap();
    assert!(lifetime.abs_diff(HOUR) < SECOND, "{lifetime:?}");
    assert_eq!(read.get::<String>("page").unwrap(), Some("y".repeat(600)));
}
