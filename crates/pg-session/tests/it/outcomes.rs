//! What an update answers when it cannot be made: a conflict, nothing found, an invalidated handle; and that nothing
//! of it was written.

use std::time::Duration;

use pg_session::{ErrorKind, Session, SessionId, SessionManager, UpdateError};
use tokio_postgres::Client;

use crate::support::World;
use crate::tables::{counts, stored, stored_version};

struct Scene {
    world: World,
    a: SessionManager,
    b: SessionManager,
    observer: Client,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new();
        let (a, b, observer) = (world.node().await, world.node().await, world.client().await);
        Self { world, a, b, observer }
    }

    /// A session of version 1 with the keys `x` and `y`, as node A and node B hold it.
    async fn session(&self) -> (Session, Session) {
        let on_a = self.a.create(1).set("x", &1).set("y", &1).await.unwrap();
        let on_b = self.b.get(on_a.id()).await.unwrap().unwrap();
        (on_a, on_b)
    }

    /// Fails if anything but these values and this version is in the tables.
    async fn assert_holds(&self, id: SessionId, version: i64, attributes: &[(&str, &str, i64)]) {
        assert_eq!(stored_version(&self.observer, id).await, Some(version));
        let held = stored(&self.observer, id).await;
        let held: Vec<_> =
            held.iter().map(|(key, held)| (key.as_str(), held.text.as_str(), held.version)).collect();
        assert_eq!(held, attributes);
    }
}

