//! The rights in the documents are enough for everything that a node does, and each of them is needed. No other role has
//! any.

use std::time::Duration;

use pg_session::{ErrorKind, Migrations, SessionManager, UserId};

use crate::support::World;

const SECURITY: &str = include_str!("../../../../SECURITY.md");
const SQL: &str = include_str!("../../../../docs/sql.md");
const OPERATIONS: &str = include_str!("../../../../docs/operations.md");

/// A role of its own for each test, for roles are not kept in a schema.
struct Role {
    world: World,
    name: String,
}

impl Role {
    /// With the tables of another role, and no rights.
    async fn new() -> Self {
        let world = World::new();
        let owner = world.node().await.shutdown(Duration::from_secs(5)).await;
        assert!(owner.is_complete());
        let name = format!("app_of_{}", world.schema);
        world.client().await.batch_execute(&format!("CREATE ROLE {name} LOGIN")).await.unwrap();
        Self { world, name }
    }

    /// The statements of the operations page, for this role and schema.
    fn grants(&self) -> Vec<String> {
        self.grants_in(OPERATIONS)
    }

    /// The statements in a document, for this role and schema.
    fn grants_in(&self, paper: &str) -> Vec<String> {
        let mut blocks = paper.split("```sql").skip(1).filter_map(|rest| rest.split("```").next());
        let block = blocks.find(|block| block.contains("GRANT ")).expect("a block of grants");
        let grants =
            block.replace("public", &self.world.schema).replace("TO app;", &format!("TO {};", self.name));
        grants.lines().filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect()
    }

    async fn connect(&self) -> Result<SessionManager, pg_session::Error> {
        let mut config = self.world.config();
        config.migrations = Migrations::Check;
        SessionManager::connect(&self.world.url.replace("postgres@", &format!("{}@", self.name)), config)
            .await
    }
}

#[tokio::test]
async fn the_rights_in_the_security_policy_are_enough() {
    do_everything_with_the_rights_in(SECURITY).await;
}

#[tokio::test]
async fn the_rights_in_the_operations_page_are_enough() {
    do_everything_with_the_rights_in(OPERATIONS).await;
}

#[tokio::test]
async fn the_rights_in_the_page_on_sql_are_enough() {
    let role = Role::new().await;
    let (client, name) = (role.world.operator().await, &role.name);
    client.batch_execute(&role.grants_in(SQL).concat()).await.unwrap();
    client.batch_execute(&format!("SET ROLE {name}")).await.unwrap();
    let examples = SQL.split("```sql").skip(1).filter_map(|rest| rest.split("```").next());
    let examples: Vec<&str> =
        examples.filter(|block| block.contains("session_create") || block.contains("example.id")).collect();
    assert_eq!(examples.len(), 5);
    for example in examples {
        client.batch_execute(example).await.unwrap_or_else(|error| panic!("{example}: {error:?}"));
    }
}

/// All blocks but the grants, in the order of the page, as the owner of the tables.
#[tokio::test]
async fn the_statements_of_the_operations_page_run() {
    let world = World::new();
    let node = world.node().await;
    node.create(1).set("n", &1).await.unwrap();
    let blocks = OPERATIONS.split("```sql").skip(1).filter_map(|rest| rest.split("```").next());
    let statements: Vec<&str> = blocks.filter(|block| !block.contains("GRANT ")).collect();
    assert!(statements.len() >= 4, "{statements:?}");
    for statement in statements {
        let statement = statement.replace("public.", &format!("{}.", world.schema));
        world.client().await.batch_execute(&statement).await.unwrap_or_else(|error| {
            panic!("{statement}: {error}");
        });
    }
    assert!(node.user(1).list().await.unwrap().is_empty(), "the last statement ends all sessions");
}

async fn do_everything_with_the_rights_in(paper: &str) {
    let role = Role::new().await;
    role.world.client().await.batch_execute(&role.grants_in(paper).concat()).await.unwrap();
    let node = role.connect().await.unwrap();
    let user = UserId::from(1);
    let mut ids = Vec::new();
    // One more than the limit: the create evicts.
    for n in 0..6 {
        ids.push(node.create(user).set("n", &n).group(7).label("tenant:7").await.unwrap().id());
    }
    let session = node.modify(ids[5], |session| session.set("n", &9)).await.unwrap();
    assert_eq!(
        node.get(session.id()).bypass_cache().await.unwrap().unwrap().get::<i32>("n").unwrap(),
        Some(9)
    );
    assert_eq!(node.user(user).list().await.unwrap().len(), 5);
    assert_eq!(node.user(user).remove_attribute("n").await.unwrap(), 5);
    node.evict_all().await.unwrap();
    for lock in [node.locks().lock("report"), node.locks().session_lock(ids[5], "cart")] {
        let lease = lock.await.unwrap();
        lease.extend(Duration::from_secs(90)).await.unwrap();
        lease.release().await.unwrap();
    }
    assert!(node.locks().holder("report").await.unwrap().is_none());
    let mut session = node.get(ids[1]).await.unwrap().unwrap();
    node.rotate(&mut session).await.unwrap();
    node.rotate(&mut session).label("sid").await.unwrap();
    assert_eq!(node.label("sid").list().await.unwrap().len(), 1);
    assert_eq!(node.label("sid").delete().await.unwrap(), 1);
    assert!(node.delete(ids[5]).await.unwrap());
    assert_eq!(node.delete_many([ids[4]]).await.unwrap(), 1);
    assert_eq!(node.cleanup().await.unwrap().expired, 0);
    assert_eq!(node.group(7).delete().await.unwrap(), 2);
    assert!(node.shutdown(Duration::from_secs(5)).await.is_complete());
}

