//! The examples run, on a private PostgreSQL of their own, and say what their readers are told they say.

#![allow(clippy::expect_used, reason = "what panics here fails its test, also outside the test functions")]

use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn quickstart_shows_a_session_on_two_nodes() {
    let lines = run("quickstart");
    let expected = [
        "a: created SessionId(#",
        "b: role is admin, read from the database",
        "b: role is admin, read from memory",
        "a: changed the role, version 2",
        "b: role is user, version 2",
        "b: after the logout on a, the session is gone",
        "both nodes are down, nothing was left behind",
    ];
    assert_lines(&lines, &expected);
}

#[test]
fn login_logout_shows_that_a_logout_is_final() {
    let lines = run("login_logout");
    let expected = [
        "laptop: logged in",
        "phone: logged in",
        "tablet: logged in",
        "delete the account? type your password again",
        "and after the password was typed again? yes",
        "laptop: logged out, and the slow request did not undo it",
        "1 other session ended with the new password",
        "laptop: logged out",
        "tablet: logged out",
        "phone: logged in",
        "1 session ended with \"log out everywhere\"",
        "done",
    ];
    assert_lines(&lines, &expected);
}

#[test]
fn an_example_says_why_it_cannot_reach_the_server_that_it_was_given() {
    for name in ["quickstart", "login_logout"] {
        // Nothing listens on port 1.
        let output =
            example(name).arg("postgres://nobody@127.0.0.1:1/none").output().expect("the example runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name}");
        assert!(
            errors.contains("PostgreSQL cannot be reached; check host, port and network"),
            "{name}: {errors}"
        );
    }
}

fn run(name: &str) -> Vec<String> {
    let output = example(name).output().expect("the example runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned).collect()
}

/// `cargo test` builds the examples beside the tests: `target/debug/deps/examples-HASH` and `target/debug/examples/NAME`.
fn example(name: &str) -> Command {
    let own = std::env::current_exe().expect("the path of this test");
    let built = own.ancestors().nth(2).map(|profile| profile.join("examples").join(name));
    let binary: PathBuf = built.filter(|path| path.exists()).unwrap_or_else(|| {
        panic!("the example {name} was not built; run `cargo test -p pg-session`, or `cargo build -p pg-session --examples` first")
    });
    let mut command = Command::new(binary);
    command.stdin(Stdio::null());
    command
}

/// Each line begins with what is expected of it.
#[track_caller]
fn assert_lines(lines: &[String], expected: &[&str]) {
    let all = lines.join("\n");
    assert_eq!(lines.len(), expected.len(), "\n{all}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{expected:?} is not how {line:?} begins\n{all}");
    }
}
