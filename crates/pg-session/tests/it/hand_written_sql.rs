//! SQL by other clients than the library: it ends sessions on every node at once, or is rejected.

use pg_session::{SessionId, SessionLimit, SessionManager, UserId};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::fixtures::{all, hit, ids, make, read, read_all};
use crate::observer::{Observer, rejection};
use crate::support::{World, eventually};

const REJECTED: &str = "PS001";
const COLUMNS: &str =
    "id, user_id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at";

fn plain(id: SessionId) -> String {
    id.expose().simple().to_string()
}

/// Inserts sessions as a restore does: `user` is an expression of the number `n`.
async fn restore(world: &World, count: i64, user: &str) {
    let text = format!(
        "INSERT INTO sessions ({COLUMNS})
         SELECT gen_random_uuid(), {user}, 1, true, now(), now(), now(), now() + interval '1 day'
         FROM generate_series(1, $1::int8) AS n"
    );
    world.client().await.execute(&text, &[&count]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_by_any_client_logs_out_on_every_node() {
    let world = World::new();
    let nodes: [SessionManager; 3] = world.nodes().await;
    let ann = UserId::named("ann");
    let sessions = all((0..20).map(async |_| nodes[0].create(ann).await.unwrap().id())).await;
    let other = nodes[0].create(UserId::named("bob")).await.unwrap().id();
    for node in &nodes {
        read_all(node, &sessions).await;
        read_all(node, &[other]).await;
    }
    let operator = world.operator().await;
    let delete = "DELETE FROM sessions WHERE user_id = $1";
    operator.batch_execute("BEGIN").await.unwrap();
    operator.execute(delete, &[&ann.as_uuid()]).await.unwrap();
    operator.batch_execute("ROLLBACK").await.unwrap();
    for node in &nodes {
        node.catch_up().await.unwrap();
        assert!(sessions.iter().all(|&id| hit(node, id).is_some()), "a rollback notifies no node");
    }
    assert_eq!(operator.execute(delete, &[&ann.as_uuid()]).await.unwrap(), 20);
    for node in &nodes {
        eventually("the sessions left the memory", async || {
            sessions.iter().all(|&id| hit(node, id).is_none())
        })
        .await;
        assert!(hit(node, other).is_some(), "the other user stays");
        assert!(node.get(sessions[0]).await.unwrap().is_none());
    }
    operator.batch_execute("TRUNCATE sessions").await.unwrap();
    for node in &nodes {
        eventually("the session left the memory", async || hit(node, other).is_none()).await;
        assert!(node.get(other).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn retired_ids_end_with_session_that_any_client_deletes() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut session = a.create(1).await.unwrap();
    let old = session.id();
    a.rotate(&mut session).await.unwrap();
    read_all(&b, &[old, session.id()]).await;
    let operator = world.operator().await;
    operator.execute("DELETE FROM sessions WHERE id = $1", &[&session.id().expose()]).await.unwrap();
    eventually("both ids left the memory", async || {
        hit(&b, old).is_none() && hit(&b, session.id()).is_none()
    })
    .await;
    assert!(b.get(old).await.unwrap().is_none());
}

#[tokio::test]
async fn notifications_of_delete_are_bounded_for_any_number_of_rows() {
    let world = World::new();
    let _node = world.node().await;
    let mut observer = Observer::new(&world).await;
    let operator = world.operator().await;
    let user = UserId::from(7).as_uuid();
    let of_user = format!("'{user}'::uuid");
    let kinds = |payloads: &[String]| {
        let mut kinds: Vec<String> = payloads.iter().map(|payload| payload[..2].to_owned()).collect();
        kinds.dedup();
        (payloads.len(), kinds.join(" "))
    };
    for (rows, user, count, kind) in [
        (242, of_user.as_str(), 1, "1d"),
        (243, &of_user, 1, "1u"),
        (243, "gen_random_uuid()", 2, "1d"),
        (243, "NULL", 2, "1d"),
        (15_488, "gen_random_uuid()", 64, "1d"),
        (15_489, "gen_random_uuid()", 1, "1a"),
        (20_000, "NULL", 1, "1a"),
        (20_000, &of_user, 1, "1u"),
        (20_000, "md5((n % 64)::text)::uuid", 64, "1u"),
    ] {
        restore(&world, rows, user).await;
        assert_eq!(observer.notified().await, Vec::<String>::new());
        let deleted = operator.execute("DELETE FROM sessions", &[]).await.unwrap();
        assert_eq!(deleted, u64::try_from(rows).unwrap());
        assert_eq!(kinds(&observer.notified().await), (count, kind.to_owned()), "{rows} of {user}");
    }
    operator.batch_execute("TRUNCATE sessions").await.unwrap();
    assert_eq!(observer.notified().await, ["1a"]);
}

#[tokio::test]
async fn librarys_own_deletes_notify_once() {
    let world = World::new();
    let node = world.node_with(world.roomy()).await;
    let mut observer = Observer::new(&world).await;
    let ann = UserId::named("ann");
    let sessions = ids(&make(&node, 3).await);
    let mut session = node.create(ann).await.unwrap();
    let old = session.id();
    node.rotate(&mut session).await.unwrap();
    observer.notified().await;

    node.delete(sessions[0]).await.unwrap();
    assert_eq!(observer.notified().await, [format!("1d{}", plain(sessions[0]))]);
    node.user(ann).delete().await.unwrap();
    assert_eq!(observer.notified().await, [format!("1u{}", ann.as_uuid().simple())], "with {}", plain(old));
    node.delete_all_sessions().await.unwrap();
    assert_eq!(observer.notified().await, ["1a"]);
    restore(&world, 1, "NULL").await;
    let expire = "UPDATE sessions SET expires_at = now() - interval '1 hour'";
    world.client().await.execute(expire, &[]).await.unwrap();
    node.cleanup().await.unwrap();
    assert_eq!(observer.notified().await.len(), 1);
}

#[tokio::test]
async fn update_that_keeps_version_is_rejected_with_hint() {
    let world = World::new();
    let node = world.node().await;
    let id = node.create(1).await.unwrap().id();
    let operator = world.operator().await;
    let uuid = id.expose();
    for change in [
        "user_id = gen_random_uuid()",
        "group_id = gen_random_uuid()",
        "attributes = '{\"admin\":[true,1]}'",
        "expires_at = now() + interval '1 hour'",
        "idle_limited = false",
        "version = version",
        "version = version - 1",
        "updated_at = clock_timestamp()",
        "id = gen_random_uuid(), version = version + 1",
        "group_id = gen_random_uuid(), last_accessed_at = now()",
    ] {
        let text = format!("UPDATE sessions SET {change} WHERE id = $1");
        let error = operator.execute(&text, &[&uuid]).await.expect_err(change);
        let (code, hint) = rejection(&error);
        assert_eq!(code, REJECTED, "{change}");
        assert!(hint.contains("version = version + 1"), "{hint}");
    }
    let touch = "UPDATE sessions SET last_accessed_at = now() WHERE id = $1";
    assert_eq!(operator.execute(touch, &[&uuid]).await.unwrap(), 1, "a touch keeps the version");
}

/// Without an access for `idle_timeout`, the session has ended.
#[tokio::test]
async fn access_that_goes_back_ends_session_on_every_node() {
    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let sessions = ids(&make(&nodes[0], 2).await);
    for node in &nodes {
        read_all(node, &sessions).await;
    }
    let mut observer = Observer::new(&world).await;
    let operator = world.operator().await;
    let id = sessions[0].expose();
    let access = async |time: &str| {
        let text = format!("UPDATE sessions SET last_accessed_at = {time} WHERE id = $1");
        assert_eq!(operator.execute(&text, &[&id]).await.unwrap(), 1);
    };
    access("clock_timestamp() + interval '1 minute'").await;
    assert_eq!(observer.notified().await, Vec::<String>::new(), "a later access concerns no memory");
    access("clock_timestamp() - interval '1 year'").await;
    let plain = plain(sessions[0]);
    assert_eq!(observer.notified().await, [format!("1d{plain}"), format!("1s{plain}.1")]);
    for node in &nodes {
        node.catch_up().await.unwrap();
        assert!(hit(node, sessions[0]).is_none());
        assert!(node.get(sessions[0]).await.unwrap().is_none());
        assert!(hit(node, sessions[1]).is_some());
    }
}

/// A trigger and a foreign key of the application make changes that the administrator did not type.
#[tokio::test]
async fn cascades_of_application_end_sessions_or_are_rejected() {
    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let (ann, bob) = (UserId::named("ann"), UserId::named("bob"));
    let large = "x".repeat(600);
    let kept = nodes[0].create(ann).set("cart", &large).await.unwrap().id();
    let other = nodes[0].create(bob).await.unwrap().id();
    for node in &nodes {
        read_all(node, &[kept, other]).await;
    }
    let operator = world.operator().await;
    let script = format!(
        "CREATE TABLE accounts (id uuid PRIMARY KEY);
         INSERT INTO accounts VALUES ('{}'), ('{}');
         ALTER TABLE sessions ADD FOREIGN KEY (user_id) REFERENCES accounts ON UPDATE CASCADE ON DELETE CASCADE;
         CREATE FUNCTION empty_carts() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN DELETE FROM session_attributes; RETURN NULL; END';
         CREATE TRIGGER empty_carts AFTER INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION empty_carts()",
        ann.as_uuid(),
        bob.as_uuid()
    );
    operator.batch_execute(&script).await.unwrap();
    for text in
        ["INSERT INTO accounts VALUES (gen_random_uuid())", "UPDATE accounts SET id = gen_random_uuid()"]
    {
        let error = operator.execute(text, &[]).await.expect_err(text);
        assert_eq!(rejection(&error).0, REJECTED, "{text}");
    }
    assert_eq!(read(&world.node().await, kept).await.get::<String>("cart").unwrap(), Some(large));

    let delete = "DELETE FROM accounts WHERE id = $1";
    assert_eq!(operator.execute(delete, &[&bob.as_uuid()]).await.unwrap(), 1);
    for node in &nodes {
        node.catch_up().await.unwrap();
        assert!(node.get(other).await.unwrap().is_none());
        assert!(hit(node, kept).is_some());
    }
    operator.batch_execute("TRUNCATE accounts CASCADE").await.unwrap();
    for node in &nodes {
        node.catch_up().await.unwrap();
        assert!(node.get(kept).await.unwrap().is_none());
    }
    let left = operator.query_one("SELECT count(*) FROM session_attributes", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn tables_of_sessions_can_be_truncated_together() {
    let world = World::new();
    let node = world.node().await;
    let operator = world.operator().await;
    for tables in ["sessions, session_attributes", "session_labels, session_attributes, sessions"] {
        let session = node.create(1).set("cart", &"x".repeat(600)).label("tenant:7").await.unwrap().id();
        read_all(&node, &[session]).await;
        operator.batch_execute(&format!("TRUNCATE {tables}")).await.unwrap();
        node.catch_up().await.unwrap();
        assert!(node.get(session).await.unwrap().is_none());
        for table in ["session_attributes", "session_labels"] {
            let count = format!("SELECT count(*) FROM {table}");
            assert_eq!(operator.query_one(&count, &[]).await.unwrap().get::<_, i64>(0), 0, "{table}");
        }
    }
}

/// With `direct_writes = on`, nothing is rejected, and the nodes do not keep what it replaces.
#[tokio::test]
async fn direct_writes_reach_every_node() {
    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let large = "x".repeat(600);
    let id = nodes[0].create(1).set("cart", &large).await.unwrap().id();
    let operator = world.operator().await;
    operator.batch_execute("SET pg_session.direct_writes = 'on'").await.unwrap();
    let mut observer = Observer::new(&world).await;
    let plain = plain(id);
    let by_name = vec![format!("1d{plain}"), format!("1s{plain}.1")];
    for (text, payloads) in [
        ("UPDATE sessions SET group_id = id", by_name.clone()),
        ("UPDATE sessions SET user_id = NULL, updated_at = clock_timestamp()", by_name),
        ("UPDATE session_attributes SET value = '\"tea\"'", vec!["1a".to_owned()]),
        ("INSERT INTO sessions SELECT * FROM sessions LIMIT 0", vec!["1a".to_owned()]),
    ] {
        for node in &nodes {
            read_all(node, &[id]).await;
        }
        observer.notified().await;
        operator.execute(text, &[]).await.unwrap();
        assert_eq!(observer.notified().await, payloads, "{text}");
        for node in &nodes {
            node.catch_up().await.unwrap();
            assert!(hit(node, id).is_none(), "{text}");
        }
    }
    let session = read(&nodes[1], id).await;
    assert_eq!((session.user_id(), session.group_id().is_some()), (None, true));
    assert_eq!(session.get::<String>("cart").unwrap().as_deref(), Some("tea"));
}

#[tokio::test]
async fn update_that_increases_version_reaches_every_node() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let mut observer = Observer::new(&world).await;
    let sessions = ids(&make(&a, 66).await);
    let operator = world.operator().await;
    let sets = ["", ", updated_at = now()", ", updated_at = clock_timestamp()"];
    for (set, version) in sets.into_iter().zip(2..) {
        for node in [&a, &b] {
            read_all(node, &sessions).await;
        }
        observer.notified().await;
        let one = format!("UPDATE sessions SET group_id = id, version = version + 1{set} WHERE id = $1");
        operator.execute(&one, &[&sessions[0].expose()]).await.unwrap();
        assert_eq!(observer.notified().await, [format!("1s{}.{version}", plain(sessions[0]))]);
        for node in [&a, &b] {
            eventually("the old version left the memory", async || {
                hit(node, sessions[0]).is_none_or(|session| session.version().get() == version)
            })
            .await;
        }
    }
    let all = "UPDATE sessions SET version = version + 1";
    operator.execute(all, &[]).await.unwrap();
    let payloads = observer.notified().await;
    assert_eq!(payloads.len(), 65, "64 sessions by name, and the others by one");
    assert_eq!(payloads.iter().filter(|payload| *payload == "1a").count(), 1);
}

#[tokio::test]
async fn insert_and_attribute_writes_are_rejected_with_hint() {
    let world = World::new();
    let node = world.node().await;
    let large = "x".repeat(600);
    let id = node.create(1).set("cart", &large).await.unwrap().id().expose();
    let operator = world.operator().await;
    for text in [
        format!(
            "INSERT INTO sessions ({COLUMNS})
             VALUES (gen_random_uuid(), NULL, 1, true, now(), now(), now(), now() + interval '1 day')"
        ),
        "INSERT INTO sessions SELECT * FROM sessions LIMIT 0".to_owned(),
        format!(
            "INSERT INTO session_attributes (session_id, key, value, version) VALUES ('{id}', 'x', '1', 1)"
        ),
        "UPDATE session_attributes SET value = '1'".to_owned(),
        "DELETE FROM session_attributes".to_owned(),
        "TRUNCATE session_attributes".to_owned(),
        format!("INSERT INTO session_labels VALUES ('{id}', 'x')"),
        "UPDATE session_labels SET label = 'x'".to_owned(),
        "DELETE FROM session_labels".to_owned(),
        "TRUNCATE session_labels".to_owned(),
    ] {
        let error = operator.execute(&text, &[]).await.expect_err(&text);
        let (code, hint) = rejection(&error);
        assert_eq!(code, REJECTED, "{text}");
        assert!(hint.contains("pg_session.direct_writes"), "{hint}");
    }
    assert!(SqlState::from_code(REJECTED).code().starts_with("PS"), "a class of our own");
    assert_eq!(operator.execute("DELETE FROM sessions", &[]).await.unwrap(), 1, "with its attributes");
}

/// A hint can be pasted: the functions bear the prefix of the tables.
#[tokio::test]
async fn hints_name_functions_with_their_prefix() {
    let world = World::new();
    let mut config = world.config();
    config.table_prefix = "my shop_".to_owned();
    config.sessions_per_user_max = 1;
    config.on_session_limit = SessionLimit::Refuse;
    let id = world.node_with(config).await.create(1).await.unwrap().id().expose();
    let operator = world.operator().await;
    let call = |function: &str, arguments: &str| format!("SELECT \"my shop_{function}\"({arguments})");
    let user = call("session_user_of", "1");
    for (text, function) in [
        (
            "INSERT INTO \"my shop_sessions\" SELECT * FROM \"my shop_sessions\" LIMIT 0".to_owned(),
            "session_create",
        ),
        ("DELETE FROM \"my shop_session_labels\"".to_owned(), "session_add_label"),
        (call("session_create", &format!("({user})")), "session_end"),
        (call("session_set", &format!("'{id}', 'x', NULL")), "session_remove"),
        (call("session_set", &format!("'{id}', 'x', '1', '1999-12-31'")), "session_remove"),
        (
            call("session_create", "labels => (SELECT array_agg(n::text) FROM generate_series(1, 9) n)"),
            "session_remove_label",
        ),
        (call("session_end_user", "NULL"), "session_end_all"),
    ] {
        let error = operator.query(&text, &[]).await.expect_err(&text);
        let (_, hint) = rejection(&error);
        assert!(hint.contains(&format!("\"my shop_{function}\"")), "{text}: {hint}");
    }
}

#[tokio::test]
async fn deleted_lock_is_free_and_wakes_its_waiters() {
    let world = World::new();
    let node = world.node().await;
    let session = node.create(1).await.unwrap().id();
    let mut observer = Observer::new(&world).await;
    let operator = world.operator().await;
    for name in ["report", "nächtlich"] {
        for of_session in [false, true] {
            let lock = async || {
                let locks = node.locks();
                let lock = if of_session { locks.session_lock(session, name) } else { locks.lock(name) };
                lock.await.unwrap()
            };
            lock().await.release().await.unwrap();
            let released = observer.notified().await;
            assert_eq!(released.len(), 1, "{released:?}");
            let held = lock().await;
            assert_eq!(operator.execute("DELETE FROM session_locks", &[]).await.unwrap(), 1);
            assert_eq!(observer.notified().await, released, "waiters are woken as by a release");
            let next = lock().await;
            assert!(next.fence() > held.fence(), "the fence grows although the row was deleted");
            next.release().await.unwrap();
            operator.execute("DELETE FROM session_locks", &[]).await.unwrap();
            assert_eq!(observer.notified().await, released, "by the release; no node waits for a free lock");
        }
    }
}

#[tokio::test]
async fn fence_can_be_raised_but_not_lowered() {
    let world = World::new();
    let node = world.node().await;
    let lease = node.locks().lock("report").await.unwrap();
    let operator = world.operator().await;
    let set =
        async |fence: &str| operator.execute(&format!("UPDATE session_locks SET fence = {fence}"), &[]).await;
    let (code, hint) = rejection(&set("fence - 1").await.unwrap_err());
    assert_eq!((code.as_str(), hint.as_str()), (REJECTED, "Delete the row to free the lock."));
    assert_eq!(set("fence + 1000000000").await.unwrap(), 1);
    assert_eq!(operator.execute("UPDATE session_locks SET expires_at = now()", &[]).await.unwrap(), 1);
    let next = node.locks().lock("report").await.unwrap();
    assert!(next.fence().get() > lease.fence().get() + 1_000_000_000);
    let restoring = world.client().await;
    assert_eq!(restoring.execute("UPDATE session_locks SET fence = 1", &[]).await.unwrap(), 1, "a restore");
}

/// `pg_restore --disable-triggers` and logical replication set the role, other restores the setting.
#[tokio::test]
async fn restored_rows_are_accepted() {
    let world = World::new();
    let node = world.node().await;
    let id = node.create(1).set("cart", &"x".repeat(600)).await.unwrap().id();
    let operator = world.operator().await;
    operator
        .batch_execute(
            "CREATE TABLE saved AS TABLE sessions; CREATE TABLE saved_attributes AS TABLE session_attributes",
        )
        .await
        .unwrap();
    for setting in ["session_replication_role = replica", "pg_session.direct_writes = 'on'"] {
        operator.batch_execute("TRUNCATE sessions").await.unwrap();
        eventually("the session left the memory", async || hit(&node, id).is_none()).await;
        operator
            .batch_execute(&format!(
                "BEGIN; SET LOCAL {setting}; INSERT INTO sessions TABLE saved;
                 INSERT INTO session_attributes TABLE saved_attributes; COMMIT"
            ))
            .await
            .unwrap();
        let session = world.node().await.get(id).await.unwrap().expect("the restored session");
        assert_eq!(session.get::<String>("cart").unwrap().map(|text| text.len()), Some(600));
    }
}

/// `psql` as an administrator has it, or else the driver: the statement is the same.
async fn delete_in_psql(world: &World, statement: &str) -> String {
    let url = world.url.clone();
    let command = format!("SET search_path TO {}; {statement}", world.schema);
    let psql = move || std::process::Command::new("psql").args(["-X", "-d", &url, "-c", &command]).output();
    match tokio::task::spawn_blocking(psql).await.unwrap() {
        Ok(output) => {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            assert!(output.status.success(), "{}", text(output.stderr));
            text(output.stdout).lines().last().unwrap_or_default().to_owned()
        }
        Err(error) => {
            eprintln!("without psql: {error}");
            format!("DELETE {}", world.operator().await.execute(statement, &[]).await.unwrap())
        }
    }
}

/// Three nodes have 1,000 of the user's sessions in memory.
async fn a_users_sessions_end_by_psql_on_three_nodes(rows: i64) {
    let world = World::new();
    let nodes: [SessionManager; 3] = world.nodes().await;
    let user = UserId::from(7).as_uuid();
    restore(&world, rows, &format!("'{user}'::uuid")).await;
    let other = nodes[0].create(8).await.unwrap().id();
    let client = world.client().await;
    let text = "SELECT id FROM sessions WHERE user_id = $1 ORDER BY id LIMIT 1000";
    let found = client.query(text, &[&user]).await.unwrap();
    let ids: Vec<SessionId> = found.iter().map(|row| SessionId::from_uuid(row.get(0))).collect();
    for node in &nodes {
        read_all(node, &ids).await;
        read_all(node, &[other]).await;
        assert!(ids.iter().all(|&id| hit(node, id).is_some()));
    }
    let began = Instant::now();
    let deleted = delete_in_psql(&world, &format!("DELETE FROM sessions WHERE user_id = '{user}'")).await;
    let committed = began.elapsed();
    for node in &nodes {
        eventually("no node serves one of them", async || ids.iter().all(|&id| hit(node, id).is_none()))
            .await;
    }
    println!(
        "{rows} sessions, of which three nodes had {} in memory: {deleted} took {} ms, and all were gone after {} ms",
        ids.len(),
        committed.as_millis(),
        began.elapsed().as_millis(),
    );
    assert_eq!(deleted.rsplit(' ').next(), Some(rows.to_string().as_str()));
    for node in &nodes {
        assert!(hit(node, other).is_some(), "other users stay in memory");
        assert!(node.get(ids[0]).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_of_a_user_in_psql_reaches_three_nodes() {
    a_users_sessions_end_by_psql_on_three_nodes(1_000).await;
}

/// `cargo test -p pg-session --all-features --test it in_psql -- --include-ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it inserts 100,000 rows; for the figures"]
async fn delete_of_a_hundred_thousand_in_psql_reaches_three_nodes() {
    a_users_sessions_end_by_psql_on_three_nodes(100_000).await;
}
