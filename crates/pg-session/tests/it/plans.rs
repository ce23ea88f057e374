//! Plans of statements on a table that PostgreSQL has not analysed yet. Each new installation starts with one.

use deadpool_postgres::Pool;
use pg_session::{SessionManager, StatementMode};

use crate::fixtures::{all, make, update_all};
use crate::statement_modes::{node_on, pool};
use crate::support::World;

/// Few enough to lie in a few pages, which a sequential scan reads faster than an index.
const SESSIONS: usize = 300;

/// The generic plans of all statements that the pool's only connection has prepared, as text.
async fn plans(pool: &Pool) -> Vec<String> {
    let connection = pool.get().await.unwrap();
    connection.batch_execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    let query = "SELECT name, cardinality(parameter_types) FROM pg_prepared_statements WHERE statement ~ '^(UPDATE|WITH|SELECT)'";
    let mut plans = Vec::new();
    for row in connection.query_typed(query, &[]).await.unwrap() {
        let (name, count): (String, i32) = (row.get(0), row.get(1));
        let nulls = vec!["NULL"; usize::try_from(count).unwrap()].join(", ");
        let arguments = if nulls.is_empty() { nulls } else { format!("({nulls})") };
        let explain = format!("EXPLAIN (COSTS off) EXECUTE \"{name}\"{arguments}");
        let lines = connection.simple_query(&explain).await.unwrap();
        let lines = lines.iter().filter_map(|line| match line {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        plans.push(lines.collect::<Vec<_>>().join("\n"));
    }
    plans
}

/// Prepares the combined statements: updates of every extent.
async fn work(node: &SessionManager, sessions: &mut [pg_session::Session]) {
    update_all(node, sessions, 2).await;
    let large = "x".repeat(3_000);
    sessions.iter_mut().for_each(|session| session.set("large", &large).unwrap());
    all(sessions.iter_mut().map(|session| node.save(session)))
        .await
        .into_iter()
        .for_each(|done| done.unwrap());
    sessions.iter_mut().for_each(|session| session.remove("large"));
    all(sessions.iter_mut().map(|session| node.save(session)))
        .await
        .into_iter()
        .for_each(|done| done.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_not_compared_with_each_row_of_a_new_table() {
    let world = World::new();
    let client = world.client().await;
    for analysed in [false, true] {
        let pool = pool(&world, 1);
        let mut config = world.config();
        config.statement_mode = StatementMode::Prepared;
        let node = node_on(&world, &pool, config).await;
        let stop = "ALTER TABLE sessions SET (autovacuum_enabled = off); ALTER TABLE session_attributes SET (autovacuum_enabled = off)";
        client.batch_execute(stop).await.unwrap();
        let mut sessions = make(&node, SESSIONS).await;
        if analysed {
            client.batch_execute("ANALYZE sessions, session_attributes").await.unwrap();
        }
        work(&node, &mut sessions).await;
        let plans = plans(&pool).await;
        assert!(plans.iter().any(|plan| plan.contains("Update on sessions s")), "{plans:#?}");
        assert!(plans.iter().any(|plan| plan.contains("CTE done")), "{plans:#?}");
        for plan in plans {
            // A nested loop over two scans. A look into an index has the condition below, as "Index Cond".
            let compares = plan.lines().any(|line| line.contains("Join Filter") && line.contains("s.id = "));
            assert!(!compares, "analysed: {analysed}\n{plan}");
        }
        assert_eq!(node.delete_all_sessions().await.unwrap(), SESSIONS as u64);
    }
}
