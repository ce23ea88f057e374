//! A statement without a waiting caller ends on the server, too. A node waits for a server without a free connection.

use std::time::Duration;

use pg_sandbox::{PoolMode, Pooler};
use pg_session::SessionManager;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

use crate::fixtures::{all, driver_config, in_time, make};
use crate::listener_refused::refusing;
use crate::statement_modes::pool;
use crate::support::{WAIT_MAX, World, eventually};

/// Server processes of the world's database that carry out a statement of the library.
async fn busy(observer: &Client) -> i64 {
    let text = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'";
    observer.query_one(text, &[]).await.unwrap().get(0)
}

async fn connections(observer: &Client) -> i64 {
    let text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
    observer.query_one(text, &[]).await.unwrap().get(0)
}

/// One row is locked by another client, and requests for it come again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timed_out_statements_do_not_stay_on_the_server() {
    for application_pool in [false, true] {
        let world = World::in_own_database().await;
        let mut config = world.roomy();
        config.query_timeout = Duration::from_millis(200);
        config.pool_connections_max = 4;
        let node = if application_pool {
            // On a busy machine a start may take longer.
            let began = Instant::now();
            loop {
                let builder = SessionManager::builder(config.clone()).url(&world.url).unwrap();
                match builder.pool(pool(&world, 4)).connect().await {
                    Ok(node) => break node,
                    Err(error) => assert!(began.elapsed() < WAIT_MAX, "the node starts: {error}"),
                }
            }
        } else {
            world.node_with(config).await
        };
        in_time("the node is in sync", node.wait_until_trusted()).await.unwrap();
        let mut sessions = make(&node, 1).await;
        let session = &mut sessions[0];
        let observer = world.client().await;
        let mut holder = world.client().await;
        let transaction = holder.transaction().await.unwrap();
        transaction
            .query("SELECT FROM sessions WHERE id = $1 FOR UPDATE", &[&session.id().expose()])
            .await
            .unwrap();
        for n in 0..10 {
            session.set("n", &n).unwrap();
            let error = node.save(session).await.unwrap_err();
            assert!(
                matches!(error, pg_session::UpdateError::Failed(ref error) if error.is_outcome_unknown()),
                "{error:?}"
            );
            // The pool, the listener, the two clients of this test, and one that is being cancelled.
            let open = connections(&observer).await;
            assert!(open <= 4 + 1 + 2 + 1, "{open} connections after {n} updates");
        }
        eventually("no statement is left", async || busy(&observer).await == 0).await;
        transaction.rollback().await.unwrap();
        session.set("n", &77).unwrap();
        in_time("the row is free", node.save(session)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_caller_leaves_no_statement_on_the_server() {
    let world = World::in_own_database().await;
    let node = world.node_with(world.roomy()).await;
    let (observer, mut holder) = (world.client().await, world.client().await);
    let transaction = holder.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let listing = tokio::spawn({
        let node = node.clone();
        async move { node.user(1).list().await.map(|_| ()) }
    });
    eventually("it waits for the lock", async || busy(&observer).await > 0).await;
    listing.abort();
    eventually("its statement has ended", async || busy(&observer).await == 0).await;
    transaction.rollback().await.unwrap();
}

/// Another client holds all other connections of the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_waited_for_while_the_pool_has_a_connection() {
    let sandbox = pg_sandbox::Sandbox::builder()
        .setting("max_connections", "12")
        .setting("superuser_reserved_connections", "0")
        .start()
        .unwrap();
    let world = World::on(&sandbox);
    let mut config = world.roomy();
    config.pool_connections_max = 8;
    let node = world.node_with(config).await;
    let mut others = Vec::new();
    let server: tokio_postgres::Config = world.url.parse().unwrap();
    while let Ok((client, connection)) = server.connect(NoTls).await {
        tokio::spawn(connection);
        others.push(client);
        assert!(others.len() < 12, "the server has a limit");
    }
    let outcomes = all((0..40).map(|user| node.user(user).list())).await;
    let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let outcomes = all((0..40).map(|user| node.create(user))).await;
    let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// ```text
/// pool   one connection ┊ each new one is refused: the requests take turns
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pooler_is_waited_for_while_the_pool_has_a_connection() {
    let world = World::in_postgres();
    for (code, message) in [
        ("08P01", "no more connections allowed (max_client_conn)"),
        ("XX000", "Max client connections reached"),
        ("53300", "sorry, too many clients already"),
    ] {
        let address = driver_config(&refusing(code, message).await).get_ports()[0];
        let name = world.proxy().await;
        let mut config = world.roomy();
        config.pool_connections_max = 8;
        let builder = SessionManager::builder(config).url(&name.url_for(&world.url)).unwrap();
        let node = builder.listen_on_url(&world.url).unwrap().connect().await.unwrap();
        name.redirect(format!("127.0.0.1:{address}").parse().unwrap());
        let outcomes = all((0..40).map(|user| node.user(user).list())).await;
        let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{code}: {failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_without_a_free_connection_is_waited_for() {
    let world = World::in_postgres();
    for application_pool in [false, true] {
        let pooler = Pooler::builder(world.addr(), PoolMode::Transaction).setting("max_client_conn", "8");
        let pooler = pooler.start().unwrap();
        let mut config = world.roomy();
        config.pool_connections_max = 8;
        let builder = SessionManager::builder(config).listen_on_url(&world.url).unwrap();
        let builder = if application_pool {
            let through = World { url: pooler.url(), schema: world.schema.clone() };
            builder.pool(pool(&through, 8))
        } else {
            builder.url(&pooler.url()).unwrap()
        };
        let node = builder.connect().await.unwrap();
        let mut others = Vec::new();
        while let Ok((client, connection)) = driver_config(&pooler.url()).connect(NoTls).await {
            tokio::spawn(connection);
            others.push(client);
            assert!(others.len() < 9, "the pooler has a limit");
        }
        let outcomes = all((0..40).map(|user| node.user(user).list())).await;
        let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
