//! From another store to this one while both run. The other store here keeps its records in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Response;
use axum::routing::get;
use pg_session::{SessionManager, UserId};
use pg_session_tower::{MovingStore, PgSessionStore};
use serde_json::json;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::Result;
use tower_sessions::{MemoryStore, Session, SessionManagerLayer, SessionStore};

use crate::store::{call, cookie, node, record};

async fn count(session: Session) -> String {
    let visits: u32 = session.get("visits").await.unwrap().unwrap_or_default();
    session.insert("visits", visits + 1).await.unwrap();
    (visits + 1).to_string()
}

async fn login(session: Session) {
    session.cycle_id().await.unwrap();
    session.insert("user", 42).await.unwrap();
}

fn app(store: impl SessionStore + Clone) -> Router {
    Router::new()
        .route("/", get(count))
        .route(
            "/read",
            get(async |session: Session| {
                session.get::<u32>("visits").await.unwrap().unwrap_or_default().to_string()
            }),
        )
        .route("/login", get(login))
        .route("/logout", get(async |session: Session| session.flush().await.unwrap()))
        .layer(SessionManagerLayer::new(store))
}

async fn body(response: Response<Body>) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1_000).await.unwrap().to_vec()).unwrap()
}

fn new_store(node: &SessionManager) -> PgSessionStore {
    PgSessionStore::new(node.clone()).user_of(|data| data.get("user")?.as_i64().map(UserId::from))
}

/// As in two rollouts: nodes that know the old store only, then nodes that keep it, then nodes that move.
#[tokio::test]
async fn sessions_move_from_another_store_without_a_logout() {
    let (node, redis) = (node().await, MemoryStore::default());
    let moving = MovingStore::new(redis.clone(), new_store(&node));
    let (before, first, second) = (app(redis), app(moving.clone().keep_in_old()), app(moving));
    let page = async |app: &Router, path: &str, cookie: &str| body(call(app, path, cookie).await).await;

    let response = call(&before, "/login", "").await;
    let user = cookie(&response);
    assert_eq!(page(&before, "/", &user).await, "1");
    assert_eq!(page(&first, "/", &user).await, "2", "kept there");
    assert_eq!(page(&before, "/", &user).await, "3", "the first rollout changes nothing for other nodes");
    let created = cookie(&call(&first, "/", "").await);
    assert_eq!(page(&before, "/read", &created).await, "1");

    assert_eq!(page(&second, "/read", &user).await, "3");
    assert_eq!(page(&before, "/read", &user).await, "3", "a read moves nothing");
    let response = call(&second, "/", &user).await;
    assert!(!response.headers().contains_key("set-cookie") || cookie(&response) == user, "the same cookie");
    assert_eq!(body(response).await, "4");
    assert_eq!(page(&before, "/read", &user).await, "0", "it has moved");
    assert_eq!(node.user(42).list().await.unwrap().len(), 1, "with its user");
    assert_eq!(page(&first, "/", &user).await, "5", "nodes of the first rollout find it");
    assert_eq!(page(&second, "/", &user).await, "6");

    let visitor = cookie(&call(&second, "/", "").await);
    assert_eq!(page(&first, "/", &visitor).await, "2", "created here");
    assert_eq!(page(&before, "/read", &visitor).await, "0");
    let renewed = cookie(&call(&second, "/login", &created).await);
    assert_ne!(renewed, created, "a login still changes the id");
    assert_eq!(
        (page(&first, "/read", &renewed).await, page(&first, "/read", &created).await),
        ("1".into(), "0".into())
    );

    call(&second, "/logout", &user).await;
    for app in [&first, &second] {
        assert_eq!(page(app, "/read", &user).await, "0", "logged out");
    }
    assert_eq!(node.user(42).delete().await.unwrap(), 1);
    assert_eq!(page(&second, "/read", &renewed).await, "0");
}

/// An old store that runs `before` each load, with the number of the load.
#[derive(Clone, Debug)]
struct Interrupted {
    inner: MemoryStore,
    loads: Arc<AtomicU32>,
    /// The load before which the record is deleted, as by a logout.
    deleted_before: u32,
}

#[async_trait]
impl SessionStore for Interrupted {
    async fn create(&self, record: &mut Record) -> Result<()> {
        self.inner.create(record).await
    }

    async fn save(&self, record: &Record) -> Result<()> {
        self.inner.save(record).await
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        if self.loads.fetch_add(1, Ordering::Relaxed) + 1 == self.deleted_before {
            self.inner.delete(id).await?;
        }
        self.inner.load(id).await
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        self.inner.delete(id).await
    }
}

/// ```text
/// save     reads in the old store ┊                           ┊ inserts in the new one, looks again
/// logout                          ┊ deletes in the old store  ┊
/// ```
#[tokio::test]
async fn a_logout_while_a_session_moves_is_final() {
    let node = node().await;
    let old = Interrupted { inner: MemoryStore::default(), loads: Arc::default(), deleted_before: 2 };
    let store = MovingStore::new(old.clone(), new_store(&node));
    let mut record = record(json!({ "user": 42 }));
    old.create(&mut record).await.unwrap();
    store.save(&record).await.unwrap_err();
    assert_eq!(store.load(&record.id).await.unwrap(), None);
    assert!(node.user(42).list().await.unwrap().is_empty());
}

/// A node is cut off between the insert and the deletion in the old store. A parallel request looks the same.
#[tokio::test]
async fn a_session_in_both_stores_goes_on_in_the_new_one() {
    let (node, old) = (node().await, MemoryStore::default());
    let store = MovingStore::new(old.clone(), new_store(&node));
    let mut record = record(json!({ "user": 42, "n": 1 }));
    old.create(&mut record).await.unwrap();
    store.save(&record).await.unwrap();
    old.save(&record).await.unwrap();
    record.data.insert("n".to_owned(), json!(2));
    store.save(&record).await.unwrap();
    assert_eq!(old.load(&record.id).await.unwrap(), None);
    assert_eq!(store.load(&record.id).await.unwrap(), Some(record));
    assert_eq!(node.user(42).list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_move_neither_signs_a_user_in_nor_ends_other_sessions() {
    let (node, old) = (node().await, MemoryStore::default());
    let store = MovingStore::new(old.clone(), new_store(&node));
    let mut visitor = record(json!({ "n": 1 }));
    old.create(&mut visitor).await.unwrap();
    visitor.data.insert("user".to_owned(), json!(42));
    let refused = store.save(&visitor).await.unwrap_err();
    assert!(refused.to_string().contains("cycle_id"), "{refused}");
    let sessions_max = node.config().sessions_per_user_max;
    for _ in 0..=sessions_max {
        let mut record = record(json!({ "user": 42 }));
        old.create(&mut record).await.unwrap();
        store.save(&record).await.unwrap();
    }
    assert_eq!(node.user(42).list().await.unwrap().len(), sessions_max as usize + 1);
}
