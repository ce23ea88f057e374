//! Two nodes change one session at once: what a statement saw when it began is not what it finally locks.

use std::collections::BTreeMap;

use pg_session::{Session, SessionManager, UpdateError};
use tokio::task::JoinHandle;

use crate::support::World;
use crate::tables::{Holder, stored, stored_version};

#[derive(Clone, Copy)]
enum Checked {
    No,
    Version,
    Attributes,
}

/// Where the other node's attribute goes.
#[derive(Clone, Copy, Debug)]
enum Theirs {
    InTheRow,
    Apart,
}

const PLACES: [Theirs; 2] = [Theirs::InTheRow, Theirs::Apart];

/// Sends `session`'s update into a row that a plain transaction holds. Like another node, it has inserted the key
/// `new` and bumped the version. Returns the update's outcome.
async fn overtaken(
    world: &World,
    node: &SessionManager,
    mut session: Session,
    checked: Checked,
    theirs: Theirs,
) -> Result<Session, UpdateError> {
    let observer = world.client().await;
    let id = session.id().expose();
    let script = match theirs {
        Theirs::InTheRow => format!(
            "UPDATE sessions SET version = version + 1,
                 attributes = left(attributes, -1) || ',\"new\":[\"theirs\",' || version + 1 || ']}}' WHERE id = '{id}'"
        ),
        Theirs::Apart => format!(
            "UPDATE sessions SET version = version + 1, has_overflow = true WHERE id = '{id}';
             INSERT INTO session_attributes VALUES ('{id}', 'new', '\"theirs\"', NULL,
                 (SELECT version FROM sessions WHERE id = '{id}'))"
        ),
    };
    let holder = Holder::begin(world, &script).await;
    let updated: JoinHandle<_> = {
        let node = node.clone();
        tokio::spawn(async move {
            let update = node.save(&mut session);
            match checked {
                Checked::No => update.await,
                Checked::Version => update.check_version().await,
                Checked::Attributes => update.check_attributes().await,
            }
            .map(|()| session)
        })
    };
    holder.blocks(&observer).await;
    holder.commit().await;
    updated.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removal_sees_key_inserted_while_it_waited() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    for theirs in PLACES {
        let mut session = node.create(1).set("old", &1).await.unwrap();
        session.remove("new");
        let session = overtaken(&world, &node, session, Checked::No, theirs).await.unwrap();
        assert_eq!(session.version().get(), 3, "{theirs:?}");
        assert_eq!(session.keys(), ["old"]);
        assert_eq!(stored(&observer, session.id()).await.keys().collect::<Vec<_>>(), ["old"], "{theirs:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unchecked_change_rebases_onto_concurrent_update() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    for theirs in PLACES {
        let mut session = node.create(1).set("old", &1).await.unwrap();
        session.set("mine", &2).unwrap();
        let session = overtaken(&world, &node, session, Checked::No, theirs).await.unwrap();
        assert_eq!(session.version().get(), 3, "{theirs:?}");
        assert_eq!(session.get::<String>("new").unwrap().as_deref(), Some("theirs"), "{theirs:?}");
        let versions = ["old", "new", "mine"].map(|key| session.attribute_version(key).unwrap().get());
        assert_eq!(versions, [1, 2, 3]);
        let cached = node.get(session.id()).await.unwrap().unwrap();
        assert!(cached.is_from_cache());
        assert_eq!(cached.keys(), session.keys());
        assert_eq!(stored_version(&observer, session.id()).await, Some(3));
        let held = stored(&observer, session.id()).await;
        assert_eq!(
            held.values().map(|held| held.version).collect::<Vec<_>>(),
            [3, 2, 1],
            "{theirs:?}: {held:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attribute_check_uses_state_after_row_lock_wait() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    for (theirs, remove) in PLACES.into_iter().flat_map(|theirs| [(theirs, false), (theirs, true)]) {
        let mut session = node.create(1).set("old", &1).await.unwrap();
        let id = session.id();
        session.set("old", &2).unwrap();
        if remove {
            session.remove("new");
        } else {
            session.set("new", "mine").unwrap();
        }
        let outcome = overtaken(&world, &node, session, Checked::Attributes, theirs).await;
        assert!(matches!(outcome, Err(UpdateError::Conflict { keys }) if keys == ["new"]));
        let held = stored(&observer, id).await;
        assert_eq!((held["new"].text.as_str(), held["old"].text.as_str()), ("\"theirs\"", "1"));
        assert_eq!(stored_version(&observer, id).await, Some(2));
        assert_eq!(node.get(id).await.unwrap().unwrap().version().get(), 2, "the next read is the newer one");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_check_uses_state_after_row_lock_wait() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    let mut session = node.create(1).set("old", &1).await.unwrap();
    let id = session.id();
    session.set("old", &2).unwrap();
    let outcome = overtaken(&world, &node, session, Checked::Version, Theirs::InTheRow).await;
    assert!(matches!(outcome, Err(UpdateError::Conflict { keys }) if keys.is_empty()));
    assert_eq!(stored(&observer, id).await["old"].text, "1");
    assert_eq!(stored_version(&observer, id).await, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_waits_for_a_delete_finds_nothing() {
    let world = World::new();
    let (node, observer) = (world.node().await, world.client().await);
    let mut session = node.create(1).set("old", &1).await.unwrap();
    let id = session.id();
    session.set("old", &2).unwrap();
    let holder = Holder::begin(&world, &format!("DELETE FROM sessions WHERE id = '{}'", id.expose())).await;
    let updated = tokio::spawn({
        let node = node.clone();
        async move { node.save(&mut session).await }
    });
    holder.blocks(&observer).await;
    holder.commit().await;
    assert!(matches!(updated.await.unwrap(), Err(UpdateError::NotFound)));
    assert!(node.get(id).await.unwrap().is_none());
    assert!(stored(&observer, id).await.is_empty());
}

/// One acknowledged update: the version that it made, and what it did to one key.
struct Done {
    version: i64,
    key: String,
    value: Option<i32>,
}

async fn hammer(node: SessionManager, id: pg_session::SessionId, task: i32, rounds: i32) -> Vec<Done> {
    let mut done = Vec::new();
    let mut session = node.get(id).await.unwrap().unwrap();
    for round in 0..rounds {
        let key = format!("k{}", (task + round) % 3);
        let value = ((task + round / 2) % 2 == 0).then_some(task * 1_000 + round);
        match value {
            Some(value) => session.set(&key, &value).unwrap(),
            None => session.remove(&key),
        }
        node.save(&mut session).await.unwrap();
        done.push(Done { version: session.version().get(), key, value });
    }
    done
}

/// Every acknowledged update has a version of its own, and replaying them in that order gives the tables' content:
/// no update was lost, none was applied twice, none was applied in another place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_updates_of_two_nodes_replay_to_the_tables() {
    const TASKS: i32 = 6;
    const ROUNDS: i32 = 25;
    let world = World::new();
    let nodes = [world.node().await, world.node().await];
    let observer = world.client().await;
    let id = nodes[0].create(1).await.unwrap().id();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| tokio::spawn(hammer(nodes[usize::from(task % 2 == 0)].clone(), id, task, ROUNDS)))
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.append(&mut task.await.unwrap());
    }
    done.sort_by_key(|done| done.version);
    let versions: Vec<i64> = done.iter().map(|done| done.version).collect();
    assert_eq!(versions, (2..2 + i64::from(TASKS * ROUNDS)).collect::<Vec<_>>());

    let mut replayed = BTreeMap::new();
    for Done { version, key, value } in done {
        match value {
            Some(value) => replayed.insert(key, (value.to_string(), version)),
            None => replayed.remove(&key),
        };
    }
    let held = stored(&observer, id).await;
    let held: BTreeMap<_, _> = held.into_iter().map(|(key, held)| (key, (held.text, held.version))).collect();
    assert_eq!(held, replayed);
    for node in &nodes {
        node.catch_up().await.unwrap();
        let read = node.get(id).await.unwrap().unwrap();
        assert_eq!(read.version().get(), 1 + i64::from(TASKS * ROUNDS));
        assert_eq!(read.keys(), replayed.keys().collect::<Vec<_>>());
    }
}
