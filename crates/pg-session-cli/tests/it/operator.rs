//! Mistakes of operators: empty names, missing rights, a command that is interrupted. The program says what to do.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::admin::{Application, run};
use crate::support::{End, Program, WAIT_MAX};

impl Application {
    /// The connection string of a role that has the rights of a node, and no others.
    async fn url_of_application(&self, role: &str) -> String {
        let operations = include_str!("../../../../docs/operations.md");
        let grants = operations.split("```sql").nth(1).and_then(|rest| rest.split("```").next());
        let grants = grants.expect("the rights").replace("public", &self.schema);
        let grants = grants.replace("TO app;", &format!("TO {role};"));
        self.world
            .client
            .batch_execute(&format!("CREATE ROLE {role} LOGIN; {grants}"))
            .await
            .expect("a role");
        let url = self.world.url.replace("postgres@", &format!("{role}@"));
        assert_ne!(url, self.world.url);
        url
    }

    fn run_as(&self, url: &str, args: &[&str]) -> End {
        run(&[args, &["--database-url", url, "--schema", &self.schema]].concat(), "")
    }
}

/// The commands of a section of docs/runbooks.md.
fn commands(heading: &str) -> Vec<Vec<&'static str>> {
    let page = include_str!("../../../../docs/runbooks.md");
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let words = section.expect("the section").split('`').skip(1).step_by(2);
    let commands = words.filter_map(|code| code.strip_prefix("pg-session "));
    commands.map(|command| command.split_whitespace().collect()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_applications_role_can_end_all_by_the_runbook() {
    let app = Application::new("runbook").await;
    let url = app.url_of_application("runbook_app").await;
    for heading in ["End all sessions", "Restored backup"] {
        let session = app.node.create(1).await.unwrap();
        let commands = commands(heading).into_iter().filter(|command| command[0] == "revoke");
        let commands: Vec<_> = commands.collect();
        assert!(!commands.is_empty(), "{heading}");
        for command in commands {
            let more = if command.contains(&"--dry-run") { &[][..] } else { &["--yes"] };
            let more = if command.contains(&"--yes") { &[][..] } else { more };
            let end = app.run_as(&url, &[&command[..], more].concat());
            assert_eq!(end.code, Some(0), "{heading}, {command:?}: {end:?}");
        }
        assert!(!app.alive(&session).await, "{heading}");
    }
}

/// ```text
/// program   COMMIT ── waits for all nodes ── SIGINT ── says so
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_after_the_commit_says_that_it_is_ended() {
    let app = Application::new("interrupt").await;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        for by_handle in [true, false] {
            let session = app.node.create(1).await.unwrap();
            let handle = session.id().handle().to_string();
            let which = if by_handle { ["--handle", &handle] } else { ["--user", "1"] };
            let place = ["--everywhere", "--yes", "--database-url", &app.world.url, "--schema", &app.schema];
            // It has just joined, so it waits for one trust window after the commit.
            let mut program = Program::start(&[&["revoke"][..], &which, &place].concat());
            let began = Instant::now();
            while app.alive(&session).await {
                assert!(began.elapsed() < WAIT_MAX, "the session does not end");
            }
            program.signal(signal);
            let end = program.finish();
            assert_eq!((end.code, end.out.as_str()), (Some(128 + signal as i32), ""), "{end:?}");
            assert!(end.err.contains("the sessions are ended, and no receipt was written"), "{end:?}");
            let what_to_do = if by_handle { "after the trust window" } else { "run the same command again" };
            assert!(end.err.contains(what_to_do), "{end:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_revoke_says_that_its_receipt_is_not_logged() {
    let app = Application::new("repeat").await;
    app.node.create(1).await.unwrap();
    assert_eq!(app.node.user(1).delete().await.unwrap(), 1);
    let end = app.run(&["revoke", "--user", "1", "--everywhere", "--yes"], "");
    assert!(end.code == Some(0) && end.out.contains("gone everywhere after"), "{end:?}");
    assert!(end.err.contains("is not in the audit log"), "{end:?}");
}

/// A scheduled job has no variable with the user's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_actor_is_the_systems_user_also_without_variables() {
    let app = Application::new("nameless").await;
    app.node.audit().start(Duration::from_secs(3_600)).await.unwrap();
    app.node.create(1).await.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg-session"));
    command.args([
        "revoke",
        "--user",
        "1",
        "--yes",
        "--database-url",
        &app.world.url,
        "--schema",
        &app.schema,
    ]);
    command.env_remove("SUDO_USER").env_remove("USER").env("LOGNAME", "");
    let end = command.output().expect("the program starts");
    assert!(end.status.success(), "{end:?}");
    let own = Command::new("id").arg("-un").output().expect("id is there");
    let own = String::from_utf8(own.stdout).expect("a text");
    let own = if own.trim().is_empty() { "pg-session" } else { own.trim() };
    let entries = app.node.audit().page(None, None).await.unwrap();
    assert_eq!(entries[0].actor.as_deref(), Some(own));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_on_the_audit_log_is_named() {
    let app = Application::new("auditor").await;
    let url = app.url_of_application("auditor_app").await;
    app.node.audit().start(Duration::from_secs(3_600)).await.unwrap();
    app.node.create(1).await.unwrap();
    assert_eq!(app.node.user(1).delete().await.unwrap(), 1);
    for (args, what_to_do) in [
        (&["audit"][..], "GRANT SELECT ON "),
        (&["erase", "--user", "1", "--yes"], "GRANT SELECT, DELETE ON "),
        (&["audit", "--off"], "connect as the owner of "),
        (&["audit", "--on", "1h"], "connect as the owner of "),
    ] {
        let end = app.run_as(&url, args);
        assert_eq!((end.code, end.out.as_str()), (Some(1), ""), "{args:?}: {end:?}");
        assert!(end.err.contains(what_to_do) && !end.err.contains("\"Rights\""), "{args:?}: {end:?}");
    }
    let grant = format!("GRANT SELECT ON {}.session_audit TO auditor_app", app.schema);
    app.world.client.batch_execute(&grant).await.unwrap();
    let end = app.run_as(&url, &["audit"]);
    assert!(end.code == Some(0) && end.out.lines().count() == 2, "{end:?}");
}

/// With the grants of docs/audit.md, the SQL there and the command can be run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_reads_the_log_with_the_pages_grants() {
    let app = Application::new("reader").await;
    app.node.audit().start(Duration::from_secs(3_600)).await.unwrap();
    let session = app.node.create(42).await.unwrap();
    assert_eq!(app.node.user(42).delete().await.unwrap(), 1);
    let page = include_str!("../../../../docs/audit.md");
    let own = |text: &str| {
        let text = text.replace("public", &app.schema).replace("auditor", "reading_auditor");
        format!("SET LOCAL search_path = {}; {text}", app.schema)
    };
    let blocks: Vec<&str> = page.split("```sql").filter_map(|rest| rest.split("```").next()).collect();
    let grants = blocks.iter().position(|block| block.contains("CREATE ROLE auditor")).expect("the grants");
    app.world.client.batch_execute(&own(blocks[grants])).await.unwrap();
    let query = format!("SET ROLE reading_auditor; {}; RESET ROLE", own(blocks[grants + 1]));
    app.world.client.batch_execute(&query).await.unwrap();

    let url = app.world.url.replace("postgres@", "reading_auditor@");
    assert_ne!(url, app.world.url);
    let end = app.run_as(&url, &["audit", "--user", "42"]);
    assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
    assert!(end.out.contains(&session.id().handle().to_string()), "{end:?}");
    let elsewhere = run(&["audit", "--database-url", &url, "--schema", "absent"], "");
    assert_eq!((elsewhere.code, elsewhere.out.as_str()), (Some(1), ""), "{elsewhere:?}");
    assert!(elsewhere.err.contains("there is no audit log"), "{elsewhere:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_is_no_handle_is_wrong_usage() {
    let app = Application::new("digits").await;
    for args in [
        &["show", "zz"][..],
        &["revoke", "--handle", "zz", "--yes"],
        &["revoke", "--user", "1", "--except", "zz", "--yes"],
    ] {
        let end = app.run(args, "");
        assert_eq!((end.code, end.out.as_str()), (Some(2), ""), "{args:?}: {end:?}");
        assert!(end.err.contains("a handle is 8 to 32 digits"), "{args:?}: {end:?}");
    }
    let end = app.run(&["list", "--user", "99"], "");
    assert_eq!((end.code, end.err.as_str()), (Some(0), "no live session\n"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_tables_are_explained_without_items_of_rust() {
    let app = Application::new("bare").await;
    let end = run(&["list", "--database-url", &app.world.url, "--schema", "bare_of_tables"], "");
    assert_eq!((end.code, end.out.as_str()), (Some(1), ""), "{end:?}");
    assert!(end.err.contains("run `pg-session migrate`") && !end.err.contains("::"), "{end:?}");
}

/// The variable in a script was not set.
#[test]
fn an_empty_name_is_wrong_usage_and_not_nothing_found() {
    for args in [
        &["list", "--user", ""][..],
        &["list", "--group", ""],
        &["list", "--label", ""],
        &["revoke", "--user", "", "--yes"],
        &["revoke", "--user=", "--dry-run"],
        &["revoke", "--group", "", "--yes"],
        &["revoke", "--label", "", "--yes"],
        &["revoke", "--handle", "", "--yes"],
        &["revoke", "--user", "1", "--except", "", "--yes"],
        &["revoke", "--user", "1", "--by", "", "--yes"],
        &["export", "--user", ""],
        &["erase", "--user", "", "--yes"],
        &["audit", "--user", ""],
        &["show", ""],
        &["explain", "", "--offline"],
        &["list", "--database-url", ""],
        &["list", "--database-url", "postgres://h/d", "--listen-url", ""],
    ] {
        let end = run(args, "");
        assert_eq!((end.code, end.out.as_str()), (Some(2), ""), "{args:?}: {end:?}");
        assert!(end.err.contains("a value is required for"), "{args:?}: {end:?}");
    }
}
