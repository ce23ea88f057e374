//! `pg-session doctor`: findings as text and as JSON, and exit codes for scripts.

use std::path::Path;

use serde_json::Value;

use crate::support::{Program, World};

/// A schema and a prefix that need quotes.
const NAMES: [&str; 4] = ["--schema", "made by \"doctor\"", "--prefix", "it's_"];

#[tokio::test]
async fn the_doctor_prints_findings_and_fails_for_faults_only() {
    let world = World::new("doctor").await;
    let url = ["--database-url", &world.url];
    let run = |command: &str, more: &[&str]| {
        Program::start(&[&[command], &url[..], &NAMES[..], more].concat()).finish()
    };
    let end = run("doctor", &[]);
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.out.contains("fault") && end.out.contains("Run: pg-session migrate"), "{end:?}");

    assert_eq!(run("migrate", &[]).code, Some(0));
    let end = run("doctor", &[]);
    assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
    assert!(!end.out.contains("fault"), "{end:?}");
    assert!(end.out.contains("warning  fsync: fsync is off"), "the test's server is fast, not safe: {end:?}");

    world
        .client
        .batch_execute(r#"DROP TRIGGER sessions_follow_delete ON "made by ""doctor"""."it's_sessions""#)
        .await
        .unwrap();
    let end = run("doctor", &["--json"]);
    assert_eq!((end.code, end.err.as_str()), (Some(1), ""), "{end:?}");
    let findings: Vec<Value> =
        end.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let drift = findings.iter().find(|finding| finding["check"] == "drift").expect("the trigger is missing");
    assert_eq!(drift["severity"], "fault");
    assert!(drift["message"].as_str().is_some_and(|text| text.contains("sessions_follow_delete")), "{drift}");
}

/// The library that shows a process another wall clock.
fn faketime() -> Option<String> {
    let roots = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let mut paths = roots.iter().map(|root| format!("{root}/faketime/libfaketime.so.1"));
    paths.find(|path| Path::new(path).exists())
}

#[tokio::test]
async fn the_doctor_finds_a_clock_that_is_an_hour_off() {
    let Some(library) = faketime() else {
        eprintln!("skipped: libfaketime is not installed");
        return;
    };
    let world = World::new("clock").await;
    let args = ["--database-url", &*world.url, "--schema", "clock"];
    let at = |hour: &str| {
        let variables = [
            ("LD_PRELOAD", &*library),
            ("FAKETIME", hour),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        let end = Program::start_with(&[&["doctor", "--json"], &args[..]].concat(), &variables).finish();
        let findings = end.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let clock = findings.filter(|finding| finding["check"] == "clock");
        clock.map(|finding| finding["message"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(Program::start(&[&["migrate"], &args[..]].concat()).finish().code, Some(0));
    assert_eq!(at("+0"), [""; 0]);
    let [message] = &at("+1h")[..] else { panic!("one finding") };
    assert!(
        message.starts_with("the clock of this machine is 3")
            && message.ends_with("s ahead of the database's"),
        "{message}"
    );
    let [message] = &at("-1h")[..] else { panic!("one finding") };
    assert!(message.ends_with("s behind the database's"), "{message}");
}

#[test]
fn the_doctor_of_a_server_that_is_not_there_finds_just_that() {
    let end = Program::start(&["doctor", "--database-url", "postgres://app@127.0.0.1:1/app"]).finish();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.out.starts_with("fault    connection: "), "{end:?}");
    assert!(end.out.contains("Connection refused"), "it has the cause: {end:?}");
}

#[test]
fn an_error_names_the_option_that_has_the_string() {
    let (pool, listener) = ("postgres://app@127.0.0.1:1/app", "127.0.0.1:1");
    let end = Program::start(&["doctor", "--database-url", pool, "--listen-url", listener]).finish();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.err.contains("--listen-url: the connection string"), "{end:?}");
    let variables = [("PGHOST", "127.0.0.1"), ("PGPORT", "1"), ("PGSSLMODE", "Require")];
    let end = Program::start_with(&["doctor"], &variables).finish();
    assert_eq!(end.code, Some(2), "{end:?}");
    assert!(end.err.contains("the variable PGSSLMODE has an unknown value"), "{end:?}");
}

/// The option before it was forgotten or mistaken.
#[test]
fn a_connection_string_in_a_wrong_place_is_not_repeated() {
    let url = "postgres://app:hunter2@127.0.0.1:1/app";
    let option = format!("--listen={url}");
    for args in [&["doctor", url][..], &["serve", "--listen", url], &["serve", &option]] {
        let end = Program::start(args).finish();
        assert_eq!(end.code, Some(2), "{end:?}");
        assert!(end.err.contains("--help") && end.err.contains("[a connection string]"), "{end:?}");
        assert!(!end.err.contains("hunter2"), "{end:?}");
    }
}
