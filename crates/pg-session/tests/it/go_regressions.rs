//! What the predecessor (go-pg-session) gets wrong, and no other test shows by its name: one test a fault, in the order of
//! docs/history/coverage.md, which lists all of them with their tests.

use pg_session::testing::Guard;
use pg_session::{Config, ErrorKind, GroupId, SessionManager, UpdateError};
use serde::{Deserialize, Serialize};

use crate::fixtures::{hit, in_time, make, n, read, update_all};
use crate::support::{World, eventually};
use crate::tables::{Holder, stored, stored_version};

/// Fault 3: a refresh that failed counted as done, and what had been missed was served.
#[tokio::test]
async fn failed_resync_serves_nothing_that_was_missed() {
    let world = World::new();
    let [a] = world.nodes().await;
    let wire = world.proxy().await;
    let b = world.node_listening_through(&wire, world.roomy()).await;
    let client = world.client().await;
    let mut sessions = make(&a, 1).await;
    let id = sessions[0].id();
    read(&b, id).await;
    wire.refuse();
    wire.cut();
    eventually("the node has noticed", async || b.status().trusted_for.is_none()).await;
    update_all(&a, &mut sessions, 2).await;

    client.batch_execute("ALTER TABLE sessions RENAME COLUMN version TO hidden").await.unwrap();
    wire.accept();
    in_time("the node listens again", b.wait_until_trusted()).await.unwrap();
    assert!(hit(&b, id).is_none());
    assert!(b.get(id).await.is_err(), "nothing else to answer with");
    // The control: this is what it would have answered.
    b.probes().remove(Guard::Revalidation);
    assert_eq!(hit(&b, id).map(|session| n(&session)), Some(1));
    b.probes().restore(Guard::Revalidation);
    client.batch_execute("ALTER TABLE sessions RENAME COLUMN hidden TO version").await.unwrap();
    assert_eq!(n(&read(&b, id).await), 2);
}

/// Fault 6: the row of one version with the attributes of another. Two plain statements, the control, see that here. One
/// attribute is in the session's row, the other in a row of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_never_mixes_two_versions() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let m = |version: i64| format!("{version:0600}");
    let mut session = a.create(1).set("n", &1_i64).set("m", &m(1)).await.unwrap();
    let id = session.id();
    let writer = tokio::spawn(async move {
        for value in 2_i64.. {
            session.set("n", &value).unwrap();
            session.set("m", &m(value)).unwrap();
            a.save(&mut session).await.unwrap();
        }
    });
    let client = world.client().await;
    let story = async {
        let (mut reads, mut torn) = (0, 0);
        while torn == 0 || reads < 200 {
            let session = b.get(id).bypass_cache().await.unwrap().unwrap();
            let version = session.version().get();
            assert_eq!((n(&session), session.get("m").unwrap()), (version, Some(m(version))));
            reads += 1;
            let version = stored_version(&client, id).await.unwrap();
            torn += usize::from(stored(&client, id).await["n"].version != version);
        }
    };
    in_time("two statements were torn, and 200 reads were made", story).await;
    writer.abort();
}

/// Fault 6: an error in the middle of the rows was ignored, and a session was cached with attributes missing.
#[tokio::test]
async fn error_amid_attribute_rows_fails_load_and_caches_nothing() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut create = a.create(1).set("small", &1);
    for key in ["a", "b", "c"] {
        create = create.set(key, &key.repeat(600));
    }
    let id = create.await.unwrap().id();
    let client = world.client().await;
    client
        .batch_execute(
            "ALTER TABLE session_attributes RENAME TO hidden;
             CREATE VIEW session_attributes AS
             SELECT session_id, key, CASE key WHEN 'b' THEN (length(value) / 0)::text ELSE value END AS value,
                    expires_at, version
             FROM hidden",
        )
        .await
        .unwrap();
    assert_eq!(b.get(id).await.unwrap_err().kind(), ErrorKind::Database);
    assert_eq!(b.status().cache.sessions, 0);
    client
        .batch_execute("DROP VIEW session_attributes; ALTER TABLE hidden RENAME TO session_attributes")
        .await
        .unwrap();
    assert_eq!(read(&b, id).await.keys(), ["a", "b", "c", "small"]);
}

/// Fault 7: remove then set lost the write; set then remove left a null. (In any order: the stories of `model`.)
#[tokio::test]
async fn later_of_removal_and_set_of_one_key_wins() {
    let world = World::new();
    let [a] = world.nodes().await;
    let client = world.client().await;
    let mut session = a.create(1).set("x", &1).set("y", &1).await.unwrap();
    session.remove("x");
    session.set("x", &2).unwrap();
    session.set("y", &2).unwrap();
    session.remove("y");
    a.save(&mut session).await.unwrap();
    let held = stored(&client, session.id()).await;
    let held: Vec<_> = held.iter().map(|(key, held)| (key.as_str(), held.text.as_str())).collect();
    assert_eq!(held, [("x", "2")]);
    assert_eq!((session.keys(), session.get::<i32>("x").unwrap()), (vec!["x"], Some(2)));
}

