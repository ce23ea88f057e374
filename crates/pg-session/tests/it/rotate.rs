//! Rotation: what the session is under its new id, and what its retired id shows.

mod deletion;
mod limit;
mod locks;
mod race;

use std::time::Duration;

use pg_session::{ErrorKind, Session, SessionManager, UpdateError, UserId};

use crate::fixtures::read;
use crate::support::{World, eventually};
use crate::tables::stored;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

async fn anonymous(node: &SessionManager) -> Session {
    let session = node.create_anonymous().set("cart", &["book"]);
    session.set_for("offer", &7, HOUR).set("locale", "de").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_anonymous_session_has_no_user() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let mut session = anonymous(&a).await;
    assert_eq!(session.user_id(), None);
    assert_eq!(read(&b, session.id()).await.user_id(), None);
    session.set("cart", &["book", "pen"]).unwrap();
    a.save(&mut session).await.unwrap();
    b.catch_up().await.unwrap();
    assert_eq!(
        read(&b, session.id()).await.get("cart").unwrap(),
        Some(["book".to_owned(), "pen".to_owned()])
    );
    for _ in 0..20 {
        a.create_anonymous().await.unwrap();
    }
    assert!(read(&a, session.id()).await.is_from_cache(), "no limit ends it");
    assert!(a.delete(session.id()).await.unwrap());
    b.catch_up().await.unwrap();
    assert!(b.get(session.id()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_takes_along_what_was_chosen_and_what_was_not_saved() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let mut session = anonymous(&a).await;
    let before = a.get(session.id()).bypass_cache().await.unwrap().unwrap();
    session.set("name", "Ann").unwrap();
    session.set("locale", "fr").unwrap();
    a.rotate(&mut session).user(42).keep(["cart", "offer", "unheard of"]).await.unwrap();

    assert_ne!(session.id(), before.id());
    assert_eq!((session.user_id(), session.is_retired()), (Some(UserId::from(42)), false));
    assert_eq!(session.version().get(), before.version().get() + 1);
    assert!(!session.is_modified(), "its changes are saved");
    assert_eq!(session.keys(), ["cart", "locale", "name", "offer"]);
    assert_eq!(session.attribute_version("cart"), Some(session.version()));
    assert_eq!(session.attribute_expires_at("offer"), before.attribute_expires_at("offer"));
    assert!(session.created_at() > before.created_at(), "a login is a new beginning");
    assert!(session.expires_at() > before.expires_at());

    for node in [&a, &b] {
        let same = read(node, session.id()).await;
        assert_eq!((same.keys(), same.user_id()), (session.keys(), session.user_id()));
        assert_eq!(same.get::<String>("locale").unwrap().as_deref(), Some("fr"));
        assert_eq!(same.version(), session.version());
    }
    assert_eq!(a.user(42).list().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_id_shows_the_old_state_and_cannot_be_used() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let mut session = anonymous(&a).await;
    let old = session.id();
    let mut handle = read(&b, old).await;
    session.set("role", "admin").unwrap();
    a.rotate(&mut session).user(42).keep(["cart"]).await.unwrap();
    b.catch_up().await.unwrap();
    for node in [&a, &b] {
        let left = read(node, old).await;
        assert!(left.is_retired());
        assert_eq!((left.user_id(), left.keys()), (None, vec!["cart", "locale", "offer"]));
        assert!(left.expires_at() <= session.updated_at() + node.config().rotation_grace + SECOND);
        eventually("parallel requests find it in memory", async || read(node, old).await.is_from_cache())
            .await;
    }
    handle.set("cart", &0).unwrap();
    assert!(matches!(b.save(&mut handle).await, Err(UpdateError::Rotated)));
    assert!(matches!(b.rotate(&mut handle).user(1).await, Err(UpdateError::Rotated)));
    let mut left = read(&b, old).await;
    assert!(matches!(b.rotate(&mut left).await, Err(UpdateError::Rotated)));
    assert!(matches!(a.modify(old, |session| session.set("cart", &0)).await, Err(UpdateError::Rotated)));
    assert!(!stored(&world.client().await, session.id()).await["cart"].text.contains('0'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_of_same_user_keeps_all_and_extends_nothing() {
    let world = World::new();
    let node = world.node().await;
    let mut session = node.create(1).group(7).expires_in(HOUR).set("cart", &1).await.unwrap();
    let before = session.clone();
    node.rotate(&mut session).await.unwrap();
    assert_ne!(session.id(), before.id());
    assert_eq!((session.user_id(), session.group_id()), (before.user_id(), before.group_id()));
    assert_eq!((session.expires_at(), session.created_at()), (before.expires_at(), before.created_at()));
    assert_eq!(session.keys(), ["cart"]);
    node.rotate(&mut session).user(1).keep_none().group(None).expires_in(HOUR * 2).await.unwrap();
    assert!(session.keys().is_empty() && session.group_id().is_none());
    assert!(session.expires_at() > before.expires_at());
    assert_eq!(session.version().get(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_grace_the_old_id_is_dead_at_once() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let mut session = a.create(1).set("cart", &1).await.unwrap();
    let first = session.id();
    read(&b, first).await;
    a.rotate(&mut session).await.unwrap();
    let second = session.id();
    read(&b, second).await;
    a.rotate(&mut session).grace(Duration::ZERO).await.unwrap();
    b.catch_up().await.unwrap();
    for node in [&a, &b] {
        for id in [first, second] {
            assert!(node.get(id).await.unwrap().is_none());
        }
        assert_eq!(read(node, session.id()).await.get("cart").unwrap(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_but_one_session_of_a_user_end() {
    let world = World::new();
    let (a, b) = (world.node().await, world.node().await);
    let mut kept = a.create(1).await.unwrap();
    let old = kept.id();
    a.rotate(&mut kept).await.unwrap();
    let others = [a.create(1).await.unwrap().id(), b.create(1).await.unwrap().id()];
    let stranger = a.create(2).await.unwrap().id();
    for id in others {
        read(&a, id).await;
        read(&b, id).await;
    }
    assert_eq!(a.user(1).delete_except(kept.id()).await.unwrap(), 2);
    b.catch_up().await.unwrap();
    for node in [&a, &b] {
        for id in others.into_iter().chain([old]) {
            assert!(node.get(id).await.unwrap().is_none());
        }
        for id in [kept.id(), stranger] {
            read(node, id).await;
        }
    }
    let named = kept.id();
    a.rotate(&mut kept).await.unwrap();
    assert_eq!(b.user(1).delete_except(named).await.unwrap(), 0, "named by its old id");
    a.catch_up().await.unwrap();
    read(&a, kept.id()).await;
    read(&a, named).await;
    // Nothing ends of a session of another user.
    assert_eq!(b.user(2).delete_except(kept.id()).await.unwrap(), 1, "the stranger's own");
    a.catch_up().await.unwrap();
    read(&a, named).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_rotation_cannot_be_asked_is_refused_before_it_is_sent() {
    let world = World::new();
    let node = world.node().await;
    let mut session = node.create(1).await.unwrap();
    let before = session.id();
    let kind = |outcome| match outcome {
        Err(UpdateError::Failed(error)) => error.kind(),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(node.rotate(&mut session).grace(HOUR).await), ErrorKind::InvalidArgument);
    assert_eq!(kind(node.rotate(&mut session).keep(["a\0b"]).await), ErrorKind::InvalidArgument);
    assert_eq!(kind(node.rotate(&mut session).expires_in(Duration::MAX).await), ErrorKind::InvalidArgument);
    session.invalidate();
    assert_eq!(kind(node.rotate(&mut session).await), ErrorKind::Invalidated);
    assert_eq!(session.id(), before);
    read(&node, before).await;
}
