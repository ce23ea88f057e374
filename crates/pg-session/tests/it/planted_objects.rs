//! Objects that another role has made in the library's schema, with its names or behind its tables.
//!
//! Their code would run as the application, which here is a superuser. Every planted function raises an error that says so.

use std::error::Error as _;

use pg_session::{Error, ErrorKind, Migrations, SessionManager};

use crate::hostile_role::surface;
use crate::support::World;

/// A schema in which a hostile role may create, and its functions.
struct Planted {
    world: World,
    admin: tokio_postgres::Client,
    role: String,
}

const CODE: &str = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted code ran'; END $$";

impl Planted {
    async fn new() -> Self {
        let world = World::new();
        let admin = world.client().await;
        let (schema, role) = (&world.schema, format!("planter_of_{}", world.schema));
        let setup = format!(
            "CREATE SCHEMA {schema}; CREATE ROLE {role}; GRANT CREATE, USAGE ON SCHEMA {schema} TO {role};
             SET ROLE {role};
             CREATE FUNCTION evil() RETURNS int IMMUTABLE {CODE};
             CREATE FUNCTION evil(anyelement) RETURNS bool IMMUTABLE {CODE};
             CREATE FUNCTION evil_trigger() RETURNS trigger {CODE};
             RESET ROLE"
        );
        admin.batch_execute(&setup).await.unwrap();
        Self { world, admin, role }
    }

    async fn run(&self, script: &str) {
        let script = script.replace("{role}", &self.role);
        self.admin.batch_execute(&script).await.unwrap_or_else(|error| panic!("{script}: {error:?}"));
    }

    async fn run_as_role(&self, script: &str) {
        self.run(&format!("SET ROLE {{role}}; {script}; RESET ROLE")).await;
    }

    async fn connect(&self, migrations: Migrations) -> Result<SessionManager, Error> {
        let mut config = self.world.config();
        config.migrations = migrations;
        SessionManager::connect(&self.world.url, config).await
    }

