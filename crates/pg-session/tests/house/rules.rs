//! Rules for single files. Each returns its faults as `path:line: what is wrong, and what to do`.

use crate::source::{Source, is_name};

/// STYLE: 100 to 300 lines is home.
const LINES_MAX: usize = 600;

const LIBRARY: &str = "crates/pg-session/src/";

/// Files that may sleep in tests, and why.
const SLEEPERS: [(&str, &str); 4] = [
    ("crates/pg-sandbox/tests/cleanup.rs", "kills at arbitrary moments"),
    ("crates/pg-sandbox/tests/proxy.rs", "spaces out what it sends, to see the proxy's delay"),
    (
        "crates/pg-session/tests/it/crash.rs",
        "paces clients that try again, and looks at what a fault has done",
    ),
    ("crates/pg-session/tests/it/history.rs", "random faults last for a random time"),
];

/// Files that count deadlines with tokio's clock, and why. They decide nothing about sessions by it.
const DEADLINES: [(&str, &str); 8] = [
    ("crates/pg-session/src/postgres/attempts.rs", "bounds the pauses between attempts to connect"),
    ("crates/pg-session/src/postgres/connection.rs", "bounds the wait for a connection"),
    ("crates/pg-session/src/postgres/call.rs", "bounds a statement"),
    ("crates/pg-session/src/manager/shutdown.rs", "bounds the shutdown"),
    ("crates/pg-session/src/writer/in_flight.rs", "tells when a statement is slow"),
    (
        "crates/pg-session/src/writer/blocked.rs",
        "bounds and paces the retries of writes whose rows are locked",
    ),
    ("crates/pg-session/src/invalidation/proof.rs", "paces the beats and bounds the wait for a tick"),
    ("crates/pg-session/src/writer/touch.rs", "paces the retries of accesses whose rows are locked"),
];

pub fn header(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    if first.starts_with("//! ") || first.starts_with("#![doc = include_str!") {
        return Vec::new();
    }
    vec![format!("{}:1: open the file with `//!`: what it owns, its states, what it never does", source.path)]
}

/// A function's name, a test's above all, has a bound. Generated names are not seen here.
pub fn names(source: &Source) -> Vec<String> {
    const NAME_CHARS_MAX: usize = 60;
    let mut faults = Vec::new();
    for (line, number) in source.text.lines().zip(1..) {
        let Some((_, rest)) = line.split_once("fn ") else { continue };
        let name: String = rest.chars().take_while(|&char| is_name(char)).collect();
        if name.len() > NAME_CHARS_MAX {
            faults.push(format!(
                "{}:{number}: `{name}` has more than {NAME_CHARS_MAX} characters",
                source.path
            ));
        }
    }
    faults
}

pub fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= LINES_MAX {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines, at most {LINES_MAX}; split it by concept", source.path)]
}

pub fn clock(source: &Source) -> Vec<String> {
    if !source.path.starts_with(LIBRARY) || source.path.ends_with("src/clock.rs") {
        return Vec::new();
    }
    // Only tokio's `Instant`, under its full name or imported as the only one.
    let counts_deadlines = DEADLINES.iter().any(|(path, _)| source.path == *path)
        && !source.code.contains("std::time::Instant")
        && !source.code.lines().any(|line| line.contains("use std::time::") && line.contains("Instant"));
    let mut faults = Vec::new();
    for reading in ["Instant::now", "SystemTime::now", ".elapsed()"] {
        if reading == "Instant::now" && counts_deadlines {
            continue;
        }
        let lines = source.lines_with(reading);
        faults.extend(lines.map(|line| format!("{}:{line}: `{reading}`: ask `Clock`", source.path)));
    }
    faults
}

pub fn sql(source: &Source) -> Vec<String> {
    if !source.path.starts_with(LIBRARY) || source.path.contains("/src/postgres/") {
        return Vec::new();
    }
    let statements = source.strings.iter().filter(|(_, text)| is_sql(text));
    statements.map(|(line, _)| format!("{}:{line}: SQL; move it to src/postgres", source.path)).collect()
}

