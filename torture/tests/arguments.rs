//! Wrong arguments are refused. For this test cargo builds the program, which `.ci/run` then runs.

use std::process::Command;

#[test]
fn an_unknown_guard_is_refused_with_the_known_ones() {
    let run = Command::new(env!("CARGO_BIN_EXE_pg-session-torture")).args(["--without", "nonsense"]).output();
    let run = run.unwrap();
    let message = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{message}");
    assert!(message.contains("nonsense") && message.contains("fill-ticket"), "{message}");
}
