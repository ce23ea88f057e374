//! The examples of docs/sql.md run, in their order, and with no more rights than the page grants.

use pg_session::{Migrations, UserId};

use crate::support::World;

const PAGE: &str = include_str!("../../../../docs/sql.md");

#[tokio::test]
async fn examples_of_the_page_about_sql_run_as_written() {
    let world = World::new();
    let node = world.node().await;
    let operator = world.operator().await;
    let schema = &world.schema;
    let (app, support) = (format!("app_of_{schema}"), format!("support_of_page_{schema}"));
    let definer = Migrations::definer_sql(&world.config()).unwrap();
    operator.batch_execute(&format!("{definer} CREATE ROLE {app}; CREATE ROLE {support}")).await.unwrap();
    let ours = |text: &str| {
        let text = text
            .replace("public.", &format!("{schema}."))
            .replace("SCHEMA public", &format!("SCHEMA {schema}"));
        text.replace("TO app;", &format!("TO {app};")).replace("TO support;", &format!("TO {support};"))
    };
    let blocks: Vec<_> = PAGE.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 6, "{} examples", blocks.len());
    for block in blocks {
        operator.batch_execute(&ours(block)).await.unwrap_or_else(|error| panic!("{block}: {error:?}"));
    }

    // Each of the two roles has what the page grants, and nothing else.
    node.create(UserId::named("ann")).await.unwrap();
    operator.batch_execute(&format!("SET ROLE {app}")).await.unwrap();
    for call in ["session_list(session_user_of('ann'))", "session_end_user(session_user_of('bob'))"] {
        operator
            .batch_execute(&format!("SELECT {call}"))
            .await
            .unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    operator.batch_execute("RESET ROLE").await.unwrap();
    for line in PAGE.lines().filter(|line| line.starts_with("GRANT") && line.ends_with("TO support;")) {
        operator.batch_execute(&ours(line)).await.unwrap_or_else(|error| panic!("{line}: {error:?}"));
    }
    operator.batch_execute(&format!("SET ROLE {support}")).await.unwrap();
    let revoke = PAGE.lines().find(|line| line.starts_with("SELECT revoke_")).expect("an example");
    let revoked = operator.query_one(revoke.trim_end_matches(';'), &[]).await;
    assert_eq!(revoked.unwrap_or_else(|error| panic!("{revoke}: {error:?}")).get::<_, i64>(0), 1);
    assert!(operator.batch_execute("SELECT session_end_all()").await.is_err());
}