#[tokio::test]
async fn missing_right_stops_start_and_is_named() {
    for missing in 0..4 {
        let role = Role::new().await;
        let mut grants = role.grants();
        assert_eq!(grants.len(), 4);
        grants.remove(missing);
        role.world.client().await.batch_execute(&grants.concat()).await.unwrap();
        let error = role.connect().await.expect_err("a right is missing");
        assert_eq!(error.kind(), ErrorKind::Permission, "{error:?}");
        assert!(error.to_string().contains("grant") || error.to_string().contains("GRANT"), "{error}");
    }
}

#[tokio::test]
async fn apply_needs_no_create_right_once_the_tables_exist() {
    let role = Role::new().await;
    role.world.client().await.batch_execute(&role.grants().concat()).await.unwrap();
    let mut config = role.world.config();
    config.migrations = Migrations::Apply;
    let url = role.world.url.replace("postgres@", &format!("{}@", role.name));
    let node = SessionManager::connect(&url, config).await.unwrap();
    assert!(node.create(1).await.is_ok());
}

#[tokio::test]
async fn apply_without_rights_names_the_grants_that_are_missing() {
    let role = Role::new().await;
    let mut config = role.world.config();
    config.migrations = Migrations::Apply;
    let url = role.world.url.replace("postgres@", &format!("{}@", role.name));
    let error = SessionManager::connect(&url, config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission);
    let grants = error.to_string().split_once("run: ").expect("it says what to run").1.to_owned();
    assert!(grants.contains(&role.name), "{grants}");
    role.world.client().await.batch_execute(&grants).await.unwrap();
    assert!(role.connect().await.unwrap().create(1).await.is_ok());
}

/// As on Supabase, where each new table in `public` belongs to the visitors of an HTTP gateway.
#[tokio::test]
async fn default_privileges_give_no_one_rights_on_the_tables() {
    let world = World::in_own_database().await;
    let (client, schema) = (world.client().await, &world.schema);
    // Roles belong to the whole server, and other tests may have made these.
    for visitor in ["anon", "authenticated", "web_anon", "reports"] {
        let create =
            format!("DO $$ BEGIN CREATE ROLE {visitor}; EXCEPTION WHEN duplicate_object THEN NULL; END $$");
        client.batch_execute(&create).await.unwrap();
    }
    let setup = format!(
        "CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon, authenticated, web_anon, PUBLIC;
         ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO reports;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO anon, authenticated, web_anon, reports;
         CREATE TABLE {schema}.control ()"
    );
    client.batch_execute(&setup).await.unwrap();
    // A prefix with every character that could end a quotation.
    let mut config = world.config();
    config.table_prefix = "a'b\"c%d$e ".to_owned();
    let node = world.node_with(config).await;
    assert!(node.create(1).await.is_ok());
    let text = "
        SELECT c.relname::text FROM pg_class c, (VALUES ('anon'), ('authenticated'), ('web_anon'), ('reports')) AS v (visitor)
        WHERE c.relnamespace = $1::text::regnamespace AND c.relkind = 'r'
          AND has_table_privilege(v.visitor, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
        UNION SELECT p.proname::text FROM pg_proc p, (VALUES ('anon'), ('authenticated'), ('web_anon'), ('reports')) AS v (visitor)
        WHERE p.pronamespace = $1::text::regnamespace AND has_function_privilege(v.visitor, p.oid, 'EXECUTE')
        UNION SELECT t.typname::text FROM pg_type t, (VALUES ('anon'), ('authenticated'), ('web_anon'), ('reports')) AS v (visitor)
        WHERE t.typnamespace = $1::text::regnamespace AND t.typtype = 'd' AND has_type_privilege(v.visitor, t.oid, 'USAGE')";
    let open: Vec<String> =
        client.query(text, &[schema]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(open, ["control"], "the default privileges give rights, and only on what is not ours");
}
