//! The store's own promises.

use std::collections::HashMap;

use axum::Router;
use axum::body::Body;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{Request, Response};
use axum::routing::get;
use pg_session::{SessionManager, UserId};
use pg_session_tower::PgSessionStore;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use tower::ServiceExt;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error, ExpiredDeletion};
use tower_sessions::{Expiry, Session, SessionManagerLayer, SessionStore};

use crate::http_tests::world;

/// A node on a schema of its own.
pub async fn node() -> SessionManager {
    world::Site::new(|_, _| panic!("it serves nothing")).await.node
}

pub fn record(data: Value) -> Record {
    let data: HashMap<String, Value> = serde_json::from_value(data).expect("an object");
    // Microseconds, as the database keeps them.
    let end = OffsetDateTime::now_utc().replace_nanosecond(123_456_000).expect("it fits");
    Record { id: Id::default(), data, expiry_date: end + Duration::hours(1) }
}

#[tokio::test]
async fn a_record_comes_back_as_it_was_saved() {
    let store = PgSessionStore::new(node().await);
    let mut record = record(json!({ "cart": ["apples"], "n": 1, "nothing": null }));
    let proposed = record.id;
    store.create(&mut record).await.unwrap();
    assert_ne!(record.id, proposed, "ids come from the library only");
    assert_eq!(store.load(&record.id).await.unwrap().as_ref(), Some(&record));
    record.data.remove("cart");
    record.data.insert("n".to_owned(), json!(2));
    record.expiry_date += Duration::hours(1);
    store.save(&record).await.unwrap();
    assert_eq!(store.load(&record.id).await.unwrap().as_ref(), Some(&record));
    assert_eq!(store.load(&proposed).await.unwrap(), None);
}

#[tokio::test]
async fn a_save_does_not_bring_back_a_session_that_was_deleted() {
    let node = node().await;
    let store = PgSessionStore::new(node.clone());
    let mut record = record(json!({ "n": 1 }));
    store.create(&mut record).await.unwrap();
    store.delete(&record.id).await.unwrap();
    store.save(&record).await.unwrap_err();
    assert_eq!(store.load(&record.id).await.unwrap(), None);
    store.delete(&record.id).await.unwrap();
}

#[tokio::test]
async fn an_expired_record_is_not_loaded() {
    let store = PgSessionStore::new(node().await);
    let mut record = record(json!({ "n": 1 }));
    store.create(&mut record).await.unwrap();
    record.expiry_date = OffsetDateTime::now_utc() - Duration::seconds(1);
    store.save(&record).await.unwrap();
    assert_eq!(store.load(&record.id).await.unwrap(), None);
}

/// Nodes whose clocks are an hour ahead of the database's, and an hour behind.
#[tokio::test]
async fn a_wrong_node_clock_does_not_change_the_life_of_a_record() {
    let site = world::Site::new(|_, _| panic!("it serves nothing")).await;
    for database in ["- interval '1 hour'", "+ interval '1 hour'"] {
        let config = world::config(&site.schema);
        let builder = SessionManager::builder(config).url(&site.url).expect("a URL");
        let clock = format!("(pg_catalog.clock_timestamp() {database})");
        let node = builder.database_clock(&clock).connect().await.expect("the node starts");
        let store = PgSessionStore::new(node.clone());
        let mut record = record(json!({ "n": 1 }));
        record.expiry_date = OffsetDateTime::now_utc() + Duration::minutes(30);
        store.create(&mut record).await.unwrap();
        let lives_for = async || {
            let id = pg_session::SessionId::from_uuid(uuid::Uuid::from_bytes(record.id.0.to_be_bytes()));
            let session = node.get(id).await.unwrap().expect("it lives");
            session.expires_at().duration_since(node.database_time()).expect("it lives").as_secs()
        };
        assert!((1_740..=1_801).contains(&lives_for().await), "created");
        let loaded = store.load(&record.id).await.unwrap().expect("it lives");
        let off = (loaded.expiry_date - record.expiry_date).abs();
        assert!(off < Duration::seconds(2), "tower-sessions judges by the node's clock: {off}");
        store.save(&record).await.unwrap();
        assert!((1_740..=1_801).contains(&lives_for().await), "saved");
    }
}

#[tokio::test]
async fn user_records_are_listed_and_ended_and_login_needs_new_id() {
    let node = node().await;
    let store =
        PgSessionStore::new(node.clone()).user_of(|data| data.get("user")?.as_i64().map(UserId::from));
    let (mut laptop, mut phone) = (record(json!({ "user": 42 })), record(json!({ "user": 42 })));
    store.create(&mut laptop).await.unwrap();
    store.create(&mut phone).await.unwrap();
    assert_eq!(node.user(42).list().await.unwrap().len(), 2);

    let mut visitor = record(json!({ "cart": 1 }));
    store.create(&mut visitor).await.unwrap();
    visitor.data.insert("user".to_owned(), json!(42));
    let refused = store.save(&visitor).await.unwrap_err();
    assert!(refused.to_string().contains("cycle_id"), "{refused}");
    laptop.data.insert("user".to_owned(), json!(43));
    store.save(&laptop).await.unwrap_err();

    assert_eq!(node.user(42).delete().await.unwrap(), 2);
    assert_eq!(store.load(&phone.id).await.unwrap(), None);
    assert!(store.load(&visitor.id).await.unwrap().is_some());
}

