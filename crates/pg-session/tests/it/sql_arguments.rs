//! Calls of the SQL contract that cannot work: each is refused with a code of our own and a hint.

use tokio_postgres::Client;

use crate::fixtures::read;
use crate::observer::rejection;
use crate::support::World;

/// The SQLSTATE and the message.
async fn refused(client: &Client, call: &str) -> (String, String) {
    let error = client.query(&format!("SELECT {call}"), &[]).await.expect_err(call);
    let (code, hint) = rejection(&error);
    assert!(!hint.is_empty(), "{call} has no hint");
    (code, error.as_db_error().unwrap().message().to_owned())
}

/// The nodes could not read the time of an attribute that ends later.
#[tokio::test]
async fn attribute_in_sql_ends_before_year_2200() {
    let world = World::new();
    let node = world.node().await;
    let id = node.create(1).await.unwrap().id();
    let operator = world.operator().await;
    let large = "to_jsonb(repeat('x', 1000))";
    for (key, value) in [("small", "'1'"), ("large", large)] {
        for end in ["infinity", "294276-12-31", "2200-01-01 00:00:00+00"] {
            let call = format!("session_set('{}', '{key}', {value}, '{end}')", id.expose());
            assert_eq!(refused(&operator, &call).await.0, "PS004", "{call}");
        }
        let latest = "2199-12-31 23:59:59+00";
        let call = format!("SELECT session_set('{}', '{key}', {value}, '{latest}')", id.expose());
        operator.execute(&call, &[]).await.unwrap();
    }
    node.catch_up().await.unwrap();
    let session = read(&node, id).await;
    assert_eq!(session.version().get(), 3);
    assert!(session.attribute_expires_at("small").is_some());
    assert_eq!(session.attribute_expires_at("small"), session.attribute_expires_at("large"));
}

#[tokio::test]
async fn read_only_transaction_can_read_but_not_change() {
    let world = World::new();
    let node = world.node().await;
    let id = node.create(1).label("tenant:7").await.unwrap().id().expose();
    let operator = world.operator().await;
    operator.batch_execute("SET default_transaction_read_only = on").await.unwrap();
    for call in [
        "session_create()".to_owned(),
        format!("session_set('{id}', 'key', '1')"),
        format!("session_remove('{id}', 'key')"),
        format!("session_touch('{id}')"),
        format!("session_add_label('{id}', 'tenant:7')"),
        format!("session_remove_label('{id}', 'tenant:8')"),
        format!("session_end('{id}')"),
        "session_end_user(session_user_of(1))".to_owned(),
        "session_end_group(session_user_of(1))".to_owned(),
        "session_end_label('tenant:8')".to_owned(),
        "session_end_all()".to_owned(),
    ] {
        let (code, message) = refused(&operator, &call).await;
        assert_eq!((code.as_str(), message.as_str()), ("PS007", "the transaction is read-only"), "{call}");
    }
    for call in [
        format!("session_get('{id}')"),
        "session_list(session_user_of(1))".to_owned(),
        "session_list_label('tenant:7')".to_owned(),
    ] {
        let rows = operator.query(&format!("SELECT 1 FROM {call}"), &[]).await;
        assert_eq!(rows.unwrap().len(), 1, "{call}");
    }
    let alive = operator.query_one("SELECT session_alive($1)", &[&id]).await.unwrap();
    assert!(alive.get::<_, bool>(0));
}

#[tokio::test]
async fn lifetime_in_sql_must_end_in_the_future() {
    let world = World::new();
    let _node = world.node().await;
    let operator = world.operator().await;
    for lifetime in ["0", "-1 second", "-120 months 3601 days", "3661 days", "178000000 years"] {
        let call = format!("session_create(lifetime => '{lifetime}')");
        assert_eq!(refused(&operator, &call).await.0, "PS004", "{call}");
    }
}

