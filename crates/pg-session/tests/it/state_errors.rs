//! The page about connection errors: each state of a server or a database is made, and the text on the page is the error's
//! own.

use deadpool_postgres::{Manager, Pool};
use pg_sandbox::{PoolMode, Pooler, Sandbox};
use pg_session::{Config, Error, Migrations, SessionManager, StatementMode};
use tokio_postgres::{Client, NoTls};

use crate::connection_errors::compare;
use crate::fixtures::driver_config;
use crate::listener_refused::answering;
use crate::support::World;

const HEADING: &str = "States";

struct States {
    world: World,
    client: Client,
    found: Vec<String>,
}

impl States {
    async fn on(sandbox: &Sandbox) -> Self {
        let world = World { schema: "auth".to_owned(), url: sandbox.url() };
        let client = world.client().await;
        Self { world, client, found: Vec::new() }
    }

    async fn run(&self, script: &str) {
        self.client.batch_execute(script).await.unwrap_or_else(|error| panic!("{script}: {error:?}"));
    }

    fn checking(&self) -> Config {
        let mut config = self.world.config();
        config.migrations = Migrations::Check;
        config.query_timeout = std::time::Duration::from_secs(5);
        config
    }

    fn url(&self, role: &str) -> String {
        self.world.url.replace("postgres@", &format!("{role}@"))
    }

    fn add(&mut self, state: &str, error: &Error) {
        self.found.push(format!("| {state} | `{:?}` | {error} |", error.kind()));
    }

    async fn refuse(&mut self, state: &str, url: &str, config: Config) {
        let error = SessionManager::connect(url, config).await.expect_err(state);
        self.add(state, &error);
    }

    async fn rights(&mut self) {
        let (admin, app, checking) = (self.url("postgres"), self.url("app"), self.checking());
        self.run("CREATE ROLE app LOGIN").await;
        self.refuse("the tables are missing", &admin, checking.clone()).await;
        self.refuse("the tables are missing, and the role may not create them", &app, self.world.config())
            .await;
        self.run(
            "CREATE SCHEMA auth; GRANT USAGE, CREATE ON SCHEMA auth TO app; SET ROLE app;
             CREATE VIEW auth.sessions AS SELECT 1 AS id; RESET ROLE",
        )
        .await;
        let state = "another role has made an object with a name of the library";
        self.refuse(state, &admin, self.world.config()).await;
        self.run("DROP SCHEMA auth CASCADE; CREATE SCHEMA auth; CREATE TABLE auth.sessions (id text)").await;
        let state = "another application has a table with a name of the library";
        self.refuse(state, &admin, self.world.config()).await;
        self.run("DROP TABLE auth.sessions; CREATE TABLE auth.session_migrations (id int)").await;
        let state = "another tool has a table with the name of the record";
        self.refuse(state, &admin, self.world.config()).await;
        self.run("DROP SCHEMA auth CASCADE").await;
        self.world.node().await;
        self.refuse("the role has no rights", &app, checking.clone()).await;
        self.run("GRANT USAGE ON SCHEMA auth TO app; GRANT ALL ON ALL TABLES IN SCHEMA auth TO app").await;
        self.run("REVOKE DELETE ON auth.session_locks FROM app").await;
        self.refuse("the role lacks one right", &app, checking.clone()).await;
        self.run("GRANT ALL ON ALL TABLES IN SCHEMA auth TO app").await;
        self.run("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA auth TO app").await;
        self.run("ALTER TABLE auth.sessions ENABLE ROW LEVEL SECURITY").await;
        self.refuse("row-level security is on", &app, checking.clone()).await;
        self.run("ALTER TABLE auth.sessions DISABLE ROW LEVEL SECURITY").await;
        let node = SessionManager::connect(&app, checking).await.expect("all rights");
        self.run("REVOKE INSERT ON auth.sessions FROM app").await;
        self.add("a right is taken from a running node", &node.create(1).await.unwrap_err());
    }

    async fn versions(&mut self) {
        let (admin, checking) = (self.url("postgres"), self.checking());
        self.run("UPDATE auth.session_migrations SET version = 0").await;
        self.refuse("the last migration is missing", &admin, checking.clone()).await;
        self.run("UPDATE auth.session_migrations SET version = 1000").await;
        self.refuse("the tables are newer than the library", &admin, checking).await;
        self.run("UPDATE auth.session_migrations SET version = 1").await;
    }