/// A GET with this cookie.
pub async fn call(app: &Router, path: &str, cookie: &str) -> Response<Body> {
    let request = Request::get(path).header(COOKIE, cookie).body(Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

/// The cookie that a response sets.
pub fn cookie(response: &Response<Body>) -> String {
    response.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned()
}

async fn set(session: Session) {
    session.insert("n", 1).await.unwrap();
}

async fn get_n(session: Session) -> String {
    session.get::<u32>("n").await.unwrap().unwrap_or_default().to_string()
}

#[tokio::test]
async fn reads_under_always_save_write_once_a_minute() {
    let node = node().await;
    let app = |store| {
        let layer = SessionManagerLayer::new(store).with_always_save(true);
        let layer = layer.with_expiry(Expiry::OnInactivity(Duration::hours(1)));
        Router::new().route("/set", get(set)).route("/get", get(get_n)).layer(layer)
    };
    let store = PgSessionStore::new(node.clone());
    let (lazy, eager) = (app(store.clone()), app(store.extend_every(std::time::Duration::ZERO)));
    let cookie = cookie(&call(&lazy, "/set", "").await);
    let writes = || node.status().writes.updates;
    let before = writes();
    for _ in 0..10 {
        assert_eq!(call(&lazy, "/get", &cookie).await.status(), 200);
    }
    assert_eq!(writes(), before, "its end moves by less than a minute");
    call(&eager, "/get", &cookie).await;
    assert_eq!(writes(), before + 1);
}

#[tokio::test]
async fn an_end_that_moves_by_a_tenth_or_backwards_is_saved() {
    let store = PgSessionStore::new(node().await);
    let mut record = record(json!({ "n": 1 }));
    store.create(&mut record).await.unwrap();
    let first = record.expiry_date;
    for (moved, expected) in [
        (Duration::seconds(59), Duration::ZERO),
        (Duration::seconds(61), Duration::seconds(61)),
        (Duration::seconds(-60), Duration::seconds(-60)),
        (Duration::seconds(-3_580), Duration::seconds(-3_580)),
        // Of the twenty seconds that are left then, a tenth is two.
        (Duration::seconds(-3_577), Duration::seconds(-3_577)),
    ] {
        record.expiry_date = first + moved;
        store.save(&record).await.unwrap();
        let loaded = store.load(&record.id).await.unwrap().expect("it lives");
        assert_eq!(loaded.expiry_date, first + expected, "{moved}");
    }
}

#[tokio::test]
async fn a_limit_is_reported_by_the_check_and_by_the_save() {
    let store = PgSessionStore::new(node().await);
    let large = "x".repeat(20_000);
    assert!(store.check("cart", &large).unwrap_err().to_string().contains("cart"));
    store.check("cart", "apples").unwrap();
    let insert = async |session: Session| {
        session.insert("cart", "x".repeat(20_000)).await.expect("no store is asked");
        match session.save().await {
            Err(error) => error.to_string(),
            Ok(()) => "saved".to_owned(),
        }
    };
    let app = Router::new().route("/", get(insert)).layer(SessionManagerLayer::new(store.clone()));
    let response = call(&app, "/", "").await;
    assert_eq!(response.status(), 500, "the layer tries again");
    let refused = store.create(&mut record(json!({ "cart": large }))).await.unwrap_err();
    assert!(matches!(&refused, Error::Encode(message) if message.contains("cart")), "{refused}");
}

/// What sqlx's store of tower-sessions has, and its example calls.
#[tokio::test]
async fn expired_records_are_deleted_as_in_other_stores() {
    let site = world::Site::new(|_, _| panic!("it serves nothing")).await;
    let store = PgSessionStore::new(site.node.clone());
    store.migrate().await.unwrap();
    let (mut kept, mut expired) = (record(json!({ "n": 1 })), record(json!({ "n": 2 })));
    store.create(&mut kept).await.unwrap();
    store.create(&mut expired).await.unwrap();
    expired.expiry_date = OffsetDateTime::now_utc() - Duration::hours(1);
    store.save(&expired).await.unwrap();
    assert_eq!(site.rows().await, 2);
    let task = tokio::spawn(store.clone().continuously_delete_expired(std::time::Duration::from_millis(1)));
    world::eventually("it is deleted", async || site.rows().await == 1).await;
    task.abort();
    ExpiredDeletion::delete_expired(&store).await.unwrap();
    assert!(store.load(&kept.id).await.unwrap().is_some());
}
