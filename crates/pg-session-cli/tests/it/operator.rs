//! Mistakes of operators: empty names, missing rights, a command that is interrupted. The program says what to do.

use crate::admin::run;

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
