//! I7: at every acknowledged create, the user has at most `sessions_per_user_max` live sessions. Logins at once, on two
//! nodes, under both policies; and a touch that keeps a session alive while a create counts it as idle.

use std::time::Duration;

use pg_session::{Config, ErrorKind, Session, SessionLimit, SessionManager, UpdateError, UserId};

use crate::captured_logs::CapturedLogs;
use crate::clocks::Clocks;
use crate::fixtures::all;
use crate::support::{World, eventually};
use crate::tables::Holder;

const LOGINS: usize = 25;

fn limited(world: &World, sessions_max: u32, policy: SessionLimit) -> Config {
    let mut config = world.config();
    config.sessions_per_user_max = sessions_max;
    config.on_session_limit = policy;
    config
}

/// Creates sessions at once on both nodes. After each acknowledgement the table is asked for the living.
async fn log_in_at_once(
    world: &World,
    nodes: [&SessionManager; 2],
    user: UserId,
) -> (Vec<Result<Session, ErrorKind>>, Vec<i64>) {
    let client = world.client().await;
    let log_in = async |node: &SessionManager| {
        let outcome = node.create(user).await.map_err(|error| error.kind());
        let living = "SELECT count(*) FROM sessions WHERE user_id = $1 AND expires_at > clock_timestamp()";
        let living = client.query_one(living, &[&user.as_uuid()]).await.unwrap();
        (outcome, living.get::<_, i64>(0))
    };
    let logins = nodes.into_iter().flat_map(|node| std::iter::repeat_n(node, LOGINS)).map(log_in);
    all(logins).await.into_iter().unzip()
}

#[tokio::test]
async fn fifty_logins_at_once_on_two_nodes_leave_five_sessions() {
    let world = World::new();
    let config = limited(&world, 5, SessionLimit::EvictLeastRecentlyUsed);
    let (a, b) = (world.node_with(config.clone()).await, world.node_with(config).await);
    let user = UserId::from(1);
    let (outcomes, living) = log_in_at_once(&world, [&a, &b], user).await;
    assert!(living.iter().all(|&count| count <= 5), "{living:?}");
    let ids: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap().id()).collect();
    for node in [&a, &b] {
        node.catch_up().await.unwrap();
        let mut found = 0;
        for &id in &ids {
            found += usize::from(node.get(id).await.unwrap().is_some());
        }
        assert_eq!(found, 5, "the evicted are gone on every node, the others are not");
    }
}

#[tokio::test]
async fn an_eviction_by_the_limit_is_logged_and_counted() {
    assert_eq!(Config::default().sessions_per_user_max, 50, "people do not reach it");
    let world = World::new();
    let node = world.node_with(limited(&world, 2, SessionLimit::EvictLeastRecentlyUsed)).await;
    let user = UserId::from(4_711);
    for _ in 0..2 {
        node.create(user).await.unwrap();
    }
    let logs = CapturedLogs::default();
    let _listening = logs.listen();
    node.create(user).await.unwrap();
    let mut visitor = node.create_anonymous().await.unwrap();
    assert_eq!(node.status().writes.evictions, 1);
    node.rotate(&mut visitor).user(user).await.unwrap();
    assert_eq!(node.status().writes.evictions, 2);
    let text = logs.text();
    assert_eq!(text.matches("sessions_per_user_max").count(), 2, "{text}");
    assert_eq!(text.matches("user=4711").count(), 2, "{text}");
    assert!(!text.contains(&visitor.id().expose().to_string()), "ids are secret");
}

#[tokio::test]
async fn of_fifty_logins_at_once_five_pass_if_the_policy_is_to_refuse() {
    let world = World::new();
    let config = limited(&world, 5, SessionLimit::Refuse);
    let (a, b) = (world.node_with(config.clone()).await, world.node_with(config).await);
    let user = UserId::from(1);
    let (outcomes, living) = log_in_at_once(&world, [&a, &b], user).await;
    assert!(living.iter().all(|&count| count <= 5), "{living:?}");
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(ErrorKind::SessionLimit)));
    assert_eq!(refused.count(), 2 * LOGINS - 5);
}

