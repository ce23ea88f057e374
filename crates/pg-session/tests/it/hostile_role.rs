//! A role in the same database that may CREATE in a schema on the application's `search_path`.
//!
//! PostgreSQL prefers an exact match of argument types over a polymorphic or cast one, in any schema. So such a role
//! could have its own functions and operators run as the application. It plants one for each name that a statement may
//! use, with each combination of types. Every one of them raises an error.

use std::str::FromStr;

use deadpool_postgres::{Manager, Pool};
use pg_session::sql::Cause;
use pg_session::{ErrorKind, Migrations, SessionManager, UserId};
use tokio_postgres::NoTls;

use crate::fixtures::{hit, in_time, read_all};
use crate::statement_modes::{node_on, story};
use crate::support::{World, eventually};

/// Types of parameters and columns; the domains are those of the migration.
const TYPES: [&str; 10] = [
    "uuid",
    "int8",
    "int4",
    "text",
    "bool",
    "float8",
    "timestamptz",
    "interval",
    "{schema}.session_expiry",
    "{schema}.session_packed",
];
const ARRAYS: [&str; 5] = ["uuid[]", "int8[]", "text[]", "timestamptz[]", "bool[]"];
const OPERATORS: [&str; 11] = ["=", "<>", "<", ">", "<=", ">=", "+", "-", "*", "/", "||"];
const ONE_ARGUMENT: [&str; 12] = [
    "unnest",
    "count",
    "array_agg",
    "max",
    "min",
    "sum",
    "octet_length",
    "length",
    "pg_advisory_xact_lock",
    "pg_try_advisory_xact_lock",
    "row_security_active",
    "current_setting",
];
const TWO_ARGUMENTS: [&str; 7] =
    ["string_agg", "pg_notify", "position", "strpos", "hashtextextended", "uuid_hash_extended", "array_cat"];

