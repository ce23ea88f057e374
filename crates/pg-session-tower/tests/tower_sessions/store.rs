//! The store's own promises.

use std::collections::HashMap;

use pg_session::{SessionManager, UserId};
use pg_session_tower::PgSessionStore;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use tower_sessions::SessionStore;
use tower_sessions::session::{Id, Record};

use crate::http_tests::world;

/// A node on a schema of its own.
pub async fn node() -> SessionManager {
    world::Site::new(|_, _| panic!("it serves nothing")).await.node
}

fn record(data: Value) -> Record {
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