/// Fault 8: every update wrote the group back as the handle had read it.
#[tokio::test]
async fn an_update_from_a_stale_handle_does_not_write_the_group_back() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut on_a = a.create(1).group(GroupId::named("old")).await.unwrap();
    let mut stale = read(&b, on_a.id()).await;
    a.save(&mut on_a).group(Some(GroupId::named("new"))).await.unwrap();
    stale.set("x", &1).unwrap();
    b.save(&mut stale).await.unwrap();
    assert_eq!(stale.group_id(), Some(GroupId::named("new")), "and shows it");
    let fresh = a.get(on_a.id()).bypass_cache().await.unwrap().unwrap();
    assert_eq!((fresh.group_id(), fresh.contains("x")), (Some(GroupId::named("new")), true));
}

/// Fault 9: an update's values were in the cache before it was committed, and stayed if it was not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_in_memory_before_it_is_committed() {
    let world = World::new();
    let [a] = world.nodes().await;
    let observer = world.client().await;
    let mut session = make(&a, 1).await.remove(0);
    let id = session.id();
    let holder = Holder::hold(&world, &[id]).await;
    session.set("n", &2).unwrap();
    let update = {
        let a = a.clone();
        tokio::spawn(async move { a.save(&mut session).await })
    };
    holder.blocks(&observer).await;
    assert_eq!(n(&hit(&a, id).unwrap()), 1);
    holder.client.batch_execute("DELETE FROM sessions").await.unwrap();
    holder.commit().await;
    assert!(matches!(update.await.unwrap(), Err(UpdateError::NotFound)));
    assert!(a.get(id).bypass_cache().await.unwrap().is_none());
    assert!(hit(&a, id).is_none());
}

/// Fault 9: requests shared the cached values, and could change them under each other.
#[tokio::test]
async fn what_one_request_sets_no_other_sees_before_it_is_saved() {
    let world = World::new();
    let [a] = world.nodes().await;
    let id = make(&a, 1).await[0].id();
    let (mut one, other) = (read(&a, id).await, read(&a, id).await);
    one.set("n", &2).unwrap();
    one.remove("m");
    assert_eq!((n(&one), n(&other), n(&read(&a, id).await)), (2, 1, 1));
    a.save(&mut one).await.unwrap();
    assert_eq!((n(&other), n(&read(&a, id).await)), (1, 2), "a handle is a snapshot, a read is not");
}

/// Fault 9: a number was an integer where it was written and a float where it had been read.
#[tokio::test]
async fn a_value_is_the_same_wherever_it_is_read() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Value {
        big: u64,
        small: f64,
        text: String,
        nested: Vec<Option<i8>>,
    }
    let value = || Value {
        big: u64::MAX,
        small: 0.1,
        text: "\0 ü \u{1f600}".to_owned(),
        nested: vec![None, Some(-1)],
    };
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut created = a.create(1).set("v", &value()).await.unwrap();
    let id = created.id();
    let text = created.get_raw("v").unwrap().to_owned();
    created.set("w", &value()).unwrap();
    assert_eq!(created.get::<Value>("w").unwrap(), Some(value()), "before it is saved");
    a.save(&mut created).await.unwrap();
    b.catch_up().await.unwrap();
    let from_database = read(&b, id).await;
    let from_memory = read(&b, id).await;
    assert!(!from_database.is_from_cache() && from_memory.is_from_cache());
    for session in [created, read(&a, id).await, from_database, from_memory] {
        for key in ["v", "w"] {
            assert_eq!(session.get_raw(key), Some(text.as_str()));
            assert_eq!(session.get::<Value>(key).unwrap(), Some(value()));
            assert_eq!(session.get_shared::<Value>(key).unwrap().as_deref(), Some(&value()));
        }
    }
}

