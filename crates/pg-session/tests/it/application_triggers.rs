//! Triggers of the application on the session tables: what they change within a statement of the library.

use pg_session::{SessionId, SessionManager, UserId};
use tokio_postgres::Client;

use crate::fixtures::{hit, read_all};
use crate::observer::rejection;
use crate::support::{World, eventually};

/// A trigger of the application that runs this for each new session.
async fn after_insert(client: &Client, schema: &str, statement: &str) {
    let script = format!(
        "CREATE OR REPLACE FUNCTION {schema}.of_application() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN {statement}; RETURN NULL; END $$;
         DROP TRIGGER IF EXISTS of_application ON {schema}.sessions;
         CREATE TRIGGER of_application AFTER INSERT ON {schema}.sessions
             FOR EACH ROW EXECUTE FUNCTION {schema}.of_application()"
    );
    client.batch_execute(&script).await.unwrap();
}

/// One session for each user, as a rule of the database: each login deletes the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_a_trigger_deletes_end_on_every_node() {
    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let (operator, schema) = (world.operator().await, &world.schema);
    let delete = format!("DELETE FROM {schema}.sessions WHERE user_id = NEW.user_id AND id <> NEW.id");
    after_insert(&operator, schema, &delete).await;
    let ann = UserId::named("ann");
    let mut newest = nodes[0].create(ann).await.unwrap().id();
    for by_sql in [false, true, false] {
        let old = newest;
        for node in &nodes {
            read_all(node, &[old]).await;
        }
        newest = if by_sql {
            let create = "SELECT session_create(session_user_of('ann'))";
            SessionId::from_uuid(operator.query_one(create, &[]).await.unwrap().get(0))
        } else {
            nodes[0].create(ann).await.unwrap().id()
        };
        for node in &nodes {
            eventually("the old session left the memory", async || hit(node, old).is_none()).await;
            assert!(node.get(old).await.unwrap().is_none(), "by SQL: {by_sql}");
            assert!(node.get(newest).await.unwrap().is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_in_a_trigger_is_checked_like_any_other() {
    let world = World::new();
    let nodes: [SessionManager; 2] = world.nodes().await;
    let (operator, schema) = (world.operator().await, &world.schema);
    let ann = UserId::named("ann");
    let first = nodes[0].create(ann).await.unwrap().id();
    for node in &nodes {
        read_all(node, &[first]).await;
    }
    let others = "user_id = NEW.user_id AND id <> NEW.id";
    let update = format!("UPDATE {schema}.sessions SET group_id = NEW.id WHERE {others}");
    after_insert(&operator, schema, &update).await;
    let create = "SELECT session_create(session_user_of('ann'))";
    let error = operator.query_one(create, &[]).await.expect_err("the version stays");
    assert_eq!(rejection(&error).0, "PS001");

    let update =
        format!("UPDATE {schema}.sessions SET group_id = NEW.id, version = version + 1 WHERE {others}");
    after_insert(&operator, schema, &update).await;
    operator.query_one(create, &[]).await.unwrap();
    for node in &nodes {
        eventually("the old version left the memory", async || {
            hit(node, first).is_none_or(|session| session.version().get() == 2)
        })
        .await;
        assert!(node.get(first).await.unwrap().unwrap().group_id().is_some());
    }
}