fn conflict(outcome: Result<(), UpdateError>) -> Vec<String> {
    match outcome {
        Err(UpdateError::Conflict { keys }) => keys,
        other => panic!("{other:?} instead of a conflict"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_conflict_names_no_keys_and_writes_nothing() {
    let scene = Scene::new().await;
    let (mut on_a, mut on_b) = scene.session().await;
    on_b.set("x", &2).unwrap();
    scene.b.save(&mut on_b).await.unwrap();

    on_a.set("z", &3).unwrap();
    let outcome = scene.a.save(&mut on_a).check_version().expires_in(Duration::from_secs(60)).await;
    assert_eq!(conflict(outcome), Vec::<String>::new());
    scene.assert_holds(on_a.id(), 2, &[("x", "2", 2), ("y", "1", 1)]).await;
    assert!(on_a.is_modified() && on_a.version().get() == 1, "the handle is as it was");
    let newer = scene.a.get(on_a.id()).await.unwrap().unwrap();
    assert_eq!(newer.version().get(), 2, "the next read on this node is the newer version");
    assert_eq!(newer.get::<i32>("x").unwrap(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attribute_conflict_names_exactly_the_keys_that_differ() {
    let scene = Scene::new().await;
    let (mut on_a, mut on_b) = scene.session().await;
    on_b.set("x", &2).unwrap();
    on_b.set("new", &2).unwrap();
    on_b.set("untouched by a", &2).unwrap();
    scene.b.save(&mut on_b).await.unwrap();

    on_a.set("x", &3).unwrap(); // changed meanwhile
    on_a.set("new", &3).unwrap(); // expected to be absent, and is not
    on_a.set("y", &3).unwrap(); // as it was
    on_a.set("other", &3).unwrap(); // still absent
    let outcome = scene.a.save(&mut on_a).check_attributes().await;
    assert_eq!(conflict(outcome), ["new", "x"]);
    let held = [("new", "2", 2), ("untouched by a", "2", 2), ("x", "2", 2), ("y", "1", 1)];
    scene.assert_holds(on_a.id(), 2, &held).await;
    assert_eq!(scene.a.get(on_a.id()).await.unwrap().unwrap().version().get(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_are_checked_as_sets_are() {
    let scene = Scene::new().await;
    let (mut on_a, mut on_b) = scene.session().await;
    on_b.set("x", &2).unwrap();
    on_b.remove("y");
    on_b.set("new", &2).unwrap();
    scene.b.save(&mut on_b).await.unwrap();

    on_a.remove("x"); // changed meanwhile
    on_a.remove("y"); // removed meanwhile
    on_a.remove("new"); // expected to be absent, and is not
    on_a.remove("other"); // still absent
    let outcome = scene.a.save(&mut on_a).check_attributes().await;
    assert_eq!(conflict(outcome), ["new", "x", "y"]);
    scene.assert_holds(on_a.id(), 2, &[("new", "2", 2), ("x", "2", 2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_removed_and_set_again_conflicts_with_earlier_read() {
    let scene = Scene::new().await;
    let (mut on_a, mut on_b) = scene.session().await;
    on_b.remove("x");
    scene.b.save(&mut on_b).await.unwrap();
    on_b.set("x", &1).unwrap();
    scene.b.save(&mut on_b).await.unwrap();

    on_a.set("x", &9).unwrap();
    assert_eq!(conflict(scene.a.save(&mut on_a).check_attributes().await), ["x"]);
    scene.assert_holds(on_a.id(), 3, &[("x", "1", 3), ("y", "1", 1)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unchecked_update_returns_merged_state_of_its_version() {
    let scene = Scene::new().await;
    let (mut on_a, mut on_b) = scene.session().await;
    on_b.set("x", &2).unwrap();
    on_b.remove("y");
    scene.b.save(&mut on_b).group(Some(7.into())).await.unwrap();

    on_a.set("z", &3).unwrap();
    scene.a.save(&mut on_a).await.unwrap();
    assert_eq!((on_a.version().get(), on_a.keys()), (3, vec!["x", "z"]));
    assert_eq!(on_a.get::<i32>("x").unwrap(), Some(2));
    assert_eq!(on_a.attribute_version("x").unwrap().get(), 2);
    assert_eq!(on_a.group_id(), Some(7.into()), "a stale copy of the group was not written");
    scene.assert_holds(on_a.id(), 3, &[("x", "2", 2), ("z", "3", 3)]).await;

    // The returned truth is good enough to be checked against.
    on_a.set("x", &4).unwrap();
    scene.a.save(&mut on_a).check_attributes().await.unwrap();
    scene.assert_holds(on_a.id(), 4, &[("x", "4", 4), ("z", "3", 3)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_other_attributes_do_not_refuse_a_checked_update() {
    let scene = Scene::new().await;
    let (mut on_a, mut on_b) = scene.session().await;
    on_b.set("y", &2).unwrap();
    scene.b.save(&mut on_b).await.unwrap();
    on_a.set("x", &3).unwrap();
    scene.a.save(&mut on_a).check_attributes().await.unwrap();
    scene.assert_holds(on_a.id(), 3, &[("x", "3", 3), ("y", "2", 2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_without_changes_sends_nothing() {
    let scene = Scene::new().await;
    let (mut on_a, _) = scene.session().await;
    on_a.set("x", &5).unwrap();
    on_a.discard_changes();
    scene.a.save(&mut on_a).check_version().await.unwrap();
    scene.assert_holds(on_a.id(), 1, &[("x", "1", 1), ("y", "1", 1)]).await;
    assert_eq!(scene.a.status().writes.update_statements, 0);
}

async fn assert_stays_gone(scene: &Scene, mut handle: Session) {
    let id = handle.id();
    handle.set("x", &"ghost").unwrap();
    handle.set("ghost", &1).unwrap();
    for node in [&scene.a, &scene.b] {
        let outcomes = [
            node.save(&mut handle).await,
            node.save(&mut handle).check_version().await,
            node.save(&mut handle).check_attributes().expires_in(Duration::from_secs(60)).await,
        ];
        for outcome in outcomes {
            assert!(matches!(outcome, Err(UpdateError::NotFound)), "{outcome:?}");
        }
        assert!(node.get(id).await.unwrap().is_none());
    }
    assert!(stored(&scene.observer, id).await.keys().all(|key| key != "ghost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn update_of_deleted_session_is_not_found_and_revives_nothing() {
    let scene = Scene::new().await;
    for way in 0..5 {
        let (on_a, on_b) = scene.session().await;
        let node = &scene.b;
        match way {
            0 => assert!(node.delete(on_b.id()).await.unwrap()),
            1 => assert_eq!(node.delete_many([on_b.id()]).await.unwrap(), 1),
            2 => assert_eq!(node.user(1).delete().await.unwrap(), 1),
            3 => {
                let mut grouped = on_b;
                node.save(&mut grouped).group(Some(9.into())).await.unwrap();
                assert_eq!(node.group(9).delete().await.unwrap(), 1);
            }
            _ => assert_eq!(node.delete_all_sessions().await.unwrap(), 1),
        }
        assert_stays_gone(&scene, on_a).await;
        assert_eq!(counts(&scene.observer).await, (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn update_of_expired_session_is_not_found_and_revives_nothing() {
    let scene = Scene::new().await;
    let (mut on_a, on_b) = scene.session().await;
    let past = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    scene.a.save(&mut on_a).expires_at(past).await.unwrap();
    assert_stays_gone(&scene, on_b).await;
    assert_eq!(stored_version(&scene.observer, on_a.id()).await, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn update_of_session_evicted_by_cap_is_not_found() {
    let scene = Scene::new().await;
    let (on_a, _) = scene.session().await;
    for _ in 0..scene.world.config().sessions_per_user_max {
        scene.b.create(1).await.unwrap();
    }
    assert_stays_gone(&scene, on_a).await;
    assert_eq!(counts(&scene.observer).await, (5, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidated_handle_cannot_be_saved() {
    let scene = Scene::new().await;
    let (mut on_a, _) = scene.session().await;
    on_a.set("x", &2).unwrap();
    on_a.invalidate();
    match scene.a.save(&mut on_a).await {
        Err(UpdateError::Failed(error)) => {
            assert_eq!(error.kind(), ErrorKind::Invalidated);
            assert!(error.to_string().contains("load the session again"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    scene.assert_holds(on_a.id(), 1, &[("x", "1", 1), ("y", "1", 1)]).await;
    assert!(!scene.a.get(on_a.id()).await.unwrap().unwrap().is_invalidated(), "only the handle is");
}