/// A function of each of these names, and an operator of each pair of types.
fn planted(schema: &str) -> String {
    let types = TYPES.map(|name| name.replace("{schema}", schema));
    let mut script = String::new();
    let mut function = |name: &str, arguments: &str| {
        script.push_str(&format!(
            "CREATE FUNCTION public.{name}({arguments}) RETURNS bool LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'planted code ran'; END $$;"
        ));
    };
    for name in ONE_ARGUMENT {
        types.iter().map(String::as_str).chain(ARRAYS).for_each(|argument| function(name, argument));
    }
    for name in ["now", "clock_timestamp", "row_number", "count", "pg_current_wal_lsn"] {
        function(name, "");
    }
    for left in &types {
        for right in &types {
            for name in TWO_ARGUMENTS {
                function(name, &format!("{left}, {right}"));
            }
            function("planted", &format!("{left}, {right}"));
            function("replace", &format!("{left}, {right}, text"));
        }
    }
    for left in &types {
        for right in &types {
            for name in OPERATORS {
                script.push_str(&format!(
                    "CREATE OPERATOR public.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.planted);"
                ));
            }
        }
    }
    script
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_create_cannot_run_code_as_the_application() {
    let world = World::in_own_database().await;
    let mut config = world.config();
    // The tables are made before anything is planted.
    world.node_with(config.clone()).await;
    config.migrations = Migrations::Check;
    let admin = world.client().await;
    let (schema, role) = (&world.schema, format!("hostile_{}", world.schema));
    let setup = format!(
        "CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}; GRANT USAGE ON SCHEMA {schema} TO {role};
         GRANT USAGE ON DOMAIN {schema}.session_expiry, {schema}.session_packed TO {role};
         SET ROLE {role}; {}; RESET ROLE;",
        planted(schema)
    );
    admin.batch_execute(&setup).await.unwrap();

    // Control: an unqualified name in the same session runs what was planted.
    admin.batch_execute("SET search_path TO public").await.unwrap();
    for text in [
        "SELECT unnest(ARRAY[NULL::uuid])".to_owned(),
        "SELECT array_agg(1::int8)".to_owned(),
        "SELECT 2::int8 * interval '1 second'".to_owned(),
        "SELECT '1'::text || 2::int8".to_owned(),
        format!(
            "SELECT expires_at > now() FROM {schema}.sessions UNION ALL SELECT now()::{schema}.session_expiry > now()"
        ),
    ] {
        let error = admin.query(&text, &[]).await.unwrap_err();
        assert!(error.as_db_error().unwrap().message().contains("planted code ran"), "{text}: {error:?}");
    }

    let server = tokio_postgres::Config::from_str(&world.url).unwrap();
    let mut server = server.clone();
    server.options("-c search_path=public");
    let pool = Pool::builder(Manager::new(server, NoTls)).max_size(4).build().unwrap();
    let (a, b) = (node_on(&world, &pool, config.clone()).await, node_on(&world, &pool, config.clone()).await);
    surface(&a, &b).await;
    // And over pools of our own.
    let (a, b) = (world.node_with(config.clone()).await, world.node_with(config).await);
    // Before these nodes have sent a login, the role creates a function that untyped arguments would fit better.
    let overload = format!(
        "GRANT CREATE ON SCHEMA {schema} TO {role}; SET ROLE {role};
         CREATE FUNCTION {schema}.session_make_room(uuid[], int4[], uuid[], text, boolean, interval)
             RETURNS TABLE (user_id uuid, admitted boolean, evicted uuid[]) LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'planted code ran'; END $$;
         CREATE FUNCTION {schema}.session_end_rows(uuid, text, text, uuid, text)
             RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted code ran'; END $$;
         CREATE FUNCTION {schema}.session_write(uuid, text, text, text)
             RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted code ran'; END $$;
         CREATE FUNCTION {schema}.session_scope(char, uuid)
             RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted code ran'; END $$;
         RESET ROLE"
    );
    admin.batch_execute(&overload).await.unwrap();
    surface(&a, &b).await;
    contract(&admin, schema).await;
}

/// Every function of the SQL contract, by a client that names its schema.
async fn contract(client: &tokio_postgres::Client, schema: &str) {
    client.batch_execute("SET search_path TO public").await.unwrap();
    let large = "x".repeat(600);
    for text in [
        "SET pg_session.direct_writes = ''",
        "SELECT pg_catalog.set_config('test.id', {s}.session_create({s}.session_user_of('ann'::text), '{\"a\": 1}')::text, false)",
        "SELECT {s}.session_set(pg_catalog.current_setting('test.id')::uuid, 'b', '\"{large}\"', '2100-01-01')",
        "SELECT {s}.session_remove(pg_catalog.current_setting('test.id')::uuid, 'a')",
        "SELECT {s}.session_get(pg_catalog.current_setting('test.id')::uuid)",
        "SELECT {s}.session_list({s}.session_user_of(7::bigint))",
        "SELECT {s}.session_alive(pg_catalog.current_setting('test.id')::uuid)",
        "SELECT {s}.session_touch(pg_catalog.current_setting('test.id')::uuid)",
        "SELECT * FROM {s}.session_overview",
        "SELECT {s}.session_end(pg_catalog.current_setting('test.id')::uuid)",
        "SELECT {s}.session_end_user({s}.session_user_of('ann'::text))",
        "SELECT {s}.session_end_group({s}.session_user_of('ann'::text))",
        "SELECT {s}.session_end_all()",
    ] {
        let text = text.replace("{s}", schema).replace("{large}", &large);
        client.batch_execute(&text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
    }
}

/// Every statement of the library, with attributes inline, large and expiring.
pub async fn surface(a: &SessionManager, b: &SessionManager) {
    story(a, b).await;
    let hour = std::time::Duration::from_secs(3_600);
    let large = "x".repeat(2_000);
    let mut session = a.create(9).group(3).set("large", &large).set_for("offer", &1, hour).await.unwrap();
    session.set("large", &format!("{large}y")).unwrap();
    session.remove("offer");
    a.save(&mut session).group(Some(4.into())).await.unwrap();
    assert_eq!(a.user(9).list().await.unwrap().len(), 1);
    assert_eq!(a.group(4).list().await.unwrap().len(), 1);
    assert_eq!(b.user(9).remove_attribute("large").await.unwrap(), 1);
    let mut session = a.get(session.id()).bypass_cache().await.unwrap().unwrap();
    a.rotate(&mut session).user(10).await.unwrap();
    let lease = a.locks().session_lock(session.id(), "cart").await.unwrap();
    lease.extend(hour).await.unwrap();
    assert!(b.locks().session_holder(session.id(), "cart").await.unwrap().is_some());
    lease.release().await.unwrap();
    b.evict_all().await.unwrap();
    a.cleanup().await.unwrap();
    let ids: Vec<_> =
        [a.create(11).await.unwrap(), a.create(11).await.unwrap()].iter().map(|s| s.id()).collect();
    assert_eq!(b.user(11).delete_except(ids[0]).await.unwrap(), 1);
    assert_eq!(b.delete_many(ids).await.unwrap(), 1);
    assert_eq!(a.delete_all_sessions().await.unwrap(), 1);
    assert!(a.shutdown(hour).await.is_complete(), "last accesses are written");
}

#[tokio::test]
async fn a_later_connection_with_an_unsafe_path_is_refused() {
    let world = World::new();
    let role = format!("wanderer_of_{}", world.schema);
    let admin = world.client().await;
    admin.batch_execute(&format!("CREATE ROLE {role} LOGIN SUPERUSER")).await.unwrap();
    let server =
        tokio_postgres::Config::from_str(&world.url.replace("postgres@", &format!("{role}@"))).unwrap();
    let pool = Pool::builder(Manager::new(server, NoTls)).max_size(2).build().unwrap();
    let node = SessionManager::builder(world.config()).url(&world.url).unwrap().pool(pool.clone());
    let node = node.connect().await.unwrap();
    node.create(1).await.unwrap();
    admin.batch_execute(&format!("ALTER ROLE {role} SET search_path = public, pg_catalog")).await.unwrap();
    pool.retain(|_, _| false);
    let error = node.create(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("before pg_catalog"), "{error}");
    admin.batch_execute(&format!("ALTER ROLE {role} RESET search_path")).await.unwrap();
    pool.retain(|_, _| false);
    node.create(1).await.unwrap();
}

/// With `public, pg_catalog` each planted operator would win, and no statement can name all of its operators' schemas.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_with_pg_catalog_behind_a_schema_is_refused() {
    let world = World::new();
    world.node().await;
    for (path, accepted) in [
        ("public,pg_catalog", false),
        ("\\\"$user\\\",public,pg_catalog", false),
        ("pg_catalog,public", true),
        ("public", true),
        ("", true),
    ] {
        let mut server = tokio_postgres::Config::from_str(&world.url).unwrap();
        server.options(format!("-c search_path={path}"));
        let pool = Pool::builder(Manager::new(server, NoTls)).max_size(2).build().unwrap();
        let builder = SessionManager::builder(world.config()).url(&world.url).unwrap().pool(pool);
        match builder.connect().await {
            Ok(node) => {
                assert!(accepted, "{path}");
                assert!(node.create(1).await.is_ok());
            }
            Err(error) => {
                assert!(!accepted, "{path}: {error}");
                assert_eq!(error.kind(), ErrorKind::Config);
                assert!(error.to_string().contains("before pg_catalog"), "{error}");
            }
        }
    }
}

/// A role that may only end a user's sessions, with all settings and temporary objects that PostgreSQL allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definer_function_ignores_what_its_caller_has_prepared() {
    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let (admin, schema) = (world.operator().await, &world.schema);
    let role = format!("support_of_{schema}");
    let script = format!(
        "{} CREATE ROLE {role}; GRANT USAGE ON SCHEMA {schema} TO {role};
         GRANT EXECUTE ON FUNCTION revoke_user_sessions, revoke_label_sessions TO {role}",
        Migrations::definer_sql(&world.config()).unwrap()
    );
    admin.batch_execute(&script).await.unwrap();
    let support = world.operator().await;
    support.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).await.unwrap();
    let settings = [
        "SET pg_session.direct_writes = 'library'",
        "SET pg_session.direct_writes = 'on'",
        "SET pg_session.cause = 'rotated'",
        "SET pg_session.updates_notified = '9223372036854775807'",
        "SET pg_session.limits_row_locks = 'on'",
        "SET pg_session.row_security_is_active = 'off'",
        "SET row_security = off",
        "SET bytea_output = 'escape'; SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard'",
        "SET TimeZone = 'Pacific/Kiritimati'; SET standard_conforming_strings = off; SET array_nulls = off",
        "SET search_path TO pg_temp, public; CREATE TEMP TABLE sessions (id uuid, user_id uuid);
         CREATE TEMP TABLE session_settings (n int); CREATE TEMP TABLE session_labels (session_id uuid, label text);
         CREATE TYPE pg_temp.uuid AS (n int); CREATE DOMAIN pg_temp.text AS pg_catalog.int4",
    ];
    let mut prepared = 0;
    for (user, setting) in (1_i64..).zip(settings) {
        // Of a setting that no role may have, nothing remains.
        prepared += usize::from(support.batch_execute(setting).await.is_ok());
        let session = nodes[0].create(user).label("tenant:7").await.unwrap();
        let other = nodes[0].create(user).label("tenant:8").await.unwrap();
        let ids = [session.id(), other.id()];
        for node in &nodes {
            read_all(node, &ids).await;
        }
        let pin = nodes[1].pin(&session).await.unwrap();
        let by_label = format!("SELECT {schema}.revoke_label_sessions('tenant:7'::pg_catalog.text)");
        let ended =
            support.query_one(&by_label, &[]).await.unwrap_or_else(|error| panic!("{setting}: {error}"));
        assert_eq!(ended.get::<_, i64>(0), 1, "{setting}");
        let cause = in_time("the other node is notified", pin.ended()).await;
        assert_eq!(cause, Cause::Admin, "{setting}");
        let uuid = UserId::from(user).as_uuid();
        let by_user = format!("SELECT {schema}.revoke_user_sessions('{uuid}'::pg_catalog.uuid)");
        assert_eq!(support.query_one(&by_user, &[]).await.unwrap().get::<_, i64>(0), 1, "{setting}");
        for node in &nodes {
            eventually(setting, async || ids.iter().all(|&id| hit(node, id).is_none())).await;
        }
    }
    assert!(prepared >= 8, "{prepared} of {} settings were made", settings.len());
    // The role cannot go on with the rights of the owner.
    for forbidden in [
        format!("SELECT * FROM {schema}.sessions"),
        format!("DELETE FROM {schema}.session_labels"),
        format!("SELECT {schema}.session_end_all()"),
    ] {
        assert!(support.batch_execute(&forbidden).await.is_err(), "{forbidden}");
    }
}