    async fn settings(&mut self) {
        let checking = self.checking();
        self.run("CREATE ROLE odd SUPERUSER LOGIN").await;
        self.run("ALTER ROLE odd SET default_transaction_isolation = 'repeatable read'").await;
        self.refuse("transactions have one snapshot", &self.url("odd"), checking.clone()).await;
        self.run("ALTER ROLE odd RESET ALL; ALTER ROLE odd SET session_replication_role = replica").await;
        self.refuse("the triggers do not run", &self.url("odd"), checking.clone()).await;
        self.run("ALTER ROLE odd RESET ALL; ALTER ROLE odd SET default_transaction_read_only = on").await;
        self.refuse("the server is read-only", &self.url("odd"), checking.clone()).await;
        self.run("ALTER ROLE odd RESET ALL; ALTER ROLE odd SET search_path = auth, pg_catalog").await;
        let manager = Manager::new(driver_config(&self.url("odd")), NoTls);
        let pool = Pool::builder(manager).max_size(4).build().expect("a pool");
        let builder = SessionManager::builder(checking).pool(pool).listen_on(driver_config(&self.world.url));
        self.add("the search_path of an application's pool", &builder.connect().await.unwrap_err());
    }

    async fn listeners(&mut self, sandbox: &Sandbox) {
        self.run("CREATE DATABASE other").await;
        self.run("CREATE ROLE shut").await;
        let other = self.world.url.rsplit_once('/').map(|(server, _)| format!("{server}/other"));
        for (state, address) in [
            ("the listener is on another database", other.expect("a database")),
            ("the listener's role may not log in", self.url("shut")),
            ("the listener's address is that of another service", answering(b"").await),
        ] {
            let builder = SessionManager::builder(self.checking()).url(&self.world.url).expect("a URL");
            let error = builder.listen_on(driver_config(&address)).connect().await.expect_err(state);
            self.add(state, &error);
        }
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            let pooler = Pooler::builder(sandbox.addr(), mode).start().expect("pgbouncer starts");
            let state = format!("the listener is behind pgbouncer, {mode:?} mode").to_lowercase();
            self.refuse(&state, &pooler.url(), self.checking()).await;
        }
    }

    async fn poolers(&mut self, sandbox: &Sandbox) {
        for (mode, state) in [
            (PoolMode::Statement, "the pool is behind pgbouncer in statement mode"),
            (
                PoolMode::Transaction,
                "the pool is behind pgbouncer in transaction mode, `statement_mode` is prepared",
            ),
        ] {
            let pooler = Pooler::builder(sandbox.addr(), mode).start().expect("pgbouncer starts");
            let mut config = self.checking();
            config.statement_mode = StatementMode::Prepared;
            let builder = SessionManager::builder(config).url(&pooler.url()).expect("a URL");
            let error = builder.listen_on(driver_config(&self.world.url)).connect().await.expect_err(state);
            self.add(state, &error);
        }
    }

    async fn room(&mut self) {
        let node = SessionManager::connect(&self.url("postgres"), self.checking()).await.expect("a node");
        for (code, state) in [
            ("53100", "the server's disk is full"),
            ("53200", "the server has no memory or no room for locks"),
        ] {
            self.run(&format!(
                "CREATE FUNCTION auth.full() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE 'no room' USING ERRCODE = '{code}'; END $$;
                 CREATE TRIGGER is_full BEFORE INSERT ON auth.sessions EXECUTE FUNCTION auth.full()"
            ))
            .await;
            let error = node.create(1).await.expect_err(state);
            assert!(error.is_retryable(), "{error:?}");
            self.add(state, &error);
            self.run("DROP FUNCTION auth.full CASCADE").await;
            node.create(1).await.expect("there is room again");
        }
    }

    async fn changes(&mut self) {
        let node = SessionManager::connect(&self.url("postgres"), self.checking()).await.expect("a node");
        self.run("DROP TABLE auth.session_attributes").await;
        let large = "x".repeat(2_000);
        let error = node.create(1).set("a", &large).await.unwrap_err();
        self.add("a table disappears while a node runs", &error);
        let latin = "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
        self.run(latin).await;
        let (server, _) = self.world.url.rsplit_once('/').expect("a database");
        let node =
            SessionManager::connect(&format!("{server}/latin"), self.world.config()).await.expect("a node");
        let error = node.create(1).set("price", &"5 \u{20ac}").await.unwrap_err();
        self.add("the database's encoding lacks a character", &error);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_of_a_server_have_the_errors_on_the_page() {
    let sandbox = Sandbox::start().unwrap();
    let mut states = States::on(&sandbox).await;
    states.rights().await;
    states.versions().await;
    states.settings().await;
    states.listeners(&sandbox).await;
    states.poolers(&sandbox).await;
    states.room().await;
    states.changes().await;
    compare(&states.found, HEADING);
}
