//! The audit log: each end is recorded once, with its cause and its actor, in the transaction that ends the session.

use std::collections::HashMap;
use std::time::Duration;

use pg_session::{AuditEntry, Cause, ErrorKind, Migrations, Session, SessionId, SessionManager, UserId};

use crate::fixtures::in_time;
use crate::support::{World, eventually};

/// What `everywhere()` waits for.
const WINDOW: Duration = Duration::from_secs(1);
const KEEP: Duration = Duration::from_secs(90 * 86_400);

async fn node_of(world: &World) -> SessionManager {
    let mut config = world.roomy();
    config.trust_window = WINDOW;
    world.node_with(config).await
}

async fn entries(node: &SessionManager, user: Option<UserId>) -> Vec<AuditEntry> {
    node.audit().page(user, None).await.expect("the entries")
}

/// Cause and actor of each session, by its handle.
async fn recorded(node: &SessionManager) -> HashMap<String, (String, Option<String>)> {
    let entries = entries(node, None).await;
    let count = entries.len();
    let found: HashMap<_, _> =
        entries.into_iter().map(|entry| (entry.handle, (entry.cause, entry.actor))).collect();
    assert_eq!(found.len(), count, "each end is recorded once");
    found
}

fn handle(id: SessionId) -> String {
    id.handle().to_string()
}

fn because(cause: Cause, actor: Option<&str>) -> (String, Option<String>) {
    (cause.name().to_owned(), actor.map(str::to_owned))
}

async fn make(node: &SessionManager, user: i64) -> Session {
    node.create(user).await.expect("a session")
}

#[tokio::test]
async fn the_audit_log_is_off_until_it_is_turned_on() {
    let world = World::new();
    let node = world.node().await;
    assert!(node.delete(make(&node, 1).await.id()).await.unwrap());
    assert_eq!((node.audit().keep().await.unwrap(), entries(&node, None).await), (None, vec![]));
    let client = world.operator().await;
    let triggers =
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'sessions'::regclass AND tgname LIKE '%audit%'";
    assert_eq!(client.query_one(triggers, &[]).await.unwrap().get::<_, i64>(0), 0);

    node.audit().start(KEEP).await.unwrap();
    assert_eq!(node.audit().keep().await.unwrap().as_deref(), Some("90 days"));
    node.audit().start(Duration::from_secs(3_600)).await.unwrap();
    assert_eq!(node.audit().keep().await.unwrap().as_deref(), Some("01:00:00"), "it can be changed");
    assert!(node.delete(make(&node, 1).await.id()).await.unwrap());
    assert_eq!(entries(&node, None).await.len(), 1);
    node.audit().stop().await.unwrap();
    assert!(node.delete(make(&node, 1).await.id()).await.unwrap());
    assert_eq!(entries(&node, None).await.len(), 1, "the entry stays");
    for keep in [Duration::ZERO, Duration::from_secs(7_000 * 365 * 86_400), Duration::MAX] {
        let error = node.audit().start(keep).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{keep:?}: {error}");
    }
}

