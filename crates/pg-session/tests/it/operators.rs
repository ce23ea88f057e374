//! What operators' tools ask of the library: sessions by handle, page by page, and the application's own settings.

use std::collections::BTreeSet;
use std::time::Duration;

use pg_session::{ErrorKind, GroupId, Migrations, SessionId, SessionManager};

use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_found_by_the_digits_that_logs_show() {
    let world = World::new();
    let node = world.node().await;
    let mut session = node.create(7).set("device", "desk").await.unwrap();
    node.create(8).await.unwrap();
    let handle = session.id().handle();
    for digits in [&handle.to_string()[..8], &handle.to_string()] {
        let found = node.find(digits).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].id(), found[0].keys()), (session.id(), vec!["device"]));
    }
    assert!(node.find("00000000000000000000000000000000").await.unwrap().is_empty());
    for wrong in ["", "1234567", "0123456g", &session.id().expose().to_string()] {
        assert_eq!(node.find(wrong).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    node.rotate(&mut session).await.unwrap();
    let retired = node.find(&handle.to_string()).await.unwrap();
    assert!(retired[0].is_retired(), "the old handle still leads to the retired id");
    assert!(node.delete(retired[0].id()).await.unwrap());
    assert!(node.find(&session.id().handle().to_string()).await.unwrap().is_empty(), "an ended session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_reads_all_ids_in_chunks() {
    let world = World::new();
    let node = world.node().await;
    let insert = "INSERT INTO sessions (id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at)
        SELECT gen_random_uuid(), 1, false, now(), now(), now(), now() + interval '1 day' FROM generate_series(1, 45000)";
    let client = world.client().await;
    client.execute(insert, &[]).await.unwrap();
    let last = "SELECT id FROM sessions ORDER BY id DESC LIMIT 1";
    let last = SessionId::from_uuid(client.query_one(last, &[]).await.unwrap().get(0));
    let found = node.find(&last.handle().to_string()).await.unwrap();
    assert_eq!(found.iter().map(|session| session.id()).collect::<Vec<_>>(), [last]);
    assert_eq!(node.all().count().await.unwrap(), 45_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_each_live_session_once() {
    let world = World::new();
    let node = world.node_with(world.roomy()).await;
    let group = GroupId::named("acme");
    let insert = "INSERT INTO sessions (id, user_id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at)
        SELECT gen_random_uuid(), session_user_of(n % 2), 1, false, now(), now(), now(),
               now() + CASE WHEN n > 2500 THEN interval '-1 day' ELSE interval '1 day' END
        FROM generate_series(1, 2600) n";
    world.client().await.execute(insert, &[]).await.unwrap();
    let mut rotated = node.create(1).group(group).await.unwrap();
    node.rotate(&mut rotated).await.unwrap();

    let mut seen = BTreeSet::new();
    let mut page = node.all().page(None).await.unwrap();
    loop {
        assert!(page.iter().all(|session| seen.insert(session.id())), "each once");
        assert!(page.sessions.is_sorted_by_key(|session| session.id()));
        let Some(last) = page.sessions.last().filter(|_| page.truncated) else { break };
        page = node.all().page(Some(last.id())).await.unwrap();
    }
    assert_eq!(seen.len(), 2501, "no ended session, and no retired id");
    assert_eq!(node.all().count().await.unwrap(), 2501);

    let first = node.user(1).page(None).await.unwrap();
    let rest = node.user(1).page(first.sessions.last().map(|session| session.id())).await.unwrap();
    assert!(first.truncated && !rest.truncated);
    assert_eq!(u64::try_from(first.len() + rest.len()).unwrap(), node.user(1).count().await.unwrap());
    assert_eq!(node.group(group).count().await.unwrap(), 1);
    assert_eq!(node.group(group).page(None).await.unwrap()[0].id(), rotated.id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_adopts_the_nodes_settings_and_keeps_them() {
    let world = World::new();
    let mut config = world.config();
    config.absolute_timeout = Duration::from_secs(7_200);
    config.idle_timeout = Duration::from_millis(3_500);
    config.last_access_flush_interval = Duration::from_millis(500);
    config.sessions_per_user_max = 3;
    let node = world.node_with(config.clone()).await;

    let mut tools = world.config();
    tools.migrations = Migrations::Apply;
    let builder = SessionManager::builder(tools.clone()).url(&world.url).unwrap();
    let tool = builder.adopt_settings().connect().await.unwrap();
    let adopted = tool.config();
    assert_eq!(adopted.absolute_timeout, config.absolute_timeout);
    assert_eq!(adopted.idle_timeout, config.idle_timeout);
    assert_eq!(adopted.sessions_per_user_max, 3);
    assert_eq!(adopted.cleanup_interval, Duration::ZERO);

    let findings = SessionManager::builder(tools).url(&world.url).unwrap().diagnose().await.unwrap();
    assert!(findings.iter().all(|finding| finding.check != "start"), "{findings:?}");
    let published =
        "SELECT idle_timeout = interval '3.5 seconds' AND sessions_per_user_max = 3 FROM session_settings";
    let client = world.operator().await;
    assert!(client.query_one(published, &[]).await.unwrap().get::<_, bool>(0), "they are the node's");
    drop(node);
}

/// ```text
/// tool     asks ───────────────────── lists both
/// node a        answers
/// node b        its listener is cut: no answer
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_lost_its_listener_does_not_answer() {
    let world = World::new();
    let a = world.node().await;
    let wire = world.proxy().await;
    let mut config = world.config();
    config.trust_window = Duration::from_secs(600);
    config.idle_timeout = Duration::from_secs(3_600);
    let b = world.node_listening_through(&wire, config).await;
    let nodes = a.nodes().await.unwrap();
    assert_eq!(nodes.iter().map(|node| node.is_this).collect::<Vec<_>>(), [true, false]);
    assert!(nodes.iter().all(|node| node.answered_after.is_some()), "{nodes:?}");
    assert_eq!(nodes[1].version, env!("CARGO_PKG_VERSION"));
    assert!(nodes[1].name.contains("127.0.0.1"), "{nodes:?}");

    wire.stall();
    let nodes = a.nodes().await.unwrap();
    assert!(nodes[0].answered_after.is_some() && nodes[1].answered_after.is_none(), "{nodes:?}");

    // A tool must not take a node for silent that is still trusted.
    let builder = SessionManager::builder(world.config()).url(&world.url).unwrap().adopt_settings();
    let tool = builder.connect().await.unwrap();
    assert_eq!(tool.config().trust_window, Duration::from_secs(600));
    let nodes = tool.nodes().await.unwrap();
    assert_eq!(nodes[1].differing_settings, ["idle_timeout_ms", "trust_window_ms"]);
    drop(b);
}
