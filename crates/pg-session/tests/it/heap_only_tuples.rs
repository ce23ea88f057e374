//! HOT: nearly every update of both tables stays on its page and touches no index.

use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Session, SessionManager};

use crate::clocks::Clocks;
use crate::support::{World, eventually};

const SESSIONS: i64 = 400;
const ROUNDS: u32 = 40;
/// Accesses that are written together.
const BATCH: usize = 100;

async fn sessions(node: &SessionManager) -> Vec<Session> {
    let creates: Vec<_> = (0..SESSIONS)
        .map(|user| {
            let node = node.clone();
            tokio::spawn(async move {
                let mut create = node.create(user);
                for key in ["cart", "theme", "csrf", "flash", "name"] {
                    create = create.set(key, &"x".repeat(60));
                }
                for key in ["page", "draft"] {
                    create = create.set(key, &"x".repeat(600));
                }
                create.await
            })
        })
        .collect();
    let mut sessions = Vec::new();
    for create in creates {
        sessions.push(create.await.unwrap().unwrap());
    }
    sessions
}

/// Each session is touched, a third change a small attribute, a third a large one, and a few log out and in.
async fn round(node: &SessionManager, sessions: Vec<Session>, round: u32) -> Vec<Session> {
    let tasks: Vec<_> = sessions
        .into_iter()
        .zip(0_u32..)
        .map(|(session, at)| {
            let node = node.clone();
            tokio::spawn(async move {
                let mut session = node.get(session.id()).await.unwrap().expect("alive");
                match (at + round) % 3 {
                    0 => {
                        let key = ["cart", "theme", "csrf"][(round % 3) as usize];
                        session.set(key, &format!("{round:060}")).unwrap();
                        node.save(&mut session).await.unwrap();
                    }
                    1 => {
                        let key = ["page", "draft"][(round % 2) as usize];
                        session.set(key, &format!("{round:0600}")).unwrap();
                        node.save(&mut session).await.unwrap();
                    }
                    _ => {}
                }
                if (at + round).is_multiple_of(100) {
                    node.delete(session.id()).await.unwrap();
                    let create = node.create(session.user_id().unwrap()).set("cart", &0);
                    session = create.set("page", &"x".repeat(600)).await.unwrap();
                }
                session
            })
        })
        .collect();
    let mut sessions = Vec::new();
    for task in tasks {
        sessions.push(task.await.unwrap());
    }
    sessions
}

/// On a server of its own: another test's open transaction, even in another database, keeps dead rows, and PostgreSQL
/// uses other pages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_95_of_100_updates_are_hot_under_a_mixed_load() {
    let sandbox = Sandbox::start().expect("PostgreSQL starts");
    let world = World::on(&sandbox);
    let clocks = Clocks::new(&world).await;
    let mut config = world.config();
    config.trust_window = Duration::from_secs(600);
    config.touch_batch_max = BATCH;
    config.last_access_flush_interval = Duration::from_millis(20);
    let node = clocks.node(&world, config).await;
    let mut held = sessions(&node).await;
    for number in 1..=ROUNDS {
        // Each round is an access of its own for every session.
        clocks.set(Duration::from_secs(2) * number).await;
        held = round(&node, held, number).await;
        eventually("the accesses are written", async || node.status().touches_waiting == 0).await;
    }
    assert!(node.shutdown(Duration::from_secs(10)).await.is_complete());

    let observer = world.client().await;
    eventually("the node's backends have reported", async || {
        let text =
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                    AND query NOT LIKE 'SELECT pg_advisory_unlock%' AND backend_type = 'client backend'";
        observer.query(text, &[]).await.unwrap().is_empty()
    })
    .await;
    for table in ["sessions", "session_attributes"] {
        let text = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = $1";
        let row = observer.query_one(text, &[&table]).await.unwrap();
        let (updates, hot): (i64, i64) = (row.get(0), row.get(1));
        println!("{table}: {hot} of {updates} updates were HOT");
        assert!(updates >= i64::from(ROUNDS) * SESSIONS / 4, "{table} was updated {updates} times");
        assert!(hot * 100 >= updates * 95, "{table}: {hot} of {updates} updates were HOT");
    }
}
