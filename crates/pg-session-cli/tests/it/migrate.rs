//! `pg-session migrate`: creates the tables, finds them, prints them, and says what is wrong.

use crate::support::{Program, World};

const TABLES: &str = "SELECT count(*) FROM pg_tables WHERE schemaname = $1";

#[tokio::test]
async fn migrating_creates_the_tables_once() {
    let world = World::new("migrate").await;
    for _ in 0..2 {
        let args =
            ["migrate", "--database-url", &world.url, "--schema", "made by \"migrate\"", "--prefix", "web_"];
        let end = Program::start(&args).finish();
        assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
        assert!(end.out.contains("are up to date"), "{end:?}");
        assert_eq!(world.count(TABLES, "made by \"migrate\"").await, 8);
    }
}

#[tokio::test]
async fn the_printed_sql_makes_what_migrating_makes() {
    let world = World::new("print").await;
    let end = Program::start(&["migrate", "--print", "--schema", "printed"]).finish();
    assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
    world.client.batch_execute(&end.out).await.expect("the SQL is accepted");
    assert_eq!(world.count(TABLES, "printed").await, 8);
    let end = Program::start(&["migrate", "--database-url", &world.url, "--schema", "printed"]).finish();
    assert_eq!(end.code, Some(0), "the library takes the tables for its own: {end:?}");
}

#[tokio::test]
async fn the_printed_definer_function_ends_a_users_sessions() {
    let world = World::new("definer").await;
    for option in ["--print", "--definer"] {
        let end = Program::start(&["migrate", option, "--schema", "it's", "--prefix", "web_"]).finish();
        assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
        world.client.batch_execute(&end.out).await.expect("the SQL is accepted");
    }
    let ended = r#"
        WITH made AS (SELECT "it's"."web_session_create"("it's"."web_session_user_of"($1::text)) AS id)
        SELECT count(*) FROM made"#;
    assert_eq!(world.count(ended, "ann").await, 1);
    let ended = r#"SELECT "it's"."web_revoke_user_sessions"("it's"."web_session_user_of"($1::text))"#;
    assert_eq!(world.count(ended, "ann").await, 1);
}

#[test]
fn a_reader_that_has_enough_of_the_sql_is_no_error() {
    let mut program = Program::start(&["migrate", "--print"]);
    program.close_output();
    let end = program.finish();
    assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
}

#[test]
fn a_name_that_postgresql_cannot_hold_is_refused() {
    let long = "p".repeat(64);
    let end = Program::start(&["migrate", "--print", "--schema", &long]).finish();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.err.contains("schema has 64 bytes") && end.err.contains("shorten it"), "{end:?}");
}

#[test]
fn a_missing_server_is_a_matter_of_usage() {
    let end = Program::start(&["migrate"]).finish();
    assert_eq!(end.code, Some(2), "{end:?}");
    assert!(end.err.contains("--database-url"), "{end:?}");
}