#[tokio::test]
async fn a_session_that_has_ended_holds_no_place() {
    for policy in [SessionLimit::EvictLeastRecentlyUsed, SessionLimit::Refuse] {
        let world = World::new();
        let node = world.node_with(limited(&world, 2, policy)).await;
        let living = node.create(UserId::from(1)).await.unwrap();
        let ended = node.create(UserId::from(1)).await.unwrap();
        let past =
            "UPDATE sessions SET last_accessed_at = last_accessed_at - interval '49 hours' WHERE id = $1";
        world.client().await.execute(past, &[&ended.id().expose()]).await.unwrap();
        node.create(UserId::from(1)).await.unwrap();
        assert!(node.get(living.id()).bypass_cache().await.unwrap().is_some(), "{policy:?}");
    }
}

#[tokio::test]
async fn the_cap_of_a_login_replaces_the_configured_limit() {
    for (configured, policy) in [
        (0, SessionLimit::EvictLeastRecentlyUsed),
        (3, SessionLimit::EvictLeastRecentlyUsed),
        (3, SessionLimit::Refuse),
    ] {
        let world = World::new();
        let node = world.node_with(limited(&world, configured, policy)).await;
        let listed = async || node.user(1).list().await.unwrap().len();
        for place in 1..=4 {
            node.create(1).cap(4).await.unwrap();
            assert_eq!(listed().await, place, "{configured} {policy:?}: a higher cap");
        }
        let lower = node.create(1).cap(2).await;
        if policy == SessionLimit::Refuse {
            let refused = lower.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::SessionLimit);
            assert!(refused.to_string().contains("has 2 live sessions (the cap of this login)"), "{refused}");
            assert_eq!(listed().await, 4);
        } else {
            assert_eq!(listed().await, 2, "{configured}: a lower cap");
            assert!(node.get(lower.unwrap().id()).await.unwrap().is_some());
        }
        node.create(2).await.expect("the caps of one user are not another's");
    }
}

