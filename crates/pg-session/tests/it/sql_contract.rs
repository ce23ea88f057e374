//! The functions of the SQL contract, called by a client beside two nodes.

use std::time::Duration;

use pg_session::sql::{self, Cause};
use pg_session::{Config, GroupId, Migrations, SessionId, SessionLimit, SessionManager, UserId};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::fixtures::{all, hit, read, read_all};
use crate::observer::{Observer, rejection};
use crate::support::{World, eventually};
use crate::tables::{Holder, places, stored};

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(
    client: &Client,
    call: &str,
    params: Params<'_>,
) -> T {
    let row = client.query_one(&format!("SELECT {call}"), params).await;
    row.unwrap_or_else(|error| panic!("{call}: {error:?}")).get(0)
}

async fn create(client: &Client, user: UserId, attributes: &str) -> SessionId {
    let call = "session_create($1, $2::text::jsonb)";
    SessionId::from_uuid(value(client, call, &[&user.as_uuid(), &attributes]).await)
}

/// The SQLSTATE of the error, which has to have a hint.
async fn refused(client: &Client, call: &str) -> String {
    let error = client.query(&format!("SELECT {call}"), &[]).await.expect_err(call);
    let (code, hint) = rejection(&error);
    assert!(!hint.is_empty(), "{call} has no hint");
    code
}

