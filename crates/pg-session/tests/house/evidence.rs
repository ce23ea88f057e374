//! The field report: each line of the review is proved by tests that exist, or is listed as open.

use crate::source::{Source, root};

/// How many lines each section of the review has.
const SECTIONS: [(char, usize); 4] = [('K', 10), ('L', 14), ('M', 14), ('W', 15)];

fn faults(report: &str, sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for name in
        SECTIONS.iter().flat_map(|(letter, last)| (1..=*last).map(move |line| format!("{letter}{line}")))
    {
        let count = report.lines().filter(|row| row.starts_with(&format!("| {name} |"))).count();
        if count != 1 {
            faults.push(format!("{name} appears {count} times"));
        }
    }
    let (proved, _) = report.split_once("\n## Open\n").unwrap_or((report, ""));
    for row in proved.lines().filter(|row| row.starts_with("| ") && !row.starts_with("| line |")) {
        let evidence = row.trim_end_matches(" |").rsplit_once("| ").map_or("", |(_, cell)| cell);
        // In backticks is every second piece.
        let mut names = evidence.split('`').skip(1).step_by(2).peekable();
        if names.peek().is_none() {
            faults.push(format!("no evidence: {row}"));
        }
        faults.extend(
            names.filter(|name| !exists(name, sources)).map(|name| format!("`{name}` does not exist")),
        );
    }
    faults
}

/// A test, as `path below crates::name`, or a document.
fn exists(name: &str, sources: &[Source]) -> bool {
    match name.split_once("::") {
        Some((path, test)) => {
            let source = sources.iter().find(|source| source.path == format!("crates/{path}"));
            source.is_some_and(|source| source.text.contains(&format!("fn {test}(")))
        }
        None => name.ends_with(".md") && root().join(name).exists(),
    }
}

#[test]
fn the_field_report_names_tests_that_exist() {
    let faults = faults(&crate::papers::read("docs/history/field-report.md"), crate::source::workspace());
    assert!(faults.is_empty(), "docs/history/field-report.md:\n{}", faults.join("\n"));
}

#[test]
fn a_line_without_evidence_is_found() {
    let sources = [Source::new("crates/a/tests/b.rs", "#[test]\nfn it_holds() {}")];
    let names =
        SECTIONS.iter().flat_map(|(letter, last)| (1..=*last).map(move |line| format!("{letter}{line}")));
    let row = |name: &str| format!("| {name} | words | `a/tests/b.rs::it_holds` `README.md` |\n");
    let complete: String = names.map(|name| row(&name)).collect();
    assert_eq!(faults(&complete, &sources), [""; 0]);
    let twice = format!("{complete}\n## Open\n\n| K1 | again |\n");
    assert_eq!(faults(&twice, &sources), ["K1 appears 2 times"]);
    let missing = complete.replace(&row("M14"), "");
    assert_eq!(faults(&missing, &sources), ["M14 appears 0 times"]);
    let empty = complete.replace(&row("L3"), "| L3 | words | none |\n");
    assert_eq!(faults(&empty, &sources).len(), 1);
    let gone = complete.replace(&row("K2"), "| K2 | words | `a/tests/b.rs::it_was` `GONE.md` |\n");
    assert_eq!(faults(&gone, &sources).len(), 2);
}