#[tokio::test]
async fn a_rotation_with_a_cap_ends_the_users_other_sessions() {
    for configured in [0, 5] {
        let world = World::new();
        let node = world.node_with(limited(&world, configured, SessionLimit::EvictLeastRecentlyUsed)).await;
        let mut oldest = node.create(1).await.unwrap();
        let others = [node.create(1).await.unwrap(), node.create(1).await.unwrap()];
        node.rotate(&mut oldest).await.unwrap();
        assert_eq!(node.user(1).list().await.unwrap().len(), 3, "without a cap");
        node.rotate(&mut oldest).cap(1).await.unwrap();
        assert!(node.get(oldest.id()).await.unwrap().is_some(), "it takes its own place");
        for other in others {
            assert!(node.get(other.id()).await.unwrap().is_none());
        }
        let mut visitor = node.create_anonymous().await.unwrap();
        node.rotate(&mut visitor).user(1).cap(1).await.unwrap();
        assert!(node.get(oldest.id()).await.unwrap().is_none());
        assert_eq!(node.user(1).list().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_cap_of_zero_is_refused() {
    let world = World::new();
    let node = world.node().await;
    let error = node.create(1).cap(0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("`cap`"), "{error}");
    let mut visitor = node.create_anonymous().cap(1).await.unwrap();
    let error = node.rotate(&mut visitor).user(1).cap(0).await.unwrap_err();
    assert!(matches!(error, UpdateError::Failed(error) if error.kind() == ErrorKind::InvalidArgument));
    assert!(node.user(1).list().await.unwrap().is_empty());
}

/// Without a configured limit, logins with a cap lock their user all the same: creates, sign-ins, and rotations of a session
/// that stays the user's.
#[tokio::test]
async fn fifty_capped_logins_at_once_leave_two_sessions() {
    let world = World::new();
    let config = limited(&world, 0, SessionLimit::EvictLeastRecentlyUsed);
    let nodes = [world.node_with(config.clone()).await, world.node_with(config).await];
    let client = world.client().await;
    let log_in = async |number: usize| {
        let node = &nodes[number % 2];
        if number % 4 < 2 {
            let mut session = node.create(1).cap(2).await.unwrap();
            match node.rotate(&mut session).await {
                // Evicted by a login that came between.
                Ok(()) | Err(UpdateError::NotFound) => {}
                Err(error) => panic!("{error:?}"),
            }
        } else {
            let mut visitor = node.create_anonymous().await.unwrap();
            node.rotate(&mut visitor).user(1).cap(2).await.unwrap();
        }
        let living = "SELECT count(*) FROM sessions WHERE user_id IS NOT NULL AND rotated_to IS NULL";
        client.query_one(living, &[]).await.unwrap().get::<_, i64>(0)
    };
    let living = all((0..2 * LOGINS).map(log_in)).await;
    assert!(living.iter().all(|&count| count <= 2), "{living:?}");
}

/// ```text
/// touch    UPDATE last_accessed_at (alive, just so) ┊                              ┊ COMMIT
/// create                                            ┊ snapshot: idle for too long ┊        counts? answer
/// ```
async fn create_while_a_touch_is_under_way(
    policy: SessionLimit,
) -> (World, Session, Result<Session, ErrorKind>) {
    let world = World::new();
    let node = world.node_with(limited(&world, 1, policy)).await;
    let held = node.create(UserId::from(1)).await.unwrap();
    let client = world.client().await;
    let access =
        |at: &str| format!("UPDATE sessions SET last_accessed_at = clock_timestamp() - interval '{at}'");
    client.batch_execute(&access("49 hours")).await.unwrap();
    client.batch_execute(&format!("BEGIN; {}", access("0"))).await.unwrap();
    let create =
        tokio::spawn(async move { node.create(UserId::from(1)).await.map_err(|error| error.kind()) });
    let blocked =
        "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))";
    eventually("the create waits for the touch, or is over", async || {
        create.is_finished() || client.query_one(blocked, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    client.batch_execute("COMMIT").await.unwrap();
    (world, held, create.await.unwrap())
}

#[tokio::test]
async fn refusing_create_counts_concurrently_touched_session() {
    let (.., outcome) = create_while_a_touch_is_under_way(SessionLimit::Refuse).await;
    assert_eq!(outcome.err(), Some(ErrorKind::SessionLimit));
}

#[tokio::test]
async fn evicting_create_ends_concurrently_touched_session() {
    let (world, held, outcome) =
        create_while_a_touch_is_under_way(SessionLimit::EvictLeastRecentlyUsed).await;
    let made = outcome.unwrap();
    let rows = world.client().await.query("SELECT id FROM sessions", &[]).await.unwrap();
    let ids: Vec<uuid::Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, [made.id().expose()], "and not {:?}", held.id());
}

/// ```text
/// a        lock of the user ┊ waits for the table ┊ snapshot: room for one ┊ inserts
/// b        waits for a      ┊                     ┊                        ┊         ┊ snapshot: no room
/// ```
/// Without the lock, both have waited for the table, and see room for one.
#[tokio::test]
async fn of_two_logins_at_once_one_takes_the_last_place() {
    for policy in [SessionLimit::EvictLeastRecentlyUsed, SessionLimit::Refuse] {
        let world = World::in_own_database().await;
        let config = limited(&world, 1, policy);
        let nodes = [world.node_with(config.clone()).await, world.node_with(config).await];
        for (node, user) in nodes.iter().zip(2..) {
            node.create(UserId::from(user)).await.expect("the statements are prepared");
        }
        let (holder, client) = (world.client().await, world.client().await);
        holder.batch_execute("BEGIN; LOCK TABLE sessions IN SHARE MODE").await.unwrap();
        let logins = nodes.map(|node| tokio::spawn(async move { node.create(UserId::from(1)).await }));
        let blocked = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0";
        eventually("both wait", async || client.query_one(blocked, &[]).await.unwrap().get::<_, i64>(0) == 2)
            .await;
        holder.batch_execute("COMMIT").await.unwrap();
        let mut passed = 0;
        for login in logins {
            passed += usize::from(login.await.unwrap().is_ok());
        }
        assert_eq!(passed, if policy == SessionLimit::Refuse { 1 } else { 2 });
        let held = "SELECT count(*) FROM sessions WHERE user_id = $1";
        let held = client.query_one(held, &[&UserId::from(1).as_uuid()]).await.unwrap();
        assert_eq!(held.get::<_, i64>(0), 1, "{policy:?}");
    }
}

/// ```text
/// another  holds the session's row                           ┊ COMMIT
/// create   locks the user, waits for the row ┊ it expires    ┊        counts the live sessions
/// ```
#[tokio::test]
async fn a_session_that_ends_while_a_login_waits_holds_no_place() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let node = clocks.node(&world, limited(&world, 1, SessionLimit::Refuse)).await;
    let user = UserId::from(1);
    let session = node.create(user).expires_in(Duration::from_secs(60)).await.unwrap();
    let refused = node.create(user).await.map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::SessionLimit), "the session is alive");
    let holder = Holder::hold(&world, &[session.id()]).await;
    let login = tokio::spawn(async move { node.create(user).await });
    holder.blocks(&world.client().await).await;
    clocks.set(Duration::from_secs(61)).await;
    holder.commit().await;
    login.await.unwrap().expect("the session has expired");
}

/// One statement rotates a session away from its user, and signs that user in elsewhere, who is at the limit. The session
/// is the one to be evicted. PostgreSQL refuses two changes of one row in a statement.
#[tokio::test]
async fn a_batch_may_rotate_a_session_that_it_also_evicts() {
    let world = World::new();
    let node = world.node_with(limited(&world, 1, SessionLimit::EvictLeastRecentlyUsed)).await;
    let mut leaving = node.create(UserId::from(1)).await.unwrap();
    let mut visitor = node.create_anonymous().await.unwrap();
    let rotations =
        [node.rotate(&mut leaving).user(UserId::from(2)), node.rotate(&mut visitor).user(UserId::from(1))];
    let outcomes = all(rotations).await;
    assert!(outcomes[1].is_ok(), "{outcomes:?}");
    match &outcomes[0] {
        Ok(()) => assert!(node.get(leaving.id()).await.unwrap().is_some()),
        Err(error) => assert!(matches!(error, UpdateError::NotFound), "{error:?}"),
    }
    for (user, count) in [(1, 1), (2, usize::from(outcomes[0].is_ok()))] {
        assert_eq!(node.user(UserId::from(user)).list().await.unwrap().len(), count, "user {user}");
    }
}

#[tokio::test]
async fn each_login_is_one_statement_with_room_or_without() {
    for policy in [SessionLimit::EvictLeastRecentlyUsed, SessionLimit::Refuse] {
        let world = World::new();
        let node = world.node_with(limited(&world, 2, policy)).await;
        let statements = || node.status().writes.create_statements;
        let mut first = node.create(UserId::from(1)).await.unwrap();
        node.rotate(&mut first).await.unwrap();
        node.create(UserId::from(1)).await.unwrap();
        assert_eq!(statements(), 2, "a retired id takes no room: {policy:?}");
        let third = node.create(UserId::from(1)).await.map_err(|error| error.kind());
        assert_eq!(statements(), 3, "{policy:?}");
        let refused = policy == SessionLimit::Refuse;
        assert_eq!(third.err(), refused.then_some(ErrorKind::SessionLimit));
        // Anonymous sessions have no such limit.
        for _ in 0..3 {
            node.create_anonymous().await.unwrap();
        }
        assert_eq!(statements(), 6, "{policy:?}");
    }
}

/// Until a table is analysed for the first time, the planner guesses, and keeps the plan.
#[tokio::test]
async fn a_login_with_room_never_reads_the_whole_table() {
    const USERS: i64 = 500;
    for policy in [SessionLimit::EvictLeastRecentlyUsed, SessionLimit::Refuse] {
        let world = World::in_own_database().await;
        let node = world.node_with(limited(&world, 5, policy)).await;
        // The large one has a row of its own, and the login another statement.
        for bytes in [600, 6, 600, 6] {
            let logins = (0..USERS).map(async |user| {
                let create = node.create(UserId::from(user)).set("cart", &"x".repeat(bytes));
                create.await.unwrap()
            });
            all(logins).await;
        }
        let read = read_in_passing(&world, node).await;
        assert!(read < USERS, "{read} rows were read in passing, {policy:?}");
    }
}

/// A plan is kept with its connection, and of a small table all is read.
#[tokio::test]
async fn a_login_does_not_go_by_a_plan_from_when_the_table_was_small() {
    const USERS: i64 = 500;
    let world = World::in_own_database().await;
    let node = world.node_with(limited(&world, 5, SessionLimit::Refuse)).await;
    node.create(UserId::from(USERS)).await.unwrap();
    world.client().await.batch_execute("ANALYZE sessions").await.unwrap();
    for _ in 0..2 {
        all((0..USERS).map(async |user| node.create(UserId::from(user)).await.unwrap())).await;
    }
    let read = read_in_passing(&world, node).await;
    assert!(read < USERS, "{read} rows were read in passing");
}

/// A user at the limit logs in again and again, and each login leaves a dead row. On a server of its own: a transaction
/// that another test holds open anywhere on the server keeps PostgreSQL from marking the row.
#[tokio::test]
async fn logins_at_the_limit_do_not_read_dead_rows_again() {
    const LOGINS: i64 = 400;
    for policy in [SessionLimit::EvictLeastRecentlyUsed, SessionLimit::Refuse] {
        let sandbox = pg_sandbox::Sandbox::start().unwrap();
        let world = World::on(&sandbox);
        let node = world.node_with(limited(&world, 1, policy)).await;
        let off = "ALTER TABLE sessions SET (autovacuum_enabled = off)";
        world.client().await.batch_execute(off).await.unwrap();
        for _ in 0..LOGINS {
            let session = node.create(UserId::from(1)).await.unwrap();
            if policy == SessionLimit::Refuse {
                node.create(UserId::from(1)).await.unwrap_err();
                node.delete(session.id()).await.unwrap();
            }
        }
        let entries = "SELECT idx_tup_read FROM pg_stat_user_indexes
                       WHERE indexrelid = 'sessions_user_id_idx'::regclass";
        let read = statistic(&world, node, entries).await;
        // With all dead rows, each scan of a login reads 200 on average.
        assert!(read < LOGINS * 40, "{read} entries of the index were read, {policy:?}");
    }
}

/// Rows of sessions that were read without an index, until the node has ended.
async fn read_in_passing(world: &World, node: SessionManager) -> i64 {
    let read = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relid = 'sessions'::regclass";
    statistic(world, node, read).await
}

async fn statistic(world: &World, node: SessionManager, query: &str) -> i64 {
    // Statistics are complete once the backends that made them have ended.
    assert!(node.shutdown(Duration::from_secs(10)).await.is_complete());
    let client = world.client().await;
    eventually("the node's backends have ended", async || {
        let others =
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                      AND backend_type = 'client backend'";
        client.query(others, &[]).await.unwrap().is_empty()
    })
    .await;
    client.query_one(query, &[]).await.unwrap().get(0)
}