async fn leaves_memory(nodes: &[SessionManager], ids: &[SessionId]) {
    for node in nodes {
        eventually("the sessions left the memory", async || ids.iter().all(|&id| hit(node, id).is_none()))
            .await;
    }
    for &id in ids {
        assert!(nodes[0].get(id).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn session_of_sql_is_read_and_changed_on_every_node() {
    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let operator = world.operator().await;
    let ann = UserId::named("ann");
    let large = "x".repeat(600);
    let attributes = format!(r#"{{"role": "admin", "cart": ["milk", {{"n": 1.50}}], "large": "{large}"}}"#);
    let id = create(&operator, ann, &attributes).await;
    for node in &nodes {
        let session = read(node, id).await;
        assert_eq!((session.user_id(), session.version().get()), (Some(ann), 1));
        assert_eq!(session.get::<String>("role").unwrap().as_deref(), Some("admin"));
        assert_eq!(session.get::<String>("large").unwrap(), Some(large.clone()));
        assert!(hit(node, id).is_some());
    }

    let set = "session_set($1, 'role', '\"user\"')";
    let set_in_an_hour = "session_set($1, 'code', '417', now() + interval '1 hour')";
    for (call, version) in [(set, 2_i64), (set_in_an_hour, 3), ("session_remove($1, 'large')", 4)] {
        assert_eq!(value::<i64>(&operator, call, &[&id.expose()]).await, version);
        for node in &nodes {
            eventually("the old version left the memory", async || {
                hit(node, id).is_none_or(|session| session.version().get() == version)
            })
            .await;
            read(node, id).await;
        }
    }
    assert_eq!(value::<i64>(&operator, "session_remove($1, 'nothing')", &[&id.expose()]).await, 4);

    // A node goes on from there, and SQL sees what it has saved.
    let mut session = read(&nodes[1], id).await;
    assert_eq!(session.get::<String>("role").unwrap().as_deref(), Some("user"));
    assert_eq!(session.get::<u32>("code").unwrap(), Some(417));
    assert_eq!(session.get::<String>("large").unwrap(), None);
    session.set("theme", "dark").unwrap();
    nodes[1].save(&mut session).await.unwrap();
    let text = "SELECT version, user_id, is_retired, attributes::text FROM session_get($1)";
    let row = operator.query_one(text, &[&id.expose()]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, Uuid>(1), row.get(2)), (5, ann.as_uuid(), false));
    let stored = row.get::<_, String>(3);
    let keys = [r#""role" : "user""#, r#""cart" : ["milk", {"n": 1.50}]"#, r#""theme" : "dark""#, "417"];
    assert!(keys.iter().all(|key| stored.contains(key)), "{stored}");
    let listed: Vec<Uuid> = operator
        .query("SELECT id FROM session_list($1)", &[&ann.as_uuid()])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(listed, [id.expose()]);
    for (min_version, alive) in [(0_i64, true), (5, true), (6, false)] {
        let call = "session_alive($1, $2)";
        assert_eq!(value::<bool>(&operator, call, &[&id.expose(), &min_version]).await, alive);
    }
}

#[tokio::test]
async fn each_end_function_logs_out_on_every_node() {
    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let operator = world.operator().await;
    let mut observer = Observer::new(&world).await;
    let (ann, group) = (UserId::named("ann"), GroupId::from(7));
    let sessions = all((0..4).map(async |_| nodes[0].create(ann).group(group).await.unwrap().id())).await;
    let other = nodes[0].create(UserId::named("bob")).group(group).await.unwrap().id();
    for node in &nodes {
        read_all(node, &sessions).await;
        read_all(node, &[other]).await;
    }
    observer.notified().await;

    let (first, kept) = (sessions[0].expose(), sessions[1].expose());
    assert!(value::<bool>(&operator, "session_end($1, 'logout')", &[&first]).await);
    assert!(!value::<bool>(&operator, "session_end($1)", &[&first]).await, "it has ended");
    leaves_memory(&nodes, &sessions[..1]).await;
    let first = first.simple();
    assert_eq!(observer.notified_with_causes().await, [format!("1cls{first}"), format!("1d{first}")]);

    let call = "session_end_user($1, $2, 'credential')";
    assert_eq!(value::<i64>(&operator, call, &[&ann.as_uuid(), &kept]).await, 2);
    leaves_memory(&nodes, &sessions[2..]).await;
    assert!(nodes.iter().all(|node| hit(node, sessions[1]).is_some()), "one is spared");
    let notified = observer.notified_with_causes().await;
    assert!(notified[0].starts_with("1ccs"), "the cause comes first");
    assert_eq!(notified[1], notified[0].replace("1ccs", "1d"));

    assert_eq!(value::<i64>(&operator, "session_end_group($1)", &[&group.as_uuid()]).await, 2);
    leaves_memory(&nodes, &[sessions[1], other]).await;

    let (left, right) = (nodes[0].create(1).await.unwrap().id(), nodes[1].create(2).await.unwrap().id());
    for node in &nodes {
        read_all(node, &[left, right]).await;
    }
    assert_eq!(value::<i64>(&operator, "session_end_all('admin')", &[]).await, 2);
    leaves_memory(&nodes, &[left, right]).await;
    assert_eq!(value::<i64>(&operator, "session_end_all()", &[]).await, 0);
}

#[tokio::test]
async fn statement_of_rust_ends_other_sessions_with_the_commit() {
    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let mut client = world.operator().await;
    client
        .batch_execute("CREATE TABLE users (id int8, password text); INSERT INTO users VALUES (42, 'old')")
        .await
        .unwrap();
    let sessions = all((0..3).map(async |_| nodes[0].create(42).await.unwrap().id())).await;
    for node in &nodes {
        read_all(node, &sessions).await;
    }
    for commits in [false, true] {
        let change = client.transaction().await.unwrap();
        change.execute("UPDATE users SET password = 'new' WHERE id = 42", &[]).await.unwrap();
        let others = sql::end_user(42).except(sessions[0]).cause(Cause::Credential);
        let statement = others.statement(&world.config()).unwrap();
        let params: Vec<&(dyn ToSql + Sync)> =
            statement.parameters().iter().map(|text| text as &(dyn ToSql + Sync)).collect();
        let ended: i64 = change.query_one(statement.text(), &params).await.unwrap().get(0);
        assert_eq!(ended, 2);
        if commits {
            change.commit().await.unwrap();
        } else {
            change.rollback().await.unwrap();
        }
        for node in &nodes {
            node.catch_up().await.unwrap();
            assert!(hit(node, sessions[0]).is_some());
            let in_memory = sessions[1..].iter().filter(|&&id| hit(node, id).is_some()).count();
            assert_eq!(in_memory, if commits { 0 } else { 2 }, "at once, with the commit only");
        }
    }
    for statement in [sql::end(sessions[0]), sql::end_group(1), sql::end_all()] {
        let statement = statement.statement(&world.config()).unwrap();
        let params: Vec<&(dyn ToSql + Sync)> =
            statement.parameters().iter().map(|text| text as &(dyn ToSql + Sync)).collect();
        client.query_one(statement.text(), &params).await.unwrap();
    }
    assert!(nodes[0].get(sessions[0]).bypass_cache().await.unwrap().is_none());
}

#[tokio::test]
async fn a_rollback_of_the_functions_changes_nothing() {
    let world = World::new();
    let node = world.node_with(world.roomy()).await;
    let operator = world.operator().await;
    let mut observer = Observer::new(&world).await;
    let ids = all((0..2).map(async |_| node.create(1).set("n", &1).await.unwrap().id())).await;
    let [id, other] = [ids[0].expose(), ids[1].expose()];
    observer.notified().await;
    for call in [
        format!("session_set('{id}', 'n', '2')"),
        format!("session_remove('{id}', 'n')"),
        format!("session_end('{id}')"),
        format!("session_end_user(session_user_of(1), '{other}')"),
        "session_end_all()".to_owned(),
        "session_create(session_user_of(1))".to_owned(),
    ] {
        operator.batch_execute(&format!("BEGIN; SELECT {call}; ROLLBACK")).await.unwrap();
        assert_eq!(observer.notified().await, Vec::<String>::new(), "{call}");
    }
    let session = hit(&node, ids[0]).expect("it is still in memory");
    assert_eq!((session.version().get(), session.get::<i64>("n").unwrap()), (1, Some(1)));
    assert_eq!(node.user(1).list().await.unwrap().len(), 2);

    // A statement that fails inside a savepoint leaves no setting behind.
    operator.batch_execute("BEGIN; SAVEPOINT s").await.unwrap();
    assert_eq!(refused(&operator, &format!("session_set('{id}', '', '1')")).await, "PS004");
    operator.batch_execute("ROLLBACK TO s").await.unwrap();
    let setting: Option<String> =
        value(&operator, "current_setting('pg_session.direct_writes', true)", &[]).await;
    assert_eq!(setting.unwrap_or_default(), "");
    operator.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_in_sql_and_rust_keep_one_session_limit() {
    let world = World::new();
    let node = world.node().await;
    let clients = all((0..3).map(|_| world.operator())).await;
    let by_sql = all(clients.iter().map(async |client| {
        for _ in 0..4 {
            create(client, UserId::from(1), "{}").await;
        }
    }));
    let by_rust = all((0..8).map(async |_| node.create(1).await.unwrap()));
    let (ended, sessions) = tokio::join!(by_sql, by_rust);
    assert_eq!((ended.len(), sessions.len()), (3, 8));
    assert_eq!(node.user(1).list().await.unwrap().len(), 5);

    let refusing = world.config().with(|config| config.on_session_limit = SessionLimit::Refuse);
    world.node_with(refusing).await;
    assert_eq!(refused(&clients[0], "session_create(session_user_of(1))").await, "PS003");
    assert_eq!(node.user(1).list().await.unwrap().len(), 5);
    assert!(
        value::<Uuid>(&clients[0], "session_create()", &[]).await != Uuid::nil(),
        "visitors have no limit"
    );
}

#[tokio::test]
async fn invalid_arguments_are_refused_with_code_and_hint() {
    let world = World::new();
    let config = world.config().with(|config| {
        config.attribute_key_bytes_max = 8;
        config.attribute_value_bytes_max = 100;
        config.attributes_max = 2;
        config.session_bytes_max = 150;
    });
    let node = world.node_with(config).await;
    let operator = world.operator().await;
    let mut session = node.create(1).set("a", &"x".repeat(80)).set("b", &1).await.unwrap();
    let old = session.id().expose();
    node.rotate(&mut session).await.unwrap();
    let id = session.id().expose();
    for (call, code) in [
        (format!("session_set('{id}', 'a', '1', now())"), "PS004"),
        (format!("session_set('{id}', 'a', NULL)"), "PS004"),
        (format!("session_set('{id}', '', '1')"), "PS004"),
        (format!("session_set('{id}', NULL, '1')"), "PS004"),
        (format!("session_set('{id}', 'ninebytes', '1')"), "PS006"),
        (format!("session_set('{id}', 'a', to_jsonb(repeat('x', 99)))"), "PS006"),
        (format!("session_set('{id}', 'c', '1')"), "PS006"),
        (format!("session_set('{id}', 'b', to_jsonb(repeat('x', 80)))"), "PS006"),
        (format!("session_set('{old}', 'a', '1')"), "PS002"),
        (format!("session_remove('{old}', 'a')"), "PS002"),
        ("session_set(gen_random_uuid(), 'a', '1')".to_owned(), "PS002"),
        ("session_set(NULL, 'a', '1')".to_owned(), "PS002"),
        ("session_create(NULL, '[]')".to_owned(), "PS004"),
        ("session_create(NULL, '{\"\": 1}')".to_owned(), "PS004"),
        ("session_create(NULL, '{\"a\":1,\"b\":1,\"c\":1}')".to_owned(), "PS006"),
        ("session_create(lifetime => interval '0')".to_owned(), "PS004"),
        ("session_create(lifetime => interval '100 years')".to_owned(), "PS004"),
        ("session_end(NULL)".to_owned(), "PS004"),
        ("session_end_user(NULL)".to_owned(), "PS004"),
        ("session_end_group(NULL)".to_owned(), "PS004"),
        (format!("session_end('{id}', 'bored')"), "PS004"),
        ("session_end_all('rotated')".to_owned(), "PS004"),
    ] {
        assert_eq!(refused(&operator, &call).await, code, "{call}");
    }
    // What is smaller is accepted, and a session at the limit can shrink.
    for call in ["session_set($1, 'b', '2')", "session_remove($1, 'a')", "session_set($1, 'c', '3')"] {
        value::<i64>(&operator, call, &[&id]).await;
    }
    let session = node.get(session.id()).bypass_cache().await.unwrap().unwrap();
    assert_eq!(session.keys(), ["b", "c"]);
}

#[tokio::test]
async fn unsuitable_connections_are_refused_with_code_and_hint() {
    let world = World::new();
    let node = world.node().await;
    let id = node.create(1).await.unwrap().id().expose();
    let operator = world.operator().await;
    let (schema, role) = (&world.schema, format!("subject_of_contract_{}", world.schema));
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for call in [format!("session_set('{id}', 'n', '1')"), "session_end_all()".to_owned()] {
            operator.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).await.unwrap();
            assert_eq!(refused(&operator, &call).await, "PS007", "{level}");
            operator.batch_execute("ROLLBACK").await.unwrap();
        }
    }
    // A policy hides the session, which must not look ended.
    let script = format!(
        "CREATE ROLE {role}; GRANT USAGE ON SCHEMA {schema} TO {role};
         GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role};
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role};
         ALTER TABLE sessions ENABLE ROW LEVEL SECURITY; SET ROLE {role}"
    );
    operator.batch_execute(&script).await.unwrap();
    for call in
        ["session_end", "session_get", "session_alive", "session_touch", "session_list", "session_end_user"]
    {
        assert_eq!(refused(&operator, &format!("{call}('{id}')")).await, "PS007", "{call}");
    }
    operator.batch_execute("RESET ROLE; ALTER TABLE sessions DISABLE ROW LEVEL SECURITY").await.unwrap();
    operator.batch_execute("DELETE FROM session_settings").await.unwrap();
    assert_eq!(refused(&operator, &format!("session_alive('{id}')")).await, "PS007");
    world.node().await;
    assert!(value::<bool>(&operator, "session_alive($1)", &[&id]).await, "a node writes the settings");
}

/// ```text
/// rotation       waits for S ─────────────────── rotates S to T ── COMMIT
/// session_end         chooses S ── waits for S ─────────────────────────── chooses T ── ends T and S
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_waited_for_a_rotation_ends_the_new_id() {
    for call in ["session_end($1)", "session_end_user(session_user_of($1::text::uuid))", "session_end_all()"]
    {
        let world = World::new();
        let [a, b] = world.nodes().await;
        let mut session = a.create(1).await.unwrap();
        let old = session.id();
        let call = call.replace("session_user_of($1::text::uuid)", "session_user_of(1)");
        let (operator, observer) = (world.operator().await, world.client().await);
        let holder = Holder::hold(&world, &[old]).await;
        let rotation = tokio::spawn(async move {
            a.rotate(&mut session).await.unwrap();
            session.id()
        });
        holder.blocks(&observer).await;
        let end = tokio::spawn(async move {
            let uuid = old.expose();
            let params: Params<'_> = if call.contains("$1") { &[&uuid] } else { &[] };
            operator.query_one(&format!("SELECT {call}::text"), params).await.unwrap().get::<_, String>(0)
        });
        holder.blocks_many(&observer, 2).await;
        holder.commit().await;
        let new = rotation.await.unwrap();
        assert!(["true", "1"].contains(&end.await.unwrap().as_str()), "it was alive");
        for id in [old, new] {
            assert!(b.get(id).bypass_cache().await.unwrap().is_none());
        }
        let rows: i64 = value(&observer, "(SELECT count(*) FROM sessions)", &[]).await;
        assert_eq!(rows, 0);
    }
}

/// The retired ids of the session that stays end: a thief who stole one is among the others.
#[tokio::test]
async fn the_spared_session_is_named_by_any_of_its_ids() {
    let world = World::new();
    let node = world.node().await;
    let operator = world.operator().await;
    for named_by_old_id in [false, true] {
        let mut session = node.create(1).await.unwrap();
        let old = session.id();
        node.rotate(&mut session).await.unwrap();
        let other = node.create(1).await.unwrap().id();
        let except = if named_by_old_id { old } else { session.id() };
        let call = "session_end_user(session_user_of(1), $1)";
        assert_eq!(value::<i64>(&operator, call, &[&except.expose()]).await, 1);
        let mut alive = Vec::new();
        for id in [session.id(), old, other] {
            alive.push(node.get(id).bypass_cache().await.unwrap().is_some());
        }
        assert_eq!(alive, [true, named_by_old_id, false]);
        node.user(1).delete().await.unwrap();
    }
}

#[tokio::test]
async fn sql_places_attributes_as_the_library_does() {
    let world = World::new();
    let node = world.node().await;
    let operator = world.operator().await;
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let cases = [
        vec![("a", "1".to_owned()), ("b", text(512)), ("c", text(513))],
        vec![("a", text(450)), ("b", text(450)), ("c", text(450)), ("d", text(450)), ("e", "1".to_owned())],
        vec![("quote\"", "1".to_owned()), ("back\\", "2".to_owned()), ("tab\t", "3".to_owned())],
        vec![("ü", "\"ä\"".to_owned()), ("'", "null".to_owned()), (" ", "[1, {\"x\": 2}]".to_owned())],
    ];
    for case in cases {
        let mut by_rust = node.create_anonymous();
        for (key, value) in &case {
            by_rust = by_rust.set(key, &serde_json::value::RawValue::from_string(value.clone()).unwrap());
        }
        let by_rust = by_rust.await.unwrap().id();
        let by_sql = SessionId::from_uuid(value(&operator, "session_create()", &[]).await);
        for (key, value) in &case {
            let call = "SELECT session_set($1, $2, $3::text::jsonb)";
            operator.query_one(call, &[&by_sql.expose(), key, value]).await.unwrap();
        }
        let whole: Vec<String> = case
            .iter()
            .map(|(key, value)| format!("{}:{value}", serde_json::to_string(key).unwrap()))
            .collect();
        let whole = format!("{{{}}}", whole.join(","));
        let at_once = "session_create(NULL, $1::text::jsonb)";
        let at_once = SessionId::from_uuid(value(&operator, at_once, &[&whole]).await);
        let expected = places(&operator, by_rust).await;
        let keys = |rows: Vec<(String, i64)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let expected_keys = keys(expected.apart);
        for id in [by_sql, at_once] {
            let found = places(&operator, id).await;
            assert_eq!(
                (keys(found.apart), found.has_overflow),
                (expected_keys.clone(), expected.has_overflow)
            );
            let texts = async |id| {
                stored(&operator, id)
                    .await
                    .into_iter()
                    .map(|(key, stored)| (key, stored.text))
                    .collect::<Vec<_>>()
            };
            assert_eq!(texts(id).await, texts(by_rust).await);
        }
    }
}

#[tokio::test]
async fn user_ids_of_sql_are_those_of_the_library() {
    let world = World::new();
    let _node = world.node().await;
    let operator = world.operator().await;
    for name in ["ann", "Ann", "", "ünïcode", "a'b\\c", "67e55044-10b1-426f-9247-bb680e5fe0c8"] {
        let found: Uuid = value(&operator, "session_user_of($1::text)", &[&name]).await;
        assert_eq!(found, UserId::named(name).as_uuid(), "{name}");
    }
    for number in [0, 1, -1, 42, i64::MAX, i64::MIN, 0x3fff_ffff_ffff_ffff, -0x4000_0000_0000_0001] {
        let found: Uuid = value(&operator, "session_user_of($1::bigint)", &[&number]).await;
        assert_eq!(found, UserId::from(number).as_uuid(), "{number}");
    }
    assert_eq!(value::<i32>(&operator, "session_contract()", &[]).await, 1);
}

#[tokio::test]
async fn functions_have_the_settings_of_the_last_node() {
    let world = World::new();
    let config = world.config();
    let script = format!("BEGIN; {} COMMIT;", Migrations::sql(&config).unwrap());
    let operator = world.operator().await;
    operator.batch_execute(&script).await.unwrap();
    let settings = async || -> [String; 8] {
        let text = "SELECT extract(epoch FROM absolute_timeout)::int8::text, extract(epoch FROM idle_timeout)::int8::text,
                           sessions_per_user_max::text, evict::text, attribute_key_bytes_max::text,
                           attribute_value_bytes_max::text, attributes_max::text, session_bytes_max::text
                    FROM session_settings";
        let row = operator.query_one(text, &[]).await.unwrap();
        std::array::from_fn(|at| row.get(at))
    };
    let of = |config: &Config| {
        [
            config.absolute_timeout.as_secs().to_string(),
            config.idle_timeout.as_secs().to_string(),
            config.sessions_per_user_max.to_string(),
            (config.on_session_limit == SessionLimit::EvictLeastRecentlyUsed).to_string(),
            config.attribute_key_bytes_max.to_string(),
            config.attribute_value_bytes_max.to_string(),
            config.attributes_max.to_string(),
            config.session_bytes_max.to_string(),
        ]
    };
    assert_eq!(settings().await, of(&Config::default()), "until a node starts");
    world.node_with(config.clone()).await;
    assert_eq!(settings().await, of(&config));
    let other = config.with(|config| {
        config.absolute_timeout = Duration::from_secs(7_200);
        config.idle_timeout = Duration::from_secs(3_600);
        config.last_access_flush_interval = Duration::from_secs(60);
        config.on_session_limit = SessionLimit::Refuse;
        config.attributes_max = 7;
    });
    world.node_with(other.clone()).await;
    assert_eq!(settings().await, of(&other));
    let text = "SELECT extract(epoch FROM expires_at - created_at)::int8 FROM session_get(session_create())";
    assert_eq!(operator.query_one(text, &[]).await.unwrap().get::<_, i64>(0), 7_200);
}

#[tokio::test]
async fn ended_sessions_do_not_exist_for_the_functions() {
    let world = World::new();
    let node = world.node().await;
    let (operator, admin) = (world.operator().await, world.client().await);
    let id = create(&operator, UserId::from(1), r#"{"n": 1}"#).await;
    let stale = "UPDATE sessions SET last_accessed_at = now() - interval '47 hours 30 minutes'";
    admin.batch_execute(stale).await.unwrap();
    assert!(value::<bool>(&operator, "session_touch($1)", &[&id.expose()]).await);
    assert!(
        value::<bool>(&operator, "now() - last_accessed_at < interval '1 minute' FROM sessions", &[]).await
    );
    for script in [
        "UPDATE sessions SET last_accessed_at = now() - interval '49 hours'",
        "UPDATE sessions SET last_accessed_at = now(), expires_at = now()",
    ] {
        admin.batch_execute(script).await.unwrap();
        for call in ["session_alive($1)", "session_touch($1)", "EXISTS (SELECT FROM session_get($1))"] {
            assert!(!value::<bool>(&operator, call, &[&id.expose()]).await, "{call}");
        }
        assert_eq!(refused(&operator, &format!("session_set('{}', 'n', '2')", id.expose())).await, "PS002");
        let rows = "(SELECT count(*) FROM session_list(session_user_of(1))) + (SELECT count(*) FROM session_overview)";
        assert_eq!(value::<i64>(&operator, rows, &[]).await, 0);
    }
    assert!(!value::<bool>(&operator, "session_end($1)", &[&id.expose()]).await, "it was not alive");
    assert!(node.get(id).await.unwrap().is_none());
}

/// A role for revocations, one for dashboards, and one without rights.
#[tokio::test]
async fn each_role_can_do_what_it_was_granted_only() {
    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let (admin, schema) = (world.operator().await, &world.schema);
    let roles = ["support", "board", "other"].map(|name| format!("{name}_of_{schema}"));
    let [support, board, other] = &roles;
    let script = format!(
        "{} CREATE ROLE {support}; CREATE ROLE {board}; CREATE ROLE {other};
         GRANT USAGE ON SCHEMA {schema} TO {support}, {board}, {other};
         GRANT EXECUTE ON FUNCTION revoke_user_sessions TO {support}; GRANT SELECT ON session_overview TO {board}",
        Migrations::definer_sql(&world.config()).unwrap()
    );
    admin.batch_execute(&script).await.unwrap();
    let sessions = all((0..2).map(async |_| nodes[0].create(1).await.unwrap().id())).await;
    for node in &nodes {
        read_all(node, &sessions).await;
    }
    let as_role = async |role: &str, text: &str| {
        admin.batch_execute(&format!("SET ROLE {role}")).await.unwrap();
        let outcome = admin.query(text, &[]).await;
        admin.batch_execute("RESET ROLE").await.unwrap();
        outcome
    };
    let calls = [
        "SELECT session_end_user(session_user_of(1))",
        "SELECT session_end_all()",
        "SELECT session_create()",
        "SELECT * FROM session_get(gen_random_uuid())",
        "SELECT session_user_of(1)",
        "SELECT * FROM sessions",
        "SELECT * FROM session_settings",
        "SELECT revoke_user_sessions('70677365-7373-8000-8000-000000000001')",
        "SELECT handle FROM session_overview",
    ];
    for (role, allowed) in [(support, Some(7)), (board, Some(8)), (other, None)] {
        for (at, call) in calls.iter().enumerate().filter(|&(at, _)| Some(at) != allowed) {
            let error = as_role(role, call).await.expect_err(call);
            assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{role}, {at}: {error:?}");
        }
    }
    let handles = as_role(board, calls[8]).await.unwrap();
    let handles: Vec<String> = handles.iter().map(|row| row.get(0)).collect();
    let logged: Vec<String> = sessions.iter().map(|id| format!("{id:?}")).collect();
    assert_eq!(handles.len(), 2);
    for handle in &handles {
        assert!(logged.contains(&format!("SessionId(#{})", &handle[..8])), "{handle}");
    }
    let columns =
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'session_overview'::regclass AND attnum > 0";
    let columns: Vec<String> =
        admin.query(columns, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(!columns.iter().any(|name| name == "id" || name == "attributes"), "{columns:?}");
    assert!(admin.query("DELETE FROM session_overview", &[]).await.is_err(), "no role can write through it");

    // A setting of its transaction cannot keep the nodes from being notified.
    let revoke = "SELECT set_config('pg_session.direct_writes', 'library', false)";
    as_role(support, revoke).await.unwrap();
    assert_eq!(as_role(support, calls[7]).await.unwrap()[0].get::<_, i64>(0), 2);
    leaves_memory(&nodes, &sessions).await;
}
