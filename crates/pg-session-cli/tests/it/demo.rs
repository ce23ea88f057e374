//! `pg-session demo` as its users run it: what it prints, how it ends, and that it leaves nothing behind however it
//! ends.

use nix::sys::signal::Signal;
use pg_sandbox::Sandbox;

use crate::support::{self, Program, World};

const ACTS: [&str; 8] = [
    "1  One session, three nodes",
    "2  A change reaches the other nodes",
    "3  A thousand reads",
    "4  A privilege that ends by itself",
    "5  64 changes at once",
    "6  Logout",
    "7  B is cut off",
    "8  PostgreSQL goes down under load",
];

#[track_caller]
fn assert_story_held(out: &str) {
    for act in ACTS {
        assert!(out.contains(act), "{act:?} is missing: {out}");
    }
    assert!(out.contains("Every step held: "), "{out}");
    assert!(!out.contains('✗'), "{out}");
    assert!(!out.contains('\u{1b}'), "an escape sequence in a pipe: {out:?}");
}

#[test]
fn the_story_holds_and_leaves_no_process_and_no_directory() {
    let mut demo = Program::start(&["demo", "--once"]);
    let mark = demo.sandbox_mark();
    let end = demo.finish();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_story_held(&end.out);
    assert!(end.out.contains("in the table ="), "the audit of the restart is missing: {end:?}");
    support::assert_no_sandbox_is_left(&mark);
}

#[test]
fn nginx_guards_an_application_and_the_cost_is_printed() {
    let nginx = std::process::Command::new("nginx").arg("-v").output();
    if let Err(error) = nginx {
        eprintln!("skipped: nginx: {error}; install nginx");
        return;
    }
    let mut demo = Program::start(&["demo", "--proxy", "--once"]);
    let mark = demo.sandbox_mark();
    let end = demo.finish();
    assert_eq!(end.code, Some(0), "{end:?}");
    for shown in ["hello, user 42", "401, and the application is not asked", "Every step held: "] {
        assert!(end.out.contains(shown), "{shown}: {end:?}");
    }
    let rates = end.out.lines().filter(|line| line.ends_with(" requests/s")).count();
    assert_eq!(rates, 2, "{end:?}");
    support::assert_no_sandbox_is_left(&mark);
}

#[tokio::test]
async fn demo_on_own_server_leaves_no_schema_and_no_connection() {
    let world = World::new("story").await;
    let mut demo = Program::start(&["demo", "--once", "--database-url", &world.url]);
    let end = demo.finish();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_story_held(&end.out);
    assert!(end.out.contains("skipped: the demo does not restart a server of yours"), "{end:?}");
    assert!(!end.out.contains("private PostgreSQL"), "{end:?}");
    world.assert_nothing_is_left(&end.out).await;
}

#[tokio::test]
async fn ctrl_c_in_the_middle_of_the_story_drops_the_schema() {
    let world = World::new("interrupted").await;
    let mut demo = Program::start(&["demo", "--once", "--database-url", &world.url]);
    demo.read_until(&[ACTS[3]]);
    demo.signal(Signal::SIGINT);
    let end = demo.finish();
    assert_eq!(end.code, Some(130), "{end:?}");
    assert!(end.err.contains("interrupted"), "{end:?}");
    assert!(!end.out.contains("Every step held"), "{end:?}");
    world.assert_nothing_is_left(&end.out).await;
}

#[test]
fn the_nodes_stay_up_take_keys_and_end_in_order_with_ctrl_c() {
    let mut demo = Program::start(&["demo"]);
    let mark = demo.sandbox_mark();
    demo.read_until(&["The nodes stay up, until Ctrl-C"]);
    demo.read_until(&["Ann logs in"]);
    demo.press("c");
    demo.read_until(&["s  B ", "has no listener, reads from PostgreSQL"]);
    demo.signal(Signal::SIGINT);
    let end = demo.finish();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(end.out.contains("PostgreSQL and its directory are gone"), "{end:?}");
    support::assert_no_sandbox_is_left(&mark);
}

#[test]
fn ctrl_c_while_postgresql_is_being_made_leaves_nothing() {
    let mut demo = Program::start(&["demo", "--once"]);
    let mark = demo.sandbox_mark();
    demo.read_until(&["The cluster"]);
    demo.signal(Signal::SIGINT);
    assert_eq!(demo.finish().code, Some(130));
    support::assert_no_sandbox_is_left(&mark);
}

#[test]
fn a_step_that_fails_is_named_and_so_is_what_is_left() {
    let sandbox = Sandbox::start().expect("PostgreSQL starts");
    let mut demo = Program::start(&["demo", "--once", "--database-url", &sandbox.url()]);
    demo.read_until(&[ACTS[3]]);
    sandbox.kill().expect("PostgreSQL is killed");
    let end = demo.finish();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.out.contains("   ✗ "), "{end:?}");
    assert!(end.err.contains("failed in \"A privilege that ends by itself\": "), "{end:?}");
    // The server is gone, and the schema with it or not: the output says how to drop it.
    let schema = support::schema_in(&end.out).expect("the schema's name is printed");
    assert!(end.err.contains(&format!("DROP SCHEMA \"{schema}\" CASCADE")), "{end:?}");
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_demo_in_order() {
    let world = World::new("reader").await;
    let mut demo = Program::start(&["demo", "--once", "--database-url", &world.url]);
    let read = demo.read_until(&[ACTS[0]]);
    demo.close_output();
    let end = demo.finish();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert_eq!(end.err, "", "nothing to complain about");
    world.assert_nothing_is_left(&read).await;
}

#[tokio::test]
async fn a_role_that_may_not_create_a_schema_is_reported() {
    let world = World::new("guest").await;
    world.client.batch_execute("CREATE ROLE guest LOGIN").await.expect("the role is created");
    let url = world.url.replacen("postgres@", "guest@", 1);
    let end = Program::start(&["demo", "--once", "--database-url", &url]).finish();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.out.contains("permission denied for database"), "{end:?}");
    assert!(end.err.contains("failed in \"The cluster\""), "{end:?}");
}

#[test]
fn unreachable_server_and_invalid_url_have_different_errors() {
    // Port 1 of this machine: nothing listens there.
    for (url, advice) in [
        ("postgres://me@127.0.0.1:1/app", "start the server"),
        ("postgres://me@[", "write an IPv6 address as"),
        ("postgres://me:hunter2@127.0.0.1:1/app?sslmod=require", "did you mean `sslmode`?"),
        ("postgres://me@127.0.0.1:1/app?sslmode=verify-full", "write --database-url as"),
    ] {
        let end = Program::start(&["demo", "--once", "--database-url", url]).finish();
        assert_eq!(end.code, Some(1), "{end:?}");
        assert!(end.out.contains(advice), "{end:?}");
    }
}