/// A statement by its first word, or by the words that belong together in one.
pub fn is_sql(text: &str) -> bool {
    const FIRST: [&str; 19] = [
        "SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "CREATE", "ALTER", "DROP", "TRUNCATE", "GRANT",
        "REVOKE", "BEGIN", "COMMIT", "ROLLBACK", "LISTEN", "NOTIFY", "SET", "LOCK", "COPY",
    ];
    const TOGETHER: [&[&str]; 7] = [
        &["select ", " from "],
        &["insert into ", " values"],
        &["update ", " set ", "="],
        &["delete from "],
        &["create ", " table "],
        &["pg_catalog."],
        &["pg_notify("],
    ];
    let plain = text.replace("\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let first = plain.split(|char: char| !char.is_ascii_alphabetic()).next().unwrap_or_default();
    let lower = plain.to_lowercase();
    FIRST.contains(&first) || TOGETHER.iter().any(|words| words.iter().all(|word| lower.contains(word)))
}

pub fn sqlstate(source: &Source) -> Vec<String> {
    if !source.path.starts_with(LIBRARY) || source.path.ends_with("src/postgres/failure.rs") {
        return Vec::new();
    }
    let lines = source.lines_with("SqlState");
    lines.map(|line| format!("{}:{line}: SQLSTATEs are read in postgres/failure.rs", source.path)).collect()
}

pub fn unwrap(source: &Source) -> Vec<String> {
    // The test kit runs in tests; its front page states the reason.
    let in_tests = source.path.starts_with("crates/pg-session-test/");
    if in_tests || !source.path.contains("/src/") && !source.path.contains("/examples/") {
        return Vec::new();
    }
    let lines: Vec<&str> = source.text.lines().collect();
    // The lint's own way to state an exception, on one of the three lines before.
    let excused = |line: usize| {
        lines[line.saturating_sub(4)..line - 1].iter().any(|line| {
            line.contains("allow(clippy::") && line.contains("_used") && line.contains("reason =")
        })
    };
    let mut faults = Vec::new();
    for call in [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("] {
        let lines = source.lines_with(call).filter(|&line| !excused(line));
        faults.extend(
            lines.map(|line| format!("{}:{line}: `{call}`: return an error, or state a reason", source.path)),
        );
    }
    faults
}

/// A test waits for a signal. What sends none is polled. A nap between two polls is fine if one of the lines just
/// before it asserts a deadline.
pub fn sleeping(source: &Source) -> Vec<String> {
    if !source.path.contains("/tests/") || SLEEPERS.iter().any(|(path, _)| source.path == *path) {
        return Vec::new();
    }
    let lines: Vec<&str> = source.code.lines().collect();
    let is_nap = |line: usize| {
        lines[line.saturating_sub(4)..line - 1]
            .iter()
            .any(|line| line.contains("assert!(") && (line.contains("now()") || line.contains("elapsed()")))
    };
    let sleeps = source.lines_with("sleep(").filter(|&line| !is_nap(line));
    let fault = "a sleep; wait for a signal, or nap between two looks that assert a deadline";
    sleeps.map(|line| format!("{}:{line}: {fault}", source.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SRC: &str = "crates/pg-session/src/cache/mod.rs";

    #[track_caller]
    fn bites(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) {
        assert_eq!(rule(&Source::new(path, text)).len(), 1, "{path}: {text}");
    }

    #[track_caller]
    fn passes(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) {
        assert_eq!(rule(&Source::new(path, text)), [""; 0], "{path}: {text}");
    }

    #[test]
    fn the_header_rule_bites() {
        bites(header, SRC, "use std::fmt;\n//! Too late.");
        bites(header, SRC, "");
        passes(header, SRC, "//! What it owns.\n");
        passes(header, SRC, "#![doc = include_str!(\"../README.md\")]\n");
    }

    #[test]
    fn the_length_rule_bites() {
        bites(length, SRC, &"//! line\n".repeat(LINES_MAX + 1));
        passes(length, SRC, &"//! line\n".repeat(LINES_MAX));
    }

    #[test]
    fn the_name_rule_bites() {
        bites(names, SRC, &format!("async fn {}() {{}}", "x".repeat(61)));
        passes(names, SRC, &format!("fn {}() {{}}", "x".repeat(60)));
    }

    #[test]
    fn the_clock_rule_bites() {
        let deadlines = "crates/pg-session/src/postgres/call.rs";
        bites(clock, SRC, "let now = std::time::Instant::now();");
        bites(clock, SRC, "let now = SystemTime::now();");
        bites(clock, SRC, "let age = started.elapsed();");
        bites(clock, SRC, "let now = tokio::time::Instant::now();");
        bites(clock, deadlines, "let now = std::time::Instant::now();");
        bites(clock, deadlines, "use std::time::{Duration, Instant};\nlet now = Instant::now();");
        bites(clock, deadlines, "let now = SystemTime::now();");
        passes(clock, deadlines, "use std::time::Duration;\nlet now = tokio::time::Instant::now();");
        passes(clock, "crates/pg-session/src/clock.rs", "Instant::now()");
        passes(clock, SRC, "// Instant::now()\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }");
    }

    #[test]
    fn the_sql_rule_bites() {
        bites(sql, SRC, "query(\"SELECT 1\")");
        bites(sql, SRC, "query(\"select s.id\\n from sessions s\")");
        bites(sql, SRC, "query(r#\"update \"t\" set x = 1\"#)");
        bites(sql, SRC, "query(\"COMMIT\")");
        bites(sql, SRC, "query(\"insert into t values (1)\")");
        passes(sql, "crates/pg-session/src/postgres/load.rs", "query(\"SELECT 1\")");
        passes(sql, SRC, "// SELECT 1 FROM t\nfail(\"the session could not be updated; select another\")");
    }

    #[test]
    fn the_sqlstate_rule_bites() {
        bites(sqlstate, SRC, "use tokio_postgres::error::SqlState;");
        passes(sqlstate, "crates/pg-session/src/postgres/failure.rs", "use tokio_postgres::error::SqlState;");
    }

    #[test]
    fn the_unwrap_rule_bites() {
        bites(unwrap, SRC, "let x = y.unwrap();");
        bites(unwrap, SRC, "let x = y.expect(\"there\");");
        bites(unwrap, "crates/pg-session/examples/a.rs", "let x = y.unwrap();");
        bites(unwrap, SRC, "#[allow(clippy::expect_used)]\nlet x = y.expect(\"there\");");
        passes(unwrap, SRC, "#[allow(clippy::expect_used, reason = \"r\")]\nlet x = y.expect(\"there\");");
        passes(unwrap, SRC, "let x = y.unwrap_or(1);\n#[cfg(test)]\nmod tests { fn f() { y.unwrap(); } }");
        passes(unwrap, "crates/pg-session/tests/a.rs", "let x = y.unwrap();");
    }

    #[test]
    fn the_sleep_rule_bites() {
        bites(sleeping, "crates/pg-session/tests/it/a.rs", "tokio::time::sleep(SECOND).await;");
        bites(sleeping, "crates/pg-session/tests/it/a.rs", "std::thread::sleep(SECOND);");
        bites(sleeping, "crates/pg-session/tests/it/a.rs", "while !ready() {\nsleep(SECOND).await;\n}");
        let nap = "while !ready() {\nassert!(Instant::now() < deadline);\nsleep(SECOND).await;\n}";
        passes(sleeping, "crates/pg-session/tests/it/a.rs", nap);
        passes(sleeping, SLEEPERS[0].0, "thread::sleep(SECOND);");
        passes(sleeping, "crates/pg-session/tests/it/a.rs", "fn nodes_do_not_sleep() {}");
        passes(sleeping, SRC, "tokio::time::sleep(self.interval).await;");
    }
}