    async fn assert_refused(&self, migrations: Migrations, object: &str) {
        let error = match self.connect(migrations).await {
            Ok(_) => panic!("{object} was accepted"),
            Err(error) => error,
        };
        let (mut text, mut cause) = (error.to_string(), error.source());
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        assert!(!text.contains("planted code ran"), "{object}: {text}");
        assert_eq!(error.kind(), ErrorKind::Schema, "{object}: {text}");
        assert!(text.contains(object), "{object}: {text}");
        assert!(text.contains(&self.role) && text.contains("drop it"), "{object}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_planted_before_the_first_start_are_refused() {
    let planted = Planted::new().await;
    for (make, object, drop) in [
        (
            "CREATE VIEW session_migrations AS SELECT evil() AS version, '' AS name",
            "view {schema}.session_migrations",
            "DROP VIEW session_migrations",
        ),
        (
            "CREATE TABLE session_migrations (version int, name text); INSERT INTO session_migrations VALUES (1, 'initial')",
            "table {schema}.session_migrations",
            "DROP TABLE session_migrations",
        ),
        (
            "CREATE MATERIALIZED VIEW session_migrations AS SELECT 1 AS version WITH NO DATA",
            "materialized view {schema}.session_migrations",
            "DROP MATERIALIZED VIEW session_migrations",
        ),
        (
            "CREATE TABLE session_migrations (version int, name text) PARTITION BY LIST (version)",
            "table {schema}.session_migrations",
            "DROP TABLE session_migrations",
        ),
        (
            "CREATE VIEW sessions AS SELECT evil() AS id;
             CREATE TRIGGER t INSTEAD OF INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION evil_trigger()",
            "view {schema}.sessions",
            "DROP VIEW sessions",
        ),
        (
            "CREATE TABLE session_attributes (id int DEFAULT evil() CHECK (evil(id)));
             CREATE RULE r AS ON INSERT TO session_attributes DO ALSO SELECT evil()",
            "table {schema}.session_attributes",
            "DROP TABLE session_attributes",
        ),
        ("CREATE SEQUENCE session_locks", "sequence {schema}.session_locks", "DROP SEQUENCE session_locks"),
        (
            "CREATE TABLE sessions_user_id_idx ()",
            "table {schema}.sessions_user_id_idx",
            "DROP TABLE sessions_user_id_idx",
        ),
        ("CREATE TYPE sessions AS ENUM ()", "type {schema}.sessions", "DROP TYPE sessions"),
        (
            "CREATE DOMAIN session_expiry AS timestamptz CHECK (evil(VALUE))",
            "type {schema}.session_expiry",
            "DROP DOMAIN session_expiry",
        ),
        (
            "CREATE FUNCTION sessions_follow() RETURNS trigger {code}",
            "function {schema}.sessions_follow()",
            "DROP FUNCTION sessions_follow()",
        ),
        (
            "CREATE FUNCTION session_make_room(uuid[], bigint[], uuid[], text, boolean, interval)
                 RETURNS TABLE (user_id uuid, admitted boolean, evicted uuid[]) {code}",
            "function {schema}.session_make_room(",
            "DROP FUNCTION session_make_room",
        ),
    ] {
        planted.run_as_role(&make.replace("{code}", CODE)).await;
        let object = object.replace("{schema}", &planted.world.schema);
        planted.assert_refused(Migrations::Apply, &object).await;
        planted.assert_refused(Migrations::Check, &object).await;
        planted.run_as_role(drop).await;
    }
    // The printed migrations look as well.
    planted.run_as_role("CREATE VIEW session_migrations AS SELECT evil() AS version, '' AS name").await;
    let sql = Migrations::sql(&planted.world.config()).unwrap();
    let refused =
        planted.world.client().await.batch_execute(&format!("BEGIN; {sql} COMMIT")).await.unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "PS008", "{refused}");
    assert!(refused.message().contains("session_migrations belongs to the role"), "{refused}");
    planted.run_as_role("DROP VIEW session_migrations; CREATE TABLE session_labels (id int)").await;
    // Their record is there by then. It does not make a planted table one of the library's.
    let refused =
        planted.world.client().await.batch_execute(&format!("BEGIN; {sql} COMMIT")).await.unwrap_err();
    let refused = refused.as_db_error().unwrap().message();
    assert!(refused.contains("session_labels belongs to the role"), "{refused}");
    assert!(refused.contains("drop it") && !refused.contains("ALTER TABLE"), "{refused}");
    planted.run_as_role("DROP TABLE session_labels").await;
    planted.connect(Migrations::Apply).await.expect("nothing is planted");
}

/// A trusted role owns the tables. Other roles may have more rights on them than they should: TRIGGER and REFERENCES. Or the
/// owner took over a table that was planted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_code_behind_the_tables_is_refused() {
    let planted = Planted::new().await;
    planted.connect(Migrations::Apply).await.expect("nothing is planted");
    planted.run("GRANT TRIGGER, REFERENCES ON sessions, session_locks TO {role}").await;
    for (make, object, drop) in [
        (
            "SET ROLE {role};
             CREATE TRIGGER t BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION evil_trigger(); RESET ROLE",
            "function {schema}.evil_trigger()",
            "DROP TRIGGER t ON sessions",
        ),
        (
            "SET ROLE {role}; CREATE TABLE mine (id uuid REFERENCES sessions ON DELETE CASCADE);
             CREATE TRIGGER t AFTER DELETE ON mine FOR EACH ROW EXECUTE FUNCTION evil_trigger(); RESET ROLE",
            "table {schema}.mine",
            "DROP TABLE mine",
        ),
        (
            "CREATE RULE r AS ON UPDATE TO session_locks WHERE evil(1) DO ALSO SELECT 1",
            "function {schema}.evil(",
            "DROP RULE r ON session_locks",
        ),
        (
            "ALTER TABLE session_attributes ALTER expires_at SET DEFAULT CASE evil() WHEN 1 THEN now() END",
            "function {schema}.evil()",
            "ALTER TABLE session_attributes ALTER expires_at DROP DEFAULT",
        ),
        (
            "ALTER TABLE session_locks ADD generated bool GENERATED ALWAYS AS (evil(fence)) STORED",
            "function {schema}.evil(",
            "ALTER TABLE session_locks DROP generated",
        ),
        (
            "ALTER TABLE session_locks ADD CONSTRAINT c CHECK (evil(fence)) NOT VALID",
            "function {schema}.evil(",
            "ALTER TABLE session_locks DROP CONSTRAINT c",
        ),
        (
            "ALTER DOMAIN session_expiry ADD CONSTRAINT c CHECK (evil(VALUE)) NOT VALID",
            "function {schema}.evil(",
            "ALTER DOMAIN session_expiry DROP CONSTRAINT c",
        ),
        (
            "CREATE INDEX i ON sessions ((evil(group_id)))",
            "function {schema}.evil(",
            "DROP INDEX i",
        ),
        (
            "CREATE POLICY p ON session_migrations USING (evil(version))",
            "function {schema}.evil(",
            "DROP POLICY p ON session_migrations",
        ),
        (
            "CREATE TABLE child () INHERITS (sessions); ALTER TABLE child OWNER TO {role}",
            "table {schema}.child",
            "DROP TABLE child",
        ),
        (
            "SET ROLE {role}; CREATE DOMAIN theirs AS text CHECK (evil(VALUE)); RESET ROLE;
             ALTER TABLE sessions ADD extra theirs",
            "type {schema}.theirs",
            "ALTER TABLE sessions DROP extra",
        ),
    ] {
        planted.run(make).await;
        planted.assert_refused(Migrations::Check, &object.replace("{schema}", &planted.world.schema)).await;
        planted.run(drop).await;
    }
    let node = planted.connect(Migrations::Check).await.expect("nothing is planted");
    node.create(1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overloads_of_other_roles_hinder_no_start_and_no_statement() {
    let planted = Planted::new().await;
    let overloads: Vec<String> = [
        "session_make_room",
        "session_move_locks",
        "session_update_one",
        "session_update",
        "session_update_in_full",
        "sessions_follow",
    ]
    .iter()
    .flat_map(|name| {
        ["int", "uuid, text", "VARIADIC text[]"]
            .map(|types| format!("CREATE FUNCTION {name}({types}) RETURNS int {CODE};"))
    })
    .collect();
    planted.run_as_role(&overloads.concat()).await;
    // Of the SQL contract, which the migrations revoke from everyone.
    let contract = ["session_end", "session_end_user", "session_create", "session_set", "session_contract"];
    let overloads = contract.map(|name| format!("CREATE FUNCTION {name}(int) RETURNS int {CODE};"));
    planted.run_as_role(&overloads.concat()).await;
    let a = planted.connect(Migrations::Apply).await.unwrap();
    let b = planted.connect(Migrations::Check).await.unwrap();
    surface(&a, &b).await;
}

#[tokio::test]
async fn tables_of_a_trusted_owner_are_accepted() {
    let planted = Planted::new().await;
    planted.connect(Migrations::Apply).await.expect("nothing is planted");
    let objects = "ALTER TABLE sessions OWNER TO {owner}; ALTER TABLE session_attributes OWNER TO {owner};
                   ALTER TABLE session_locks OWNER TO {owner}; ALTER TABLE session_migrations OWNER TO {owner};
                   ALTER FUNCTION sessions_follow OWNER TO {owner}";
    let (schema, owner) = (planted.world.schema.clone(), format!("owner_of_{}", planted.world.schema));
    let app = format!("app_of_{schema}");
    planted
        .run(&format!(
            "CREATE ROLE {owner}; CREATE ROLE {app} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {app}, {owner};
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {app};
             GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {schema} TO {app}; {}",
            objects.replace("{owner}", &owner)
        ))
        .await;
    let mut config = planted.world.config();
    config.migrations = Migrations::Check;
    let url = planted.world.url.replace("postgres@", &format!("{app}@"));
    let connect = async || SessionManager::connect(&url, config.clone()).await.map(|_| ());
    let refused = connect().await.expect_err("the owner is not trusted");
    assert!(refused.to_string().contains(&format!("OWNER TO {owner}")), "{refused}");
    for (trust, distrust) in [
        (format!("GRANT {owner} TO {app}"), format!("REVOKE {owner} FROM {app}")),
        (
            format!("ALTER SCHEMA {schema} OWNER TO {owner}"),
            format!("ALTER SCHEMA {schema} OWNER TO postgres"),
        ),
        (format!("ALTER ROLE {owner} SUPERUSER"), format!("ALTER ROLE {owner} NOSUPERUSER")),
    ] {
        planted.run(&trust).await;
        connect().await.unwrap_or_else(|error| panic!("{trust}: {error}"));
        planted.run(&distrust).await;
    }
    connect().await.expect_err("the owner is not trusted");
}