#[tokio::test]
async fn each_end_is_recorded_with_its_cause_and_actor() {
    let world = World::new();
    let mut config = world.config();
    config.sessions_per_user_max = 2;
    let node = world.node_with(config).await;
    node.audit().start(KEEP).await.unwrap();
    let client = world.operator().await;
    let mut expected = HashMap::new();

    let session = make(&node, 1).await;
    assert!(node.delete(session.id()).await.unwrap());
    expected.insert(handle(session.id()), because(Cause::Logout, None));
    assert!(!node.delete(session.id()).await.unwrap(), "it is gone");

    let (first, second) = (make(&node, 2).await, make(&node, 2).await);
    assert_eq!(node.user(2).delete_except(second.id()).by("ann \"a\"").await.unwrap(), 1);
    expected.insert(handle(first.id()), because(Cause::Everywhere, Some("ann \"a\"")));
    assert_eq!(node.user(2).delete().cause(Cause::Credential).by("bob").await.unwrap(), 1);
    expected.insert(handle(second.id()), because(Cause::Credential, Some("bob")));

    let (first, _, _) = (make(&node, 3).await, make(&node, 3).await, make(&node, 3).await);
    expected.insert(handle(first.id()), because(Cause::Cap, None));

    let mut session = make(&node, 4).await;
    let old = session.id();
    node.rotate(&mut session).await.unwrap();
    let retired = session.id();
    node.rotate(&mut session).grace(Duration::ZERO).await.unwrap();
    expected.insert(handle(retired), because(Cause::Rotated, None));
    assert!(!recorded(&node).await.contains_key(&handle(old)), "a retired id has not ended");

    let (by_function, by_hand) = (make(&node, 5).await, make(&node, 5).await);
    let (function_id, hand_id) = (by_function.id().expose(), by_hand.id().expose());
    let script = format!(
        "BEGIN; SET LOCAL pg_session.actor = 'carol'; SELECT session_end('{function_id}', 'backchannel'); COMMIT;
         BEGIN; DELETE FROM sessions WHERE id = '{hand_id}'; COMMIT;
         BEGIN; SELECT session_end_all(); ROLLBACK;"
    );
    client.batch_execute(&script).await.unwrap();
    expected.insert(handle(by_function.id()), because(Cause::Backchannel, Some("carol")));
    expected.insert(handle(by_hand.id()), because(Cause::Sql, None));
    assert_eq!(recorded(&node).await, expected);

    let ended = entries(&node, Some(5.into())).await;
    assert_eq!((ended.len(), ended[0].user_id, ended[0].group_id), (2, Some(5.into()), None));
    assert_eq!(ended[0].role, "postgres");

    let expired = make(&node, 6).await;
    let script = format!(
        "SET pg_session.direct_writes = 'on';
         UPDATE sessions SET expires_at = now() - interval '1 hour' WHERE id = '{}'",
        expired.id().expose()
    );
    world.client().await.batch_execute(&script).await.unwrap();
    assert_eq!(node.cleanup().await.unwrap().expired, 1);
    let entry = entries(&node, Some(6.into())).await.remove(0);
    assert_eq!(entry.cause, "expired");
    let ago = node.database_time().duration_since(entry.ended_at).unwrap();
    assert!(ago > Duration::from_secs(3_500), "it ended with its lifetime: {ago:?}");

    let left = recorded(&node).await.len();
    client.batch_execute("TRUNCATE sessions").await.unwrap();
    assert_eq!(recorded(&node).await.len(), left + 3, "those of the users 3 and 4");
    let rows = "SELECT string_agg(a::text, ' ') FROM session_audit a";
    let everything: String = client.query_one(rows, &[]).await.unwrap().get(0);
    for id in [function_id, hand_id, expired.id().expose()] {
        assert!(!everything.contains(&id.to_string()), "the log has no session id");
        assert!(!everything.contains(&id.simple().to_string()), "the log has no session id");
    }
}

#[tokio::test]
async fn an_actor_of_sql_has_255_bytes_and_whole_characters() {
    let world = World::new();
    let node = world.node().await;
    node.audit().start(KEEP).await.unwrap();
    let client = world.operator().await;
    for (user, actor, expected) in [
        (1, "a".repeat(255), "a".repeat(255)),
        (2, "a".repeat(256), "a".repeat(255)),
        (3, "\u{fc}".repeat(200), "\u{fc}".repeat(127)),
        (4, "\u{1f511}".repeat(300), "\u{1f511}".repeat(63)),
        (5, format!("{}\u{20ac}\u{20ac}", "a".repeat(252)), format!("{}\u{20ac}", "a".repeat(252))),
    ] {
        let id = make(&node, user).await.id().expose();
        let script =
            format!("BEGIN; SET LOCAL pg_session.actor = '{actor}'; SELECT session_end('{id}'); COMMIT;");
        client.batch_execute(&script).await.unwrap();
        let entry = entries(&node, Some(user.into())).await.remove(0);
        assert_eq!(entry.actor.as_deref(), Some(expected.as_str()), "user {user}");
    }
}

