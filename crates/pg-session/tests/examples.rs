//! The examples run and print what their comments promise. One starts a private PostgreSQL of its own, as it does
//! for a user who tries it; the others share one, each in a schema of its own.

#![allow(clippy::expect_used, reason = "what panics here fails its test, also outside the test functions")]

use std::process::{Command, Stdio};
use std::sync::LazyLock;

use pg_sandbox::Sandbox;

#[path = "../../pg-session-web/tests/http/program.rs"]
mod program;

/// For all examples but the first.
static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    Sandbox::builder().setting("max_connections", "300").start().expect("PostgreSQL starts")
});

#[test]
fn quickstart_shows_a_session_on_two_nodes() {
    let lines = output("quickstart", &mut example("quickstart"));
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
fn sign_in_shows_that_an_old_id_never_shows_who_has_signed_in() {
    let expected = [
        "a visitor: user None, [\"cart\", \"page\"]",
        "signed in: a new id: true, [\"cart\", \"name\"]",
        "the old id: user None, [\"cart\", \"page\"], rotated: true",
        "and nothing is saved through it",
        "elevated: [\"cart\", \"elevated\", \"name\"]; without a grace the old ids are dead at once: true",
        "logged out: true",
        "done",
    ];
    assert_lines(&run("sign_in"), &expected);
}

#[test]
fn step_up_example_elevates_on_every_node_for_a_while() {
    let expected = [
        "show the profile: yes",
        "change the e-mail address: type your password",
        "the password was typed, version 2",
        "change the e-mail address on a: yes",
        "change the e-mail address on b: yes",
        "later, on a: type your password",
        "later, on b: type your password",
        "no write was needed: still version 2",
    ];
    assert_lines(&run("step_up"), &expected);
}

#[test]
fn limited_offer_shows_that_an_offer_ends_by_itself() {
    let expected = [
        "during the campaign: 60 euros with FLASH25",
        "after the campaign: 80 euros",
        "the handle is the same, its version too: 1",
        "read again: 80 euros",
    ];
    assert_lines(&run("limited_offer"), &expected);
}

#[test]
fn abandoned_form_example_sends_once_or_forgets() {
    let expected = [
        r#"ann sends Some({"name": "Ann", "town": "Leeds"})"#,
        "and again: None",
        r#"bob has typed {"name": "Bob"}, and goes for lunch"#,
        "bob sends None",
    ];
    assert_lines(&run("abandoned_form"), &expected);
}

#[test]
fn temporary_token_example_shares_token_until_expiry() {
    let expected = [
        "a calls the bank with token 1",
        "a calls again with token 1",
        "b calls with token 1",
        "later, b calls with token 2",
        "the bank was asked for 2 tokens",
    ];
    assert_lines(&run("temporary_token"), &expected);
}

#[test]
fn role_change_example_recomputes_roles_in_all_sessions() {
    let all = r#"["reader", "editor", "admin"]"#;
    let expected = [
        &format!("laptop, on a: {all}"),
        &format!("phone, on b: {all}"),
        "computed 2 times, and read from memory from now on",
        "dropped from 2 sessions",
        r#"laptop, on a: ["reader"]"#,
        r#"phone, on b: ["reader"]"#,
        r#"phone, on b again: ["reader"]"#,
        "computed 4 times",
    ];
    assert_lines(&run("role_change"), &expected);
}

#[test]
fn concurrent_cart_shows_that_no_click_is_lost() {
    let expected = [
        "20 clicks at once, 20 saved",
        "refused because another tab was quicker: ",
        "after taking half of it out: 10",
    ];
    assert_lines(&run("concurrent_cart"), &expected);
}

#[test]
fn signed_tokens_shows_a_forgery_a_rotation_and_a_purpose() {
    let expected = [
        "a cookie of 92 characters says SessionId(#",
        "one character changed: BadSignature",
        "the new key signs, the old cookie: accepted",
        "the old key is removed, the old cookie: UnknownKey",
        "a link for 15 minutes says \"user 42\"",
        "the same link for another purpose: BadSignature",
        "verifying a good token: ",
        "turning away a wrong signature: ",
        "turning away a removed key: ",
        "verifying a message: ",
    ];
    assert_lines(&run("signed_tokens"), &expected);
}

#[test]
fn signed_cookies_shows_that_what_was_not_signed_costs_no_query() {
    let expected = [
        "ann, on b: hello Ann",
        "a forged cookie: the login page",
        "an id without a signature: the login page",
        "queries for these: 0",
        "renamed, and at once on b: hello Ann Smith",
        "the keys are rotated: hello Ann Smith",
        "the old key is gone: the login page",
    ];
    assert_lines(&run("signed_cookies"), &expected);
}

#[test]
fn distributed_cron_shows_that_one_of_three_nodes_does_the_work() {
    let expected = [
        "monday: the report was sent 1 time by 3 nodes",
        "tuesday: the report was sent 1 time by 3 nodes",
        "the lock is free: true",
    ];
    assert_lines(&run("distributed_cron"), &expected);
}

#[test]
fn long_job_shows_that_a_lease_is_renewed_extended_and_lost() {
    let expected = [
        "after two leases the lock is held: true",
        "b would like to, but: another holder has the lock",
        "extended beyond ten leases: true",
        "a writes: accepted",
        "b writes: accepted",
        "a once more, late: refused",
        "the export was stopped: the lock was taken away, or its session ended",
    ];
    assert_lines(&run("long_job"), &expected);
}

#[test]
fn try_lock_shows_that_a_second_tab_gets_an_error_at_once() {
    let expected = [
        "ann's second tab, on b: another tab is paying already",
        "bob: paid",
        "ann's first tab: paid",
        "ann's second tab again: paid",
        "ann, logged out: please log in",
    ];
    assert_lines(&run("try_lock"), &expected);
}

#[test]
fn example_explains_why_server_is_unreachable() {
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
    output(name, example(name).arg(SANDBOX.url()))
}

fn output(name: &str, command: &mut Command) -> Vec<String> {
    let output = command.output().expect("the example runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned).collect()
}

fn example(name: &str) -> Command {
    let mut command = Command::new(program::example(name));
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
