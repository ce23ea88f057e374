//! Input that cannot be taken: a typed error that says what to do, and nothing half-written.

use std::time::{Duration, UNIX_EPOCH};

use pg_session::{Config, Error, ErrorKind, Session, SessionId, SessionManager, UpdateError};
use uuid::Uuid;

use crate::support::World;
use crate::tables::{counts, stored, stored_version};

const YEAR: Duration = Duration::from_secs(366 * 24 * 3_600);

fn assert_says(error: &Error, kind: ErrorKind, advice: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    assert!(text.contains(advice), "{text:?} does not say {advice:?}");
    assert!(text.chars().next().is_some_and(|first| !first.is_uppercase()) && !text.ends_with('.'), "{text}");
}

fn failed(outcome: Result<(), UpdateError>) -> Error {
    match outcome {
        Err(UpdateError::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn config(world: &World) -> Config {
    let mut config = world.config();
    config.attribute_key_bytes_max = 16;
    config.attribute_value_bytes_max = 64;
    config.attributes_max = 4;
    config.session_bytes_max = 160;
    config
}

struct Scene {
    node: SessionManager,
    observer: tokio_postgres::Client,
    session: Session,
}

impl Scene {
    /// A node with small limits, and a session of three attributes.
    async fn new() -> Self {
        let world = World::new();
        let node = world.node_with(config(&world)).await;
        let create = node.create(1).set("a", &1).set("b", &2).set("c", &3);
        let session = create.await.unwrap();
        Self { observer: world.client().await, node, session }
    }

    async fn assert_untouched(&self) {
        assert_eq!(counts(&self.observer).await, (1, 3));
        assert_eq!(stored_version(&self.observer, self.session.id()).await, Some(1));
        let held = stored(&self.observer, self.session.id()).await;
        assert!(held.values().all(|held| held.version == 1), "{held:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_or_value_beyond_limit_is_refused_by_set() {
    let mut scene = Scene::new().await;
    let cases: [(&str, &str, &str); 4] = [
        ("", "x", "must not be empty"),
        ("a\0b", "x", "must not contain a NUL byte"),
        ("seventeen bytes!!", "x", "attribute_key_bytes_max = 16; shorten the key"),
        ("long", &"x".repeat(63), "attribute_value_bytes_max = 64; keep large values elsewhere"),
    ];
    for (key, value, advice) in cases {
        let is_over = advice.contains("_max");
        let kind = if is_over { ErrorKind::LimitExceeded } else { ErrorKind::InvalidArgument };
        assert_says(&scene.session.set(key, value).unwrap_err(), kind, advice);
        assert!(!scene.session.is_modified(), "the handle is as it was");
        let refused = scene.node.create(2).set(key, value).set("n", &1).await.unwrap_err();
        assert_says(&refused, kind, advice);
        assert!(!refused.to_string().contains("xxx"), "values stay out of messages");
    }
    scene.session.set("sixteen bytes!!!", &"x".repeat(62)).expect("exactly the limits");
    scene.session.discard_changes();
    scene.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_only_removed_are_checked_when_they_are_sent() {
    let mut scene = Scene::new().await;
    let keys = [
        ("", ErrorKind::InvalidArgument),
        ("a\0b", ErrorKind::InvalidArgument),
        ("seventeen bytes!!", ErrorKind::LimitExceeded),
    ];
    for (key, kind) in keys {
        scene.session.remove("a");
        scene.session.remove(key);
        let error = failed(scene.node.save(&mut scene.session).await);
        assert_says(&error, kind, "attribute's key");
        scene.session.discard_changes();
    }
    scene.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_attributes_are_refused_on_create_and_on_update() {
    let mut scene = Scene::new().await;
    let advice = "attributes_max = 4; remove some";
    scene.session.set("d", &4).unwrap();
    scene.session.set("e", &5).unwrap();
    assert_says(&failed(scene.node.save(&mut scene.session).await), ErrorKind::LimitExceeded, advice);
    let mut create = scene.node.create(2);
    for key in ["a", "b", "c", "d", "e"] {
        create = create.set(key, &1);
    }
    assert_says(&create.await.unwrap_err(), ErrorKind::LimitExceeded, advice);
    scene.assert_untouched().await;
    scene.session.remove("a");
    scene.node.save(&mut scene.session).await.expect("four are allowed");
    scene.session.set_for("e", &5, Duration::from_millis(1)).unwrap();
    scene.session.remove("d");
    scene.node.save(&mut scene.session).await.expect("four again");
    while scene.session.contains("e") {
        tokio::task::yield_now().await;
    }
    scene.session.set("d", &4).unwrap();
    scene.node.save(&mut scene.session).await.expect("what has expired does not count");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large_session_is_refused_on_create_and_update() {
    let mut scene = Scene::new().await;
    let advice = "session_bytes_max = 160; remove some";
    for key in ["a", "b", "c"] {
        scene.session.set(key, &"x".repeat(60)).unwrap();
    }
    assert_says(&failed(scene.node.save(&mut scene.session).await), ErrorKind::LimitExceeded, advice);
    let mut create = scene.node.create(2);
    for key in ["a", "b", "c"] {
        create = create.set(key, &"x".repeat(60));
    }
    assert_says(&create.await.unwrap_err(), ErrorKind::LimitExceeded, advice);
    scene.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_beyond_ten_years_is_refused() {
    let mut scene = Scene::new().await;
    for lifetime in [YEAR * 11, Duration::MAX] {
        let error = scene.node.create(2).expires_in(lifetime).await.unwrap_err();
        assert_says(&error, ErrorKind::InvalidArgument, "at most 10 years");
        let error = failed(scene.node.save(&mut scene.session).expires_in(lifetime).await);
        assert_says(&error, ErrorKind::InvalidArgument, "at most 10 years");
    }
    for instant in [UNIX_EPOCH, UNIX_EPOCH - YEAR, UNIX_EPOCH + YEAR * 300] {
        let error = scene.node.create(2).expires_at(instant).await.unwrap_err();
        assert_says(&error, ErrorKind::InvalidArgument, "before the year 2200");
        let error = failed(scene.node.save(&mut scene.session).expires_at(instant).await);
        assert_says(&error, ErrorKind::InvalidArgument, "before the year 2200");
    }
    scene.assert_untouched().await;
    let far = scene.node.create(2).expires_in(YEAR * 10).await.expect("ten years are allowed");
    assert!(far.expires_at() > UNIX_EPOCH + YEAR * 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_without_json_is_refused() {
    let mut scene = Scene::new().await;
    let map = std::collections::BTreeMap::from([(vec![1, 2], "keys of JSON objects are texts")]);
    assert_says(&scene.session.set("a", &map).unwrap_err(), ErrorKind::Encode, "has no JSON form");
    assert!(!scene.session.is_modified());
    scene.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_json_is_taken_as_raw_text() {
    let mut scene = Scene::new().await;
    for text in ["", "{", "1 2", "nul", "'secret'"] {
        let error = scene.session.set_raw("a", text).unwrap_err();
        assert_says(&error, ErrorKind::Encode, "is no JSON");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert!(!scene.session.is_modified());
    scene.assert_untouched().await;
    let text = r#"{"n" : [1.50, null]}"#;
    scene.session.set_raw("a", text).unwrap();
    scene.node.save(&mut scene.session).await.unwrap();
    let read = scene.node.get(scene.session.id()).bypass_cache().await.unwrap().unwrap();
    assert_eq!((scene.session.get_raw("a"), read.get_raw("a")), (Some(text), Some(text)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_sessions_than_one_delete_takes_are_refused_together() {
    let scene = Scene::new().await;
    let ids = (0..=SessionManager::DELETE_MAX).map(|_| SessionId::from_uuid(Uuid::new_v4()));
    let error = scene.node.delete_many(ids.chain([scene.session.id()])).await.unwrap_err();
    assert!(error.to_string().contains("call it several times"), "{error}");
    scene.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nul_inside_a_value_comes_back_as_it_was() {
    let world = World::new();
    let node = world.node().await;
    let value = "before\0after \u{1f600} \\ \" \u{7f}";
    let mut session = node.create(1).set("x", value).await.unwrap();
    session.set("y\u{1f600}", value).unwrap();
    node.save(&mut session).await.unwrap();
    let read = node.get(session.id()).bypass_cache().await.unwrap().unwrap();
    for key in ["x", "y\u{1f600}"] {
        assert_eq!(read.get::<String>(key).unwrap().as_deref(), Some(value));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_schema_and_prefix_work_from_end_to_end() {
    let world = World::new();
    let observer = world.client().await;
    observer
        .batch_execute(&format!("CREATE SCHEMA {0}; CREATE TABLE {0}.users ()", world.schema))
        .await
        .unwrap();
    let mut config = world.config();
    config.schema = format!("{}\"; DROP TABLE users; --$1 '\\ \u{e9}", world.schema);
    config.table_prefix = "\"; DROP --".to_owned();
    let (a, b) = (world.node_with(config.clone()).await, world.node_with(config.clone()).await);
    let mut session = a.create(1).group(2).set("x", &1).await.unwrap();
    let mut on_b = b.get(session.id()).await.unwrap().unwrap();
    session.set("x", &2).unwrap();
    a.save(&mut session).await.unwrap();
    b.catch_up().await.unwrap();
    assert_eq!(b.get(session.id()).await.unwrap().unwrap().get::<i32>("x").unwrap(), Some(2));
    on_b.set("x", &3).unwrap();
    b.save(&mut on_b).await.unwrap();
    assert_eq!(a.group(2).delete().await.unwrap(), 1);
    assert!(a.shutdown(Duration::from_secs(10)).await.is_complete());
    observer.batch_execute("SELECT FROM users").await.expect("nothing was dropped");
    let text = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
    let found: i64 = observer.query_one(text, &[&config.schema]).await.unwrap().get(0);
    assert_eq!(found, 1, "the schema bears its name as it is");
}

#[tokio::test]
async fn names_that_postgresql_cannot_hold_are_refused_by_name() {
    let world = World::new();
    let refused = async |change: fn(&mut Config), advice: &str| {
        let mut config = world.config();
        change(&mut config);
        let error = SessionManager::connect(&world.url, config).await.unwrap_err();
        assert_says(&error, ErrorKind::Config, advice);
    };
    refused(|config| config.schema = "a\0b".to_owned(), "schema must not contain a NUL byte").await;
    refused(|config| config.schema = "s".repeat(64), "shorten it").await;
    refused(|config| config.schema = String::new(), "schema must not be empty").await;
    refused(|config| config.table_prefix = "p".repeat(40), "table_prefix has 40 bytes").await;
    refused(|config| config.idle_timeout = Duration::ZERO, "idle_timeout = 0s must be between").await;
    refused(
        |config| config.last_access_flush_interval = config.idle_timeout,
        "lower last_access_flush_interval",
    )
    .await;
}

#[test]
fn unknown_and_malformed_settings_are_named() {
    let text = |json: &str| serde_json::from_str::<Config>(json).unwrap_err().to_string();
    assert!(text(r#"{ "max_session_per_user": 3 }"#).contains("`max_session_per_user`"));
    assert!(text(r#"{ "sessions_per_user_max": -1 }"#).contains("-1"));
    assert!(text(r#"{ "migrations": "maybe" }"#).contains("`check`"));
    assert!(text(r#"{ "on_session_limit": "refuse_all" }"#).contains("`refuse`"));
    assert!(
        text(r#"{ "trust_window": "soon" }"#).contains("soon")
            || text(r#"{ "trust_window": "soon" }"#).contains("number")
    );
    assert!(text(r#"{ "schema": 7 }"#).contains("expected a string"));
}

/// The last line, for whatever writes past the library.
#[tokio::test]
async fn the_tables_refuse_keys_and_values_beyond_every_limit() {
    let Scene { observer, session, .. } = Scene::new().await;
    let insert = "INSERT INTO session_attributes (session_id, key, value, version) VALUES ($1, $2, $3, 1)";
    let (key_max, value_max) = ("k".repeat(512), "v".repeat(1 << 20));
    let (key_over, value_over) = ("k".repeat(513), "v".repeat((1 << 20) + 1));
    for (key, value, constraint) in [
        ("", "1", Some("session_attributes_key_check")),
        (key_over.as_str(), "1", Some("session_attributes_key_check")),
        ("d", value_over.as_str(), Some("session_attributes_value_check")),
        (key_max.as_str(), value_max.as_str(), None),
    ] {
        let outcome = observer.execute(insert, &[&session.id().expose(), &key, &value]).await;
        let broken = outcome.err().map(|error| error.as_db_error().expect("the server's").clone());
        let broken = broken.as_ref().and_then(|error| error.constraint());
        assert_eq!(broken, constraint, "{} and {} bytes", key.len(), value.len());
    }

    let (row_max, row_over) = ("v".repeat(2_048), "v".repeat(2_049));
    let begins = "1970-01-01 00:00:00.000001+00";
    for (change, constraint) in [
        (format!("attributes = '{row_over}'"), Some("session_packed_check")),
        (format!("attributes = '{row_max}'"), None),
        ("expires_at = '1970-01-01 00:00:00+00'".to_owned(), Some("session_expiry_check")),
        ("expires_at = 'infinity'".to_owned(), Some("session_expiry_check")),
        ("expires_at = '2200-01-01 00:00:00+00'".to_owned(), Some("session_expiry_check")),
        (format!("expires_at = '{begins}'"), None),
    ] {
        let outcome = observer.execute(&format!("UPDATE sessions SET {change}"), &[]).await;
        let broken = outcome.err().map(|error| error.as_db_error().expect("the server's").clone());
        let broken = broken.as_ref().and_then(|error| error.constraint());
        assert_eq!(broken, constraint, "{}", &change[..30]);
    }
}