/// Logouts that wait for each other travel in one statement.
#[tokio::test]
async fn each_logout_of_a_batch_has_its_own_actor() {
    let world = World::new();
    let node = world.node().await;
    node.audit().start(KEEP).await.unwrap();
    let mut sessions = Vec::new();
    for user in 0..20 {
        sessions.push(make(&node, user).await.id());
    }
    let logouts = sessions.iter().enumerate().map(|(n, &id)| {
        let node = node.clone();
        let (actor, cause) = (format!("actor {n}"), if n % 2 == 0 { Cause::Admin } else { Cause::Logout });
        tokio::spawn(async move { node.delete(id).cause(cause).by(&actor).await })
    });
    for logout in logouts.collect::<Vec<_>>() {
        assert!(logout.await.unwrap().unwrap());
    }
    let recorded = recorded(&node).await;
    for (n, id) in sessions.into_iter().enumerate() {
        let cause = if n % 2 == 0 { Cause::Admin } else { Cause::Logout };
        assert_eq!(recorded[&handle(id)], because(cause, Some(&format!("actor {n}"))));
    }
    let error = node.user(1).delete().by("a\nb").everywhere().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_get_the_receipt_of_everywhere() {
    let world = World::new();
    let (a, b) = (node_of(&world).await, node_of(&world).await);
    a.audit().start(KEEP).await.unwrap();
    let (first, other) = (make(&a, 1).await, make(&a, 2).await);
    assert!(a.delete(other.id()).await.unwrap());
    let (ended, done) = in_time("the receipt", a.user(1).delete().with_everywhere()).await.unwrap();
    assert_eq!(ended, 1);
    eventually("the receipt is recorded", async || {
        entries(&a, Some(1.into())).await[0].receipt.as_ref() == Some(&done)
    })
    .await;
    assert_eq!(entries(&a, Some(1.into())).await[0].handle, handle(first.id()));
    assert_eq!(entries(&a, Some(2.into())).await[0].receipt, None, "another end");
    drop(b);
}

#[tokio::test]
async fn old_entries_leave_with_new_ends_a_few_at_a_time() {
    let world = World::new();
    let node = world.node().await;
    node.audit().start(KEEP).await.unwrap();
    let client = world.operator().await;
    let old = "INSERT INTO session_audit (ended_at, handle, cause, role, client)
               SELECT now() - interval '91 days', n::text, 'logout', 'app', 'test' FROM generate_series(1, 30) n";
    client.batch_execute(old).await.unwrap();
    assert!(node.delete(make(&node, 1).await.id()).await.unwrap());
    assert_eq!(entries(&node, None).await.len(), 30 + 1 - 17, "at most the new one and 16 more");
    assert!(node.delete(make(&node, 1).await.id()).await.unwrap());
    assert_eq!(entries(&node, None).await.len(), 2);
    assert_eq!(node.audit().count(1.into()).await.unwrap(), 2);
    assert_eq!(node.audit().erase(1.into()).await.unwrap(), 2);
    assert_eq!(entries(&node, None).await, []);
}

#[tokio::test]
async fn the_applications_role_can_neither_read_nor_change_the_log() {
    let world = World::new();
    let owner = node_of(&world).await;
    owner.audit().start(KEEP).await.unwrap();
    let (schema, role) = (&world.schema, format!("audited_{}", world.schema));
    let operations = include_str!("../../../../docs/operations.md");
    let grants = operations.split("```sql").nth(1).and_then(|rest| rest.split("```").next()).expect("grants");
    let grants = grants.replace("public", schema).replace("TO app;", &format!("TO {role};"));
    let client = world.operator().await;
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN; {grants}")).await.unwrap();
    let mut config = world.config();
    config.migrations = Migrations::Check;
    config.trust_window = WINDOW;
    let url = world.url.replace("postgres@", &format!("{role}@"));
    let node = SessionManager::connect(&url, config).await.unwrap();
    let session = make(&node, 1).await;
    in_time("the receipt", node.delete(session.id()).everywhere()).await.unwrap();
    let (table, sessions) = (format!("\"{schema}\".\"session_audit\""), format!("\"{schema}\".\"sessions\""));
    let read = format!("run: GRANT SELECT ON {table} TO <role>");
    let erase = format!("run: GRANT SELECT, DELETE ON {table} TO <role>");
    let switch = format!("connect as the owner of {sessions}");
    for (error, what_to_do) in [
        (node.audit().page(None, None).await.unwrap_err(), &read),
        (node.audit().count(1.into()).await.unwrap_err(), &erase),
        (node.audit().erase(1.into()).await.unwrap_err(), &erase),
        (node.audit().start(KEEP).await.unwrap_err(), &switch),
        (node.audit().stop().await.unwrap_err(), &switch),
    ] {
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
        assert!(error.to_string().contains(what_to_do), "{error}");
        assert!(!error.to_string().contains("Rights"), "the rights of a node are others: {error}");
    }
    // What the messages say is enough.
    client.batch_execute(&format!("GRANT SELECT ON {table} TO {role}")).await.unwrap();
    assert_eq!(entries(&node, None).await.len(), 1);
    client.batch_execute(&format!("GRANT SELECT, DELETE ON {table} TO {role}")).await.unwrap();
    assert_eq!(node.audit().count(1.into()).await.unwrap(), 1);
    let entry = entries(&owner, None).await.remove(0);
    assert_eq!((entry.handle, entry.role), (handle(session.id()), role));
}

/// ```text
/// another client   DELETE ── COMMIT
/// node                               everywhere() ── looks
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everywhere_covers_the_changes_of_other_clients() {
    let world = World::new();
    let (a, b) = (node_of(&world).await, node_of(&world).await);
    let session = make(&a, 1).await;
    for node in [&a, &b] {
        assert!(node.get(session.id()).await.unwrap().is_some());
    }
    let client = world.operator().await;
    client.batch_execute("DELETE FROM sessions").await.unwrap();
    let done = in_time("the receipt", a.everywhere()).await.unwrap();
    assert_eq!(done.acknowledged + done.lapsed, 2, "{done:?}");
    for node in [&a, &b] {
        assert!(node.get(session.id()).await.unwrap().is_none());
    }
}