/// Fault 12: a configuration that did not come from `DefaultConfig` switched notifications and caching off.
#[tokio::test]
async fn a_configuration_made_of_what_differs_notifies_and_caches() {
    let world = World::new();
    let text = format!(r#"{{ "schema": "{}", "migrations": "apply" }}"#, world.schema);
    let config: Config = serde_json::from_str(&text).unwrap();
    let (a, b) = (world.node_with(config.clone()).await, world.node_with(config).await);
    let mut sessions = make(&a, 1).await;
    let id = sessions[0].id();
    read(&b, id).await;
    assert!(read(&b, id).await.is_from_cache());
    update_all(&a, &mut sessions, 2).await;
    b.catch_up().await.unwrap();
    assert_eq!(n(&read(&b, id).await), 2);
}

/// Fault 13: one crafted notification, from any role of the database, made every node panic.
#[tokio::test]
async fn whatever_is_notified_a_node_does_no_worse_than_evict() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut sessions = make(&a, 1).await;
    let id = sessions[0].id();
    read(&b, id).await;
    let client = world.client().await;
    let channel: String = client
        .query_one(
            "SELECT 'pg_session_' || left(encode(sha256(convert_to($1, 'UTF8') || '\\x00'::bytea), 'hex'), 16)",
            &[&world.schema],
        )
        .await
        .unwrap()
        .get(0);
    let plain = id.expose().simple();
    let hostile =
        ["", "{", "null", "1", "1 ", "1x", "1d", "1s,", "1u", "1uann", "1aa", "1a", "2?", "\u{1f600}"];
    let hostile = hostile.iter().map(ToString::to_string).chain([
        format!("1d{}", id.expose()),
        format!("1d{plain}"),
        format!("1s{plain}.0,{plain}.99999999999999999999"),
        format!("1d{}", ",".repeat(7_000)),
        "9".repeat(7_999),
    ]);
    for payload in hostile {
        client.execute("SELECT pg_notify($1, $2)", &[&channel, &payload]).await.unwrap();
    }
    // The same channel carries what is true: it is still received, and what was evicted is read again.
    update_all(&a, &mut sessions, 2).await;
    for node in [&a, &b] {
        node.catch_up().await.unwrap();
        assert_eq!(n(&read(node, id).await), 2);
        assert!(read(node, id).await.is_from_cache(), "and is trusted");
    }
}

/// Fault 15: rows were locked in the order of a map, and the two tables in both orders. Here everything crosses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_cross_on_two_nodes_all_succeed() {
    const ROUNDS: u32 = 15;
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(a.create(1).set("n", &0_i64).set("role", "x").await.unwrap().id());
    }
    let mut tasks = Vec::new();
    for node in [&a, &b] {
        for (at, &id) in ids.iter().enumerate() {
            let node = node.clone();
            tasks.push(tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let mut session = node.get(id).await.unwrap().unwrap();
                    session.set("role", &round).unwrap();
                    session.set(&format!("k{}", (at + round as usize) % 7), &round).unwrap();
                    node.save(&mut session).await.unwrap();
                }
            }));
        }
        let node = node.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..ROUNDS {
                node.user(1).remove_attribute("role").await.unwrap();
                node.delete_many([]).await.unwrap();
            }
        }));
    }
    for task in tasks {
        in_time("all of it is written", task).await.unwrap();
    }
    let client = world.client().await;
    for id in ids {
        let version = stored_version(&client, id).await.unwrap();
        assert!(version > i64::from(2 * ROUNDS), "each update counted: {version}");
    }
}

/// Fault 17: versions had 32 bits.
#[tokio::test]
async fn versions_go_on_past_32_bits() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let id = make(&a, 1).await[0].id();
    let past = i64::from(u32::MAX);
    world.client().await.execute("UPDATE sessions SET version = $1", &[&past]).await.unwrap();
    a.evict_all().await.unwrap();
    let mut session = read(&a, id).await;
    session.set("n", &2).unwrap();
    a.save(&mut session).check_version().await.unwrap();
    assert_eq!(session.version().get(), past + 1);
    let seen = b.get(id).min_version(session.version()).await.unwrap().unwrap();
    assert_eq!((seen.version().get(), seen.attribute_version("n").unwrap().get()), (past + 1, past + 1));
}

/// Fault 21: the channel's name was made of the prefix alone, and PostgreSQL would have cut a long one.
#[tokio::test]
async fn nodes_with_longest_names_share_a_channel_of_their_own() {
    let world = World::new();
    let start = async |schema: &str, prefix: &str| {
        let mut config = world.roomy();
        config.schema = schema.to_owned();
        config.table_prefix = prefix.to_owned();
        world.node_with(config).await
    };
    // 63 bytes that differ in the last one.
    let [x, y] = ["x", "y"].map(|end| format!("{}_{end:_>1$}", world.schema, 62 - world.schema.len()));
    let (a, b) = (start(&x, "p_").await, start(&x, "p_").await);
    let others = [start(&y, "p_").await, start(&x, "q_").await];
    let mut sessions = make(&a, 1).await;
    read(&b, sessions[0].id()).await;
    let nodes = [&b, &others[0], &others[1]];
    let invalidations = |node: &SessionManager| node.status().cache.invalidations;
    let before = nodes.map(invalidations);
    update_all(&a, &mut sessions, 2).await;
    for node in nodes {
        node.catch_up().await.unwrap();
    }
    let after = nodes.map(invalidations);
    assert_eq!(n(&read(&b, sessions[0].id()).await), 2);
    assert_eq!([0, 1, 2].map(|node| after[node] - before[node]), [1, 0, 0]);
}
