//! `pg-session plan`: its prediction, compared with three nodes.

use std::time::{Duration, Instant};

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, SessionManager};
use serde_json::Value;

use crate::support::Program;

/// Slow enough that the flush, not this machine, limits the nodes.
const FLUSH_MICROS: &str = "20000";
/// Logins of each node that are made at once.
const CONCURRENT: u32 = 8;
const MEASURED_FOR: Duration = Duration::from_secs(3);
/// The quickest counts: the others have met something else on this machine.
const ATTEMPTS: usize = 3;
/// What the prediction may be off by, in either direction.
const FACTOR: f64 = 2.0;

/// The logins that a node makes until the time is over.
async fn log_in(node: SessionManager, user: u32, until: Instant) -> u32 {
    let mut logins = 0;
    while Instant::now() < until {
        node.create(i64::from(user)).await.expect("a login");
        logins += 1;
    }
    logins
}

/// Logins a second, of all nodes. Each ends the session of the one before.
async fn rate(nodes: &[SessionManager]) -> f64 {
    let began = Instant::now();
    let mut logins = tokio::task::JoinSet::new();
    for (at, node) in (0..).zip(nodes) {
        for n in 0..CONCURRENT {
            logins.spawn(log_in(node.clone(), at * CONCURRENT + n, began + MEASURED_FOR));
        }
    }
    let count: u32 = logins.join_all().await.into_iter().sum();
    f64::from(count) / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_reach_the_limit_that_the_plan_names() {
    let sandbox = Sandbox::builder()
        .durable(true)
        .setting("commit_delay", FLUSH_MICROS)
        .setting("commit_siblings", "0")
        .start()
        .expect("PostgreSQL starts");
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    config.sessions_per_user_max = 1;
    // Commits that nodes do not combine: the first limit.
    config.write_batch_max = 1;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(SessionManager::connect(&sandbox.url(), config.clone()).await.expect("the node starts"));
    }
    let args = ["plan", "--nodes", "3", "--updates", "0", "--logins", "1000", "--json"];
    let end = Program::start(&[&args[..], &["--database-url", &sandbox.url()]].concat()).finish();
    assert_eq!(end.code, Some(0), "{end:?}");
    let plan: Value = serde_json::from_str(&end.out).expect("JSON");
    let limits = plan["limits"].as_array().expect("a list");
    let limit = limits.iter().find(|limit| limit["limit"] == "single commits").expect("the limit");
    let predicted = 1_000.0 * limit["load_factor"].as_f64().expect("a number");

    let mut measured = 0.0_f64;
    for _ in 0..ATTEMPTS {
        measured = measured.max(rate(&nodes).await);
        if predicted < measured * FACTOR {
            break;
        }
    }
    println!("predicted {predicted:.1} logins a second, measured {measured:.1}");
    assert!(
        predicted / measured < FACTOR && measured / predicted < FACTOR,
        "predicted {predicted:.1} logins a second, measured {measured:.1}: {plan}"
    );
}
