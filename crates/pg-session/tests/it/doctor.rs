//! Each fault that an operator can make is found, by name, with a fix that works. A healthy server has no finding.

use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, Finding, KeyRing, Migrations, SessionManager, Signer, SigningKey};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::support::{WAIT_MAX, World};

/// How long settings that were reloaded may take to arrive, on a busy machine.
const DURATION_MAX: Duration = Duration::from_secs(10);
/// What all checks together may take. The quickest of many runs counts, as this machine is busy.
const QUICK: Duration = Duration::from_secs(2);
/// The same, while the listener reaches no server.
const WITHOUT_LISTENER: Duration = Duration::from_secs(4);
/// Faults that are planted at least.
const FAULTS_MIN: usize = 25;

/// A fault, and how it is repaired where the finding's fix is no SQL.
struct Fault {
    check: &'static str,
    plant: &'static str,
    repair: Option<&'static str>,
}

const fn fault(check: &'static str, plant: &'static str) -> Fault {
    Fault { check, plant, repair: None }
}

const fn repaired_by(check: &'static str, plant: &'static str, repair: &'static str) -> Fault {
    Fault { check, plant, repair: Some(repair) }
}

/// The role is `app`, which does not own the tables.
const FAULTS: &[Fault] = &[
    repaired_by(
        "connection",
        "ALTER ROLE app SET default_transaction_read_only = on;",
        "ALTER ROLE app RESET default_transaction_read_only;",
    ),
    repaired_by("connection", "ALTER ROLE app NOLOGIN;", "ALTER ROLE app LOGIN;"),
    fault("isolation", "ALTER ROLE app SET default_transaction_isolation = 'serializable';"),
    fault("replication-role", "ALTER ROLE app SET session_replication_role = replica;"),
    fault("fsync", "ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();"),
    fault("fsync", "ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf();"),
    fault("synchronous-commit", "ALTER ROLE app SET synchronous_commit = off;"),
    fault("role-timeout", "ALTER ROLE app SET statement_timeout = '50ms';"),
    fault("role-timeout", "ALTER ROLE app SET lock_timeout = '1s';"),
    repaired_by("clean-up", "SET pg_session.direct_writes = 'on'; INSERT INTO sessions (id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at)
         SELECT gen_random_uuid(), 1, false, now(), now(), now(), now() - interval '2 days' FROM generate_series(1, 10001);
         ANALYZE sessions;",
        "TRUNCATE sessions; VACUUM sessions;"),
    fault("server-log", "ALTER SYSTEM SET log_statement = 'all'; SELECT pg_reload_conf();"),
    repaired_by("missing-table", "ALTER TABLE session_locks RENAME TO lost;", "ALTER TABLE lost RENAME TO session_locks;"),
    repaired_by("not-a-table", "ALTER TABLE session_locks RENAME TO lost; CREATE VIEW session_locks AS SELECT * FROM lost;",
        "DROP VIEW session_locks; ALTER TABLE lost RENAME TO session_locks;"),
    fault("owner", "CREATE ROLE planter; ALTER TABLE session_attributes OWNER TO planter;"),
    fault("owner", "ALTER TABLE sessions OWNER TO planter;"),
    fault("owner", "ALTER ROUTINE session_end_user(uuid, uuid, text) OWNER TO planter;"),
    fault("owner", "ALTER ROUTINE session_update_one OWNER TO planter;"),
    fault("owner", "ALTER DOMAIN session_expiry OWNER TO planter;"),
    fault("unlogged", "ALTER TABLE session_attributes SET UNLOGGED;"),
    fault("row-security", "ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;"),
    fault("schema-right", "REVOKE USAGE ON SCHEMA public FROM app, PUBLIC;"),
    fault("table-right", "REVOKE DELETE ON session_locks FROM app;"),
    fault("table-right", "REVOKE SELECT ON session_migrations FROM app;"),
    fault("table-right", "REVOKE ALL ON sessions, session_migrations FROM app;"),
    fault("function-right", "REVOKE EXECUTE ON FUNCTION session_move_locks(uuid[], uuid[]) FROM app;"),
    fault("table-right", "REVOKE ALL ON sessions, session_labels, session_nodes FROM app;"),
    fault("contract-right", "GRANT EXECUTE ON FUNCTION session_end_user(uuid, uuid, text) TO app;"),
    fault("template", "ALTER DATABASE postgres IS_TEMPLATE true;"),
    fault("planner", "ALTER ROLE app SET enable_nestloop = off;"),
    fault("planner", "ALTER SYSTEM SET enable_hashjoin = off; SELECT pg_reload_conf();"),
    fault("public-right", "GRANT SELECT ON session_audit TO PUBLIC;"),
    fault("disabled-trigger", "SELECT session_audit_on('1 day'); ALTER TABLE sessions DISABLE TRIGGER sessions_audit_delete;"),
    repaired_by("other-table", "ALTER TABLE sessions RENAME TO ours; CREATE TABLE sessions (id text);",
        "DROP TABLE sessions; ALTER TABLE ours RENAME TO sessions;"),
    fault("public-right", "GRANT SELECT ON sessions TO PUBLIC;"),
    fault("visitor-right", "GRANT SELECT ON session_attributes TO anon;"),
    fault("invalid-index", "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'sessions_user_id_idx'::regclass;"),
    fault("disabled-trigger", "ALTER TABLE sessions DISABLE TRIGGER sessions_follow_delete;"),
    fault("disabled-trigger", "ALTER TABLE sessions ENABLE TRIGGER sessions_replicated;"),
    fault("autovacuum", "ALTER TABLE sessions SET (autovacuum_enabled = false);"),
    fault("autovacuum", "ALTER SYSTEM SET autovacuum = off; SELECT pg_reload_conf();"),
    fault("drift", "ALTER TABLE sessions ADD COLUMN note text;"),
    repaired_by("drift", "ALTER TABLE session_locks ALTER COLUMN label TYPE varchar(9);", "ALTER TABLE session_locks ALTER COLUMN label TYPE text;"),
    fault("drift", "CREATE INDEX mine ON sessions (updated_at);"),
    fault("drift", "DROP INDEX sessions_group_id_idx;"),
    fault("drift", "DROP INDEX sessions_expires_at_idx; CREATE INDEX sessions_expires_at_idx ON sessions (expires_at, id);"),
    fault("drift", "DROP TRIGGER sessions_follow_delete ON sessions;"),
    fault("drift", "DROP TRIGGER sessions_check_update ON sessions;
         CREATE TRIGGER sessions_check_update AFTER UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION session_reject_write();"),
    fault("drift", "CREATE TRIGGER mine BEFORE UPDATE ON sessions FOR EACH STATEMENT EXECUTE FUNCTION session_reject_write();"),
    fault("drift", "ALTER FUNCTION sessions_follow() SECURITY DEFINER;"),
    fault("drift", "CREATE OR REPLACE FUNCTION session_contract() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 2';"),
    fault("drift", "CREATE FUNCTION session_other(x text) RETURNS text LANGUAGE sql AS 'SELECT x';"),
    fault("drift", "DROP FUNCTION session_user_of(text);"),
    fault("drift", "ALTER TABLE session_locks DROP CONSTRAINT session_locks_fence_check;"),
    fault("drift", "ALTER TABLE sessions ADD CONSTRAINT mine CHECK (version >= 0);"),
    fault("settings", "DELETE FROM session_settings;"),
    fault("flush", "ALTER SYSTEM SET commit_delay = 100000; ALTER SYSTEM SET commit_siblings = 0; SELECT pg_reload_conf();"),
    repaired_by("not-a-table", "ALTER TABLE session_locks RENAME TO lost; CREATE FOREIGN DATA WRAPPER elsewhere;
         CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere; CREATE FOREIGN TABLE session_locks (name text) SERVER elsewhere;",
        "DROP FOREIGN DATA WRAPPER elsewhere CASCADE; ALTER TABLE lost RENAME TO session_locks;"),
    fault("server-log", "ALTER SYSTEM SET log_parameter_max_length_on_error = -1; SELECT pg_reload_conf();"),
    fault("autovacuum", "ALTER TABLE session_locks SET (autovacuum_enabled = 0);"),
    fault("public-right", "GRANT SELECT (id) ON sessions TO PUBLIC;"),
    fault("visitor-right", "GRANT SELECT (value) ON session_attributes TO anon;"),
    fault("visitor-right", "GRANT app TO anon;"),
    fault("foreign-key", "CREATE TABLE orders (session_id uuid REFERENCES sessions);"),
    repaired_by("publication", "CREATE PUBLICATION every FOR TABLE sessions; ALTER TABLE sessions REPLICA IDENTITY NOTHING;",
        "DROP PUBLICATION every; ALTER TABLE sessions REPLICA IDENTITY DEFAULT;"),
    fault("drift", "CREATE RULE keep AS ON DELETE TO sessions DO INSTEAD NOTHING;"),
    fault("drift", "DROP TRIGGER sessions_follow_delete ON sessions;
         CREATE TRIGGER sessions_follow_delete AFTER DELETE ON sessions REFERENCING OLD TABLE AS gone
         FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION sessions_follow();"),
    fault("drift", "ALTER TABLE session_attributes DROP CONSTRAINT session_attributes_key_check;
         ALTER TABLE session_attributes ADD CONSTRAINT session_attributes_key_check CHECK (true);"),
    fault("drift", "ALTER TABLE sessions ALTER COLUMN has_overflow SET DEFAULT false;"),
    fault("drift", "ALTER TABLE sessions ALTER COLUMN flip DROP DEFAULT;"),
    fault("drift", "ALTER FUNCTION session_end_user(uuid, uuid, text) STRICT;"),
    fault("drift", "ALTER FUNCTION session_locks_wake() SET search_path = public;"),
    fault("isolation", "ALTER ROLE app IN DATABASE postgres SET default_transaction_isolation = 'serializable';"),
    fault("synchronous-commit", "ALTER ROLE app IN DATABASE postgres SET synchronous_commit = off;"),
    fault("role-timeout", "ALTER ROLE app RESET lock_timeout; ALTER DATABASE postgres SET lock_timeout = '1s';"),
    fault("replication-role", "ALTER ROLE app RESET session_replication_role;
         ALTER DATABASE postgres SET session_replication_role = replica;"),
    repaired_by("version", "ALTER FUNCTION pg_catalog.current_setting(text) RENAME TO present_setting;
         CREATE FUNCTION pg_catalog.current_setting(text) RETURNS text LANGUAGE sql STABLE AS $$
             SELECT CASE $1 WHEN 'server_version' THEN '12.22' WHEN 'server_version_num' THEN '120022'
                    ELSE pg_catalog.present_setting($1) END $$;",
        "DROP FUNCTION pg_catalog.current_setting(text);
         ALTER FUNCTION pg_catalog.present_setting(text) RENAME TO current_setting;"),
    repaired_by("clock", "ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO present_time;
         CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
             SELECT pg_catalog.present_time() + interval '1 hour' $$;",
        "DROP FUNCTION pg_catalog.clock_timestamp(); ALTER FUNCTION pg_catalog.present_time() RENAME TO clock_timestamp;"),
    repaired_by("synchronous-standby", "ALTER SYSTEM SET synchronous_standby_names = 'lost'; SELECT pg_reload_conf();",
        "ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf();"),
];

pub struct Patient {
    /// Of the application's role.
    pub url: String,
    /// As the owner of the tables.
    pub client: Client,
    pub sandbox: Sandbox,
}

impl Patient {
    async fn new() -> Self {
        Self::on(Sandbox::builder().durable(true).start().expect("PostgreSQL starts")).await
    }

    pub async fn on(sandbox: Sandbox) -> Self {
        let world = World { schema: "public".to_owned(), ..World::on(&sandbox) };
        let mut config = Config::default();
        config.migrations = Migrations::Apply;
        let owner = SessionManager::connect(&sandbox.url(), config).await.expect("the tables are made");
        assert!(owner.shutdown(Duration::from_secs(5)).await.is_complete());
        let client = world.client().await;
        client.batch_execute("CREATE ROLE app LOGIN; CREATE ROLE anon;").await.unwrap();
        let operations = include_str!("../../../../docs/operations.md");
        let grants = operations.split("```sql").nth(1).and_then(|rest| rest.split("```").next());
        client.batch_execute(grants.expect("the grants come first")).await.unwrap();
        Self { url: sandbox.url().replace("postgres@", "app@"), client, sandbox }
    }

    pub async fn diagnose(&self) -> Vec<Finding> {
        let mut config = Config::default();
        config.migrations = Migrations::Check;
        let builder = SessionManager::builder(config).url(&self.url).expect("the URL is valid");
        builder.diagnose().await.expect("the server answers")
    }

    /// Statement by statement: some do not run in a transaction block. A function's body has statements of its own.
    pub async fn run(&self, statements: &str) {
        if statements.contains("$pg_session$") {
            return self.client.batch_execute(statements).await.expect(statements);
        }
        for statement in statements.split_inclusive(';').filter(|text| !text.trim().is_empty()) {
            self.client
                .batch_execute(statement)
                .await
                .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
    }

    /// A server without a fault. Flushes and answers may be slow for a moment beside other tests.
    pub async fn assert_healthy(&self, what: &str) {
        assert_eq!(self.diagnose_until(|findings| findings.is_empty()).await, [], "{what}");
    }

    /// Settings that were reloaded arrive at other processes a moment later.
    async fn diagnose_until(&self, done: impl Fn(&[Finding]) -> bool) -> Vec<Finding> {
        let began = Instant::now();
        loop {
            let findings = self.diagnose().await;
            if done(&findings) || began.elapsed() > DURATION_MAX {
                return findings;
            }
        }
    }
}

#[tokio::test]
async fn the_doctor_finds_each_fault_and_its_fix_works() {
    let patient = Patient::new().await;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(SessionManager::connect(&patient.url, Config::default()).await.expect("the node starts"));
    }
    let (mut quickest, began) = (Duration::MAX, Instant::now());
    while quickest > QUICK {
        let begin = Instant::now();
        patient.assert_healthy("three nodes on a healthy server").await;
        quickest = begin.elapsed().min(quickest);
        assert!(began.elapsed() < WAIT_MAX, "each run took {quickest:?} or more");
    }
    drop(nodes);
    assert!(FAULTS.len() >= FAULTS_MIN);
    for Fault { check, plant, repair } in FAULTS {
        patient.run(plant).await;
        let findings = patient.diagnose_until(|findings| !findings.is_empty()).await;
        assert!(findings.iter().any(|finding| finding.check == *check), "{plant}: {findings:?}");
        for finding in &findings {
            assert!(!finding.message.is_empty() && !finding.fix.is_empty(), "{finding:?}");
            assert!(!finding.message.contains('\n') && finding.page.contains(".md#"), "{finding:?}");
            if repair.is_none() && finding.check == *check {
                patient.run(&finding.fix).await;
            }
        }
        patient.run(repair.unwrap_or_default()).await;
        let findings = patient.diagnose_until(<[Finding]>::is_empty).await;
        assert_eq!(findings, [], "{plant}");
    }
}

#[tokio::test]
async fn an_overload_of_a_contract_function_is_one_finding() {
    let patient = Patient::new().await;
    patient
        .run("CREATE FUNCTION session_user_of(a text, b text) RETURNS text LANGUAGE sql AS 'SELECT a';")
        .await;
    let findings = patient.diagnose_until(|findings| !findings.is_empty()).await;
    let [finding] = &findings[..] else { panic!("one finding: {findings:?}") };
    assert_eq!(finding.check, "drift");
    assert!(finding.message.contains("session_user_of(text, text)"), "{finding:?}");
    patient.run(&finding.fix).await;
    assert_eq!(patient.diagnose_until(<[Finding]>::is_empty).await, []);
}

#[tokio::test]
async fn a_table_of_another_role_is_one_finding() {
    let patient = Patient::new().await;
    patient.run("CREATE ROLE auditor; ALTER TABLE session_labels OWNER TO auditor;").await;
    let findings = patient.diagnose().await;
    let [finding] = &findings[..] else { panic!("one finding: {findings:?}") };
    assert_eq!(finding.check, "owner");
    assert_eq!(finding.fix, "ALTER TABLE public.session_labels OWNER TO postgres;");
    // It is none of the library's.
    patient
        .run(
            "ALTER TABLE session_labels OWNER TO postgres; CREATE TABLE child () INHERITS (session_labels);
              ALTER TABLE child OWNER TO auditor;",
        )
        .await;
    let findings = patient.diagnose().await;
    assert!(
        findings.iter().any(|finding| finding.check == "owner" && finding.fix.starts_with("drop it, or,"))
    );
}

/// It drops what is left, then the migrations run. They replace nothing.
#[tokio::test]
async fn the_fix_of_a_lost_table_makes_room_for_all_tables() {
    let patient = Patient::new().await;
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    for lost in ["session_locks", "sessions", "session_migrations"] {
        patient.run(&format!("DROP TABLE {lost} CASCADE;")).await;
        let builder = SessionManager::builder(Config::default()).url(&patient.sandbox.url()).expect("a URL");
        let findings = builder.diagnose().await.expect("the server answers");
        let finding = findings.iter().find(|finding| finding.check == "missing-table").expect("a finding");
        assert!(finding.message.contains(lost), "{finding:?}");
        let (statements, advice) = finding.fix.split_once(" -- ").expect("statements, then advice");
        assert!(advice.contains("pg-session migrate") && advice.contains("GRANT"), "{finding:?}");
        assert!(advice.contains("deletes the audit log"), "{finding:?}");
        patient.run(statements).await;
        let url = patient.sandbox.url();
        let owner = SessionManager::connect(&url, config.clone()).await.expect("the tables are made");
        assert!(owner.create(1).await.is_ok());
        assert!(owner.shutdown(Duration::from_secs(5)).await.is_complete());
    }
}

#[tokio::test]
async fn the_doctor_names_the_process_of_an_old_transaction() {
    let patient = Patient::new().await;
    // Without the rights of pg_monitor, a role sees the transactions of its own connections only.
    let own = World { url: patient.url.clone(), schema: "public".to_owned() }.client().await;
    own.batch_execute("BEGIN; SELECT 1").await.unwrap();
    assert_eq!(patient.diagnose().await, [], "a young transaction is no finding");
    // The limit grows with the timeout. With such a short one, an attempt may fail.
    let mut config = Config::default();
    config.query_timeout = Duration::from_millis(50);
    let began = Instant::now();
    let finding = loop {
        let builder = SessionManager::builder(config.clone()).url(&patient.url).expect("the URL is valid");
        let findings = builder.diagnose().await.unwrap_or_default();
        if let Some(finding) = findings.into_iter().find(|finding| finding.check == "old-transaction") {
            break finding;
        }
        assert!(began.elapsed() < WAIT_MAX, "the transaction is old by now");
    };
    let pid: i32 = own.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    assert_eq!(finding.fix, format!("SELECT pg_terminate_backend({pid});"));
}

/// ```text
/// client      BEGIN ── LOCK TABLE sessions ───────────────── terminated
/// other       BEGIN ────── LOCK TABLE session_nodes ──────── terminated
/// doctor                        looks            looks again
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_the_processes_that_lock_a_table() {
    let patient = Patient::new().await;
    let world = World { schema: "public".to_owned(), ..World::on(&patient.sandbox) };
    let mut expected = Vec::new();
    let mut clients = Vec::new();
    for table in ["sessions", "session_nodes"] {
        let client = world.operator().await;
        client.batch_execute(&format!("BEGIN; LOCK TABLE public.{table}")).await.expect("a lock");
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        expected.push(format!("SELECT pg_terminate_backend({pid});"));
        clients.push(client);
    }
    let (mut quickest, began) = (Duration::MAX, Instant::now());
    let findings = loop {
        let begin = Instant::now();
        let findings = patient.diagnose().await;
        quickest = begin.elapsed().min(quickest);
        if quickest <= QUICK {
            break findings;
        }
        assert!(began.elapsed() < WAIT_MAX, "each run took {quickest:?} or more");
    };
    assert!(findings.iter().all(|finding| finding.check == "lock"), "{findings:?}");
    expected.sort();
    let mut fixes: Vec<String> = findings.iter().map(|finding| finding.fix.clone()).collect();
    fixes.sort();
    assert_eq!(fixes, expected);
    for finding in &findings {
        assert!(finding.message.contains("holds AccessExclusiveLock on public.session"), "{finding:?}");
        patient.run(&finding.fix).await;
    }
    assert_eq!(patient.diagnose_until(<[Finding]>::is_empty).await, []);
    drop(clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_nodes_that_differ() {
    let patient = Patient::new().await;
    let node = SessionManager::connect(&patient.url, Config::default()).await.expect("the node starts");
    let mut config = Config::default();
    config.idle_timeout = Duration::from_secs(3_600);
    let other = SessionManager::connect(&patient.url, config).await.expect("the node starts");
    patient.run("UPDATE session_nodes SET version = '0.0.1' WHERE settings LIKE '%\"3600000\"%';").await;
    // A busy machine may answer too late.
    let findings = patient.diagnose_until(|findings| findings.len() == 2).await;
    let checks: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["node-settings", "node-versions"], "{findings:?}");
    assert!(findings[0].message.contains(": idle_timeout_ms"), "{findings:?}");
    assert!(other.shutdown(Duration::from_secs(5)).await.is_complete());
    patient.assert_healthy("one node is left").await;
    drop(node);
}

/// ```text
/// first node      signs with the new key, knows the old one
/// second node     signs with the old key, and knows no other
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_keys_that_are_missing_or_unused() {
    let patient = Patient::new().await;
    let [old, new] = [1, 2].map(|byte| SigningKey::from_bytes(&[byte; 32]).expect("a key"));
    let mut config = Config::default();
    config.trust_window = Duration::from_secs(1);
    let start = async || SessionManager::connect(&patient.url, config.clone()).await.expect("a node starts");
    let (first, second) = (start().await, start().await);
    let signer = Signer::new(KeyRing::from_keys([&new, &old]).expect("two keys"));
    first.report_keys(&signer);
    let behind = Signer::from(old.clone());
    second.report_keys(&behind);

    let findings = patient.diagnose_until(|findings| findings.len() == 1).await;
    assert_eq!(findings[0].check, "missing-key");
    assert!(findings[0].message.contains(&new.id().to_string()), "{findings:?}");
    behind.replace(signer.ring());
    assert_eq!(patient.diagnose_until(<[Finding]>::is_empty).await, []);

    // As if the nodes had run for three days. Sessions may be idle for two.
    patient.run("UPDATE session_nodes SET registered_at = registered_at - interval '3 days'").await;
    let findings = patient.diagnose_until(|findings| findings.len() == 1).await;
    assert_eq!(findings[0].check, "unused-key");
    let message = &findings[0].message;
    assert!(message.contains(&old.id().to_string()) && message.contains("for 72 hours"), "{message}");

    // One node verifies what the old key signed: the key is in use.
    let session = first.create(1).await.expect("a session");
    let token = Signer::from(old).issue(session.id(), session.version());
    signer.verify(token.expose()).expect("the old key is known");
    assert_eq!(patient.diagnose_until(<[Finding]>::is_empty).await, []);
}

/// ```text
/// three nodes     sign with one key
/// fourth node     signs with a foreign key
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_tells_the_node_with_a_foreign_key_to_change() {
    let patient = Patient::new().await;
    let [common, foreign] = [1, 2].map(|byte| SigningKey::from_bytes(&[byte; 32]).expect("a key"));
    let mut config = Config::default();
    config.trust_window = Duration::from_secs(1);
    let mut nodes = Vec::new();
    for key in [&common, &common, &common, &foreign] {
        let name = if nodes.len() < 3 { "right" } else { "wrong" };
        let url = format!(
            "{}{}application_name={name}",
            patient.url,
            if patient.url.contains('?') { '&' } else { '?' }
        );
        let node = SessionManager::connect(&url, config.clone()).await.expect("a node starts");
        let signer = Signer::from(key.clone());
        node.report_keys(&signer);
        nodes.push((node, signer));
    }
    let findings = patient.diagnose_until(|findings| findings.len() == 2).await;
    for key in [&common, &foreign] {
        let of_key = format!("with the key {}", key.id());
        let finding = findings.iter().find(|finding| finding.message.contains(&of_key));
        let finding = finding.unwrap_or_else(|| panic!("{of_key}: {findings:?}"));
        assert_eq!(finding.check, "missing-key");
        assert!(
            finding.message.contains("3 nodes (") && finding.message.contains("the node "),
            "{finding:?}"
        );
        assert!(finding.fix.contains("wrong") && !finding.fix.contains("right"), "{finding:?}");
    }
    let (_, signer) = &nodes[3];
    signer.replace(KeyRing::new(&common));
    assert_eq!(patient.diagnose_until(<[Finding]>::is_empty).await, []);
}

#[tokio::test]
async fn the_doctor_finds_listeners_of_another_database() {
    let patient = Patient::new().await;
    patient.run("CREATE DATABASE elsewhere;").await;
    let elsewhere = format!("{}/elsewhere", patient.url.rsplit_once('/').expect("a URL").0);
    let mut config = Config::default();
    config.query_timeout = Duration::from_secs(2);
    let builder = SessionManager::builder(config).url(&patient.url).expect("the URL is valid");
    let builder = builder.listen_on_url(&elsewhere).expect("the URL is valid");
    let findings = builder.diagnose().await.expect("the server answers");
    let [finding] = &findings[..] else { panic!("one finding: {findings:?}") };
    assert_eq!(finding.check, "start");
    assert!(finding.message.contains("different databases"), "{finding:?}");
}

/// ```text
/// one client      NOTIFY ── COMMIT ── waits for a standby ─────────────────
/// four clients         NOTIFY ── COMMIT waits for the lock of the first ─────
/// doctor                                       looks
/// ```
#[tokio::test]
async fn the_doctor_finds_commits_that_wait_to_notify() {
    let sandbox = Sandbox::builder()
        .durable(true)
        .setting("synchronous_standby_names", "lost")
        .setting("synchronous_commit", "local")
        .start()
        .expect("PostgreSQL starts");
    let world = World { schema: "public".to_owned(), ..World::on(&sandbox) };
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let owner = SessionManager::connect(&sandbox.url(), config.clone()).await.expect("the tables are made");
    assert!(owner.shutdown(Duration::from_secs(5)).await.is_complete());
    let mut notifiers = Vec::new();
    for n in 0..5 {
        let client = world.operator().await;
        let script =
            format!("SET synchronous_commit = on; BEGIN; CREATE TABLE x{n} (); NOTIFY other; COMMIT");
        notifiers.push(tokio::spawn(async move { client.batch_execute(&script).await }));
    }
    config.query_timeout = Duration::from_secs(1);
    let began = Instant::now();
    loop {
        let builder = SessionManager::builder(config.clone()).url(&world.url).expect("the URL is valid");
        let findings = builder.diagnose().await.expect("findings");
        let is_found = |check: &str| findings.iter().any(|finding| finding.check == check);
        if is_found("notify-lock") && is_found("standby-wait") {
            break;
        }
        assert!(began.elapsed() < WAIT_MAX, "{findings:?}");
    }
    notifiers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn the_doctor_of_a_standby_says_so() {
    let sandbox = Sandbox::builder().durable(true).start().expect("PostgreSQL starts");
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let owner = SessionManager::connect(&sandbox.url(), config.clone()).await.expect("the tables are made");
    assert!(owner.shutdown(Duration::from_secs(5)).await.is_complete());
    let standby = sandbox.standby().start().expect("a standby starts");
    let builder = SessionManager::builder(config).url(&standby.url()).expect("the URL is valid");
    let findings = builder.diagnose().await.expect("a finding");
    let [at, finding] = &findings[..] else { panic!("two findings: {findings:?}") };
    assert_eq!((at.check, finding.check), ("standby", "connection"));
    assert!(at.fix.contains("Give the address of the primary"), "{at:?}");
    assert!(finding.message.contains("standby"), "{finding:?}");
}

/// The cause decides what the doctor says, and where it leads.
#[tokio::test]
async fn the_doctor_tells_causes_of_lost_connections_apart() {
    let patient = Patient::new().await;
    let diagnose = async |url: &str| {
        let builder = SessionManager::builder(Config::default()).url(url).expect("the URL is valid");
        let findings = builder.diagnose().await.expect("a finding");
        let [finding] = &findings[..] else { panic!("one finding: {findings:?}") };
        assert_eq!(finding.check, "connection");
        finding.clone()
    };
    let unknown = patient.url.replace("app@", "unknown@");
    for url in [&*unknown, "postgres://app@127.0.0.1:1/app"] {
        let finding = diagnose(url).await;
        assert!(!finding.fix.contains("read_only"), "{finding:?}");
        assert_eq!(finding.page, "docs/connection-errors.md#connections");
    }
    patient.run("ALTER ROLE app SET default_transaction_read_only = on;").await;
    let finding = diagnose(&patient.url).await;
    assert!(finding.fix.contains("RESET default_transaction_read_only"), "{finding:?}");
    assert_eq!(finding.page, "docs/runbooks.md#failover");
}

/// A refused port, and a server that accepts connections and is silent.
#[tokio::test]
async fn the_doctor_waits_briefly_for_a_listener_without_server() {
    let patient = Patient::new().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    for (address, cause) in [("127.0.0.1:1", "refused"), (&*address, "no answer within 2 s")] {
        let url = patient.url.replace(&patient.sandbox.addr().to_string(), address);
        let (mut quickest, began) = (Duration::MAX, Instant::now());
        while quickest > WITHOUT_LISTENER {
            let begin = Instant::now();
            let builder = SessionManager::builder(Config::default()).url(&patient.url).expect("a URL");
            let builder = builder.listen_on_url(&url).expect("a URL");
            let findings = builder.diagnose().await.expect("a finding");
            quickest = begin.elapsed().min(quickest);
            let [finding] = &findings[..] else { panic!("one finding: {findings:?}") };
            assert_eq!(finding.check, "start");
            assert!(finding.message.contains("the listener reaches no server"), "{finding:?}");
            assert!(finding.message.contains(cause), "{finding:?}");
            assert!(began.elapsed() < WAIT_MAX, "each run took {quickest:?} or more");
        }
    }
}