/// With a longer time, each logout would fail: it deletes entries that are older.
#[tokio::test]
async fn time_that_the_audit_log_keeps_is_bounded() {
    let world = World::new();
    let node = world.node().await;
    let operator = world.operator().await;
    for keep in ["0", "-1 day", "1000 years 1 day", "7000 years", "178000000 years"] {
        let call = format!("session_audit_on('{keep}')");
        assert_eq!(refused(&operator, &call).await.0, "PS004", "{call}");
    }
    operator.batch_execute("SELECT session_audit_on('1000 years')").await.unwrap();
    let id = node.create(1).await.unwrap().id();
    assert!(node.delete(id).await.unwrap());
}

/// What JSON allows, and few parsers take: a node passes it on, and reads the other attributes.
#[tokio::test]
async fn extreme_json_in_sql_harms_no_other_attribute() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let operator = world.operator().await;
    let created = a.create(1).set("role", "admin").await.unwrap();
    let nested = |depth: usize| format!("(repeat('[', {depth}) || repeat(']', {depth}))::jsonb");
    for (key, value) in [
        ("huge", "'1e400'".to_owned()),
        ("digits", "'1e10000'".to_owned()),
        ("fraction", "'1.00000000000000000000000000000000000000000001'".to_owned()),
        ("nested", nested(200)),
        ("deep", nested(5_000)),
        ("\u{feff}", r#"'"\ud83d\ude00\u2028\u007f"'"#.to_owned()),
    ] {
        let call = format!("SELECT session_set($1, $2, {value})");
        operator
            .execute(&call, &[&created.id().expose(), &key])
            .await
            .unwrap_or_else(|e| panic!("{key}: {e:?}"));
        for node in [&a, &b] {
            node.catch_up().await.unwrap();
            let session = read(node, created.id()).await;
            assert_eq!(session.get::<String>("role").unwrap().as_deref(), Some("admin"), "{key}");
            assert!(session.get_raw(key).is_some(), "{key}");
        }
        b.modify(created.id(), |session| session.set("count", &key.len())).await.unwrap();
        let listed = a.user(1).list().await.unwrap();
        assert_eq!(listed.len(), 1, "{key}");
    }
    let count = "SELECT count(*) FROM session_get($1), json_each(attributes)";
    let count = operator.query_one(count, &[&created.id().expose()]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 8);
    let mut session = read(&a, created.id()).await;
    a.rotate(&mut session).await.unwrap();
    assert!(session.get_raw("deep").is_some());
}

/// Accesses outside of the calendar of the nodes.
#[tokio::test]
async fn access_at_no_time_at_all_harms_no_node() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let operator = world.operator().await;
    for (time, is_alive) in
        [("infinity", true), ("-infinity", false), ("0044-03-15 BC", false), ("294276-12-31", true)]
    {
        let session = a.create(1).await.unwrap();
        let set = format!("UPDATE sessions SET last_accessed_at = '{time}' WHERE id = $1");
        operator.execute(&set, &[&session.id().expose()]).await.unwrap();
        for node in [&a, &b] {
            node.catch_up().await.unwrap();
            let found = node.get(session.id()).bypass_cache().await;
            assert_eq!(found.unwrap_or_else(|e| panic!("{time}: {e}")).is_some(), is_alive, "{time}");
            assert_eq!(
                node.user(1).list().await.unwrap_or_else(|e| panic!("{time}: {e}")).len(),
                usize::from(is_alive)
            );
        }
        a.delete(session.id()).await.unwrap();
    }
}

#[tokio::test]
async fn error_does_not_repeat_long_argument() {
    let world = World::new();
    let _node = world.node().await;
    let call = "session_end(gen_random_uuid(), repeat('x', 100000))";
    let (code, message) = refused(&world.operator().await, call).await;
    assert_eq!((code.as_str(), message), ("PS004", format!("cause \"{}\" is unknown", "x".repeat(32))));
}
