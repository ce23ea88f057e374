//! Faults of a busy server, all at once: the doctor finds each, and its fixes work in the order of the findings.

use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, Finding, SessionManager};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::doctor::Patient;
use crate::support::{WAIT_MAX, World};

/// Three of them are reserved for superusers. The doctor finds nine tenths of the others in use.
const CONNECTIONS_MAX: usize = 40;
/// Connections beside that of the doctor, from which on it finds too many.
const CONNECTIONS: usize = 33;
/// Those of the other faults.
const OF_FAULTS: usize = 3;
/// Of 8 MB each: together more than a hundredth of the notification queue, which has 8 GB.
const NOTIFICATIONS: usize = 11;

/// With a timeout that is so short that a transaction of six seconds is an old one.
const IMPATIENT: Duration = Duration::from_millis(50);

const EXPECTED: [&str; 8] = [
    "notification-queue",
    "old-transaction",
    "prepared-transaction",
    "connections",
    "wraparound",
    "statistics",
    "dead-rows",
    "hot-updates",
];

fn names(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.check).collect()
}

/// Connections that do nothing.
async fn idle(world: &World, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(world.operator().await);
    }
    clients
}

/// ```text
/// app        BEGIN ────────────────────────────────── old ── terminated
/// prepared   PREPARE TRANSACTION ──────────────────── old ── rolled back
/// listener   LISTEN ── BEGIN ── 88 MB are not read ───────── terminated
/// ```
async fn plant(patient: &Patient, world: &World) -> [Client; 2] {
    let app = World { url: patient.url.clone(), schema: "public".to_owned() }.operator().await;
    app.batch_execute("BEGIN; SELECT 1").await.expect("a transaction");
    patient.run("BEGIN; SELECT 1; PREPARE TRANSACTION 'it''s forgotten';").await;
    let listener = world.operator().await;
    listener.batch_execute("LISTEN lag").await.expect("a listener");
    listener.batch_execute("BEGIN; SELECT 1").await.expect("a transaction");
    for _ in 0..NOTIFICATIONS {
        let text = "SELECT count(pg_notify('lag', repeat('.', 7980) || n)) FROM generate_series(1, 1000) n";
        patient.client.batch_execute(text).await.expect("notifications");
    }
    // What a client has counted is known to others when it has ended.
    let writer = world.client().await;
    writer
        .batch_execute(
            "ALTER TABLE sessions SET (fillfactor = 100);
             INSERT INTO sessions (id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at)
             SELECT gen_random_uuid(), 1, false, now(), now(), now(), now() + interval '1 day' FROM generate_series(1, 2000);
             UPDATE sessions SET version = version + 1;
             INSERT INTO session_attributes (session_id, key, value, version)
             SELECT gen_random_uuid(), 'k', 'v', 1 FROM generate_series(1, 11000);
             DELETE FROM session_attributes",
        )
        .await
        .expect("rows");
    drop(writer);
    // As 1 100 million transactions later.
    patient
        .run(
            "UPDATE pg_database SET datfrozenxid = ((txid_current() + 4294967296 - 1100000000) % 4294967296)::text::xid
             WHERE datname = current_database();",
        )
        .await;
    [app, listener]
}

async fn diagnose_impatiently(patient: &Patient) -> Vec<Finding> {
    let mut config = Config::default();
    config.query_timeout = IMPATIENT;
    let began = Instant::now();
    loop {
        let builder = SessionManager::builder(config.clone()).url(&patient.url).expect("the URL is valid");
        // With such a timeout, an attempt may fail.
        let findings = builder.diagnose().await.unwrap_or_default();
        if names(&findings) == EXPECTED {
            return findings;
        }
        assert!(began.elapsed() < WAIT_MAX, "{findings:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_faults_of_a_busy_server_and_fixes_work() {
    let sandbox = Sandbox::builder()
        .durable(true)
        .setting("max_connections", &CONNECTIONS_MAX.to_string())
        .setting("max_prepared_transactions", "1")
        // It would mend some of them.
        .setting("autovacuum_naptime", "1h")
        .start()
        .expect("PostgreSQL starts");
    let patient = Patient::on(sandbox).await;
    let world = World { schema: "public".to_owned(), ..World::on(&patient.sandbox) };
    patient.assert_healthy("a server without a fault").await;
    let mut clients = idle(&world, CONNECTIONS - OF_FAULTS - 1).await;
    let _planted = plant(&patient, &world).await;
    assert_eq!(patient.diagnose().await.iter().filter(|found| found.check == "connections").count(), 0);
    clients.extend(idle(&world, 1).await);

    let mut findings = diagnose_impatiently(&patient).await;
    let began = Instant::now();
    while names(&findings) != ["connections"] {
        for finding in findings.iter().filter(|finding| finding.check != "connections") {
            assert!(!finding.message.contains('\n'), "{finding:?}");
            let comment = finding.fix.split_once(" -- ").map_or("", |(_, comment)| comment);
            assert!(!comment.contains('\n'), "{finding:?}");
            patient.run(&finding.fix).await;
        }
        assert!(began.elapsed() < WAIT_MAX, "{findings:?}");
        // Those that were terminated are missing.
        let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
        let others: i64 = patient.client.query_one(count, &[]).await.expect("the server answers").get(0);
        let missing = CONNECTIONS.saturating_sub(usize::try_from(others).expect("a few"));
        clients.extend(idle(&world, missing).await);
        findings = patient.diagnose().await;
    }

    let [finding] = &findings[..] else { panic!("one finding: {findings:?}") };
    assert!(finding.message.ends_with("by the role postgres"), "{finding:?}");
    patient.run(&finding.fix).await;
    patient.sandbox.restart().expect("PostgreSQL starts again");
    let _clients = idle(&world, CONNECTIONS).await;
    patient.assert_healthy("after the last fix").await;
}
