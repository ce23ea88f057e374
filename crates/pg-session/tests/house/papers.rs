//! The documents: a test, setting or file that one of them names has to exist, so that a rename is noticed.

use std::fs;

use crate::source::{Source, root};

const PAPERS: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];

/// Where a document's paths to files may start.
const BASES: [&str; 5] =
    ["", "crates/pg-session/", "crates/pg-session/src/", "crates/pg-session/tests/", "crates/"];

/// One document.
pub struct Paper {
    name: String,
    text: String,
}

pub fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect("a document of the repository")
}

/// The archive in `docs/history` is not among them: it names what existed when it was written.
pub fn all() -> Vec<Paper> {
    let pages = ["docs", "docs/decisions"].into_iter().flat_map(|folder| {
        let pages = fs::read_dir(root().join(folder)).expect("the pages of the repository");
        pages.map(move |page| format!("{folder}/{}", page.expect("a page").file_name().display()))
    });
    let pages = pages.filter(|page| page.ends_with(".md"));
    let names = PAPERS.iter().map(ToString::to_string).chain(pages);
    names.map(|name| Paper { text: read(&name), name }).collect()
}

/// What is in backticks and is a file's path or a name with two underscores or more.
pub fn check(paper: &Paper, sources: &[&Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for (line, number) in paper.text.lines().zip(1..) {
        // In backticks is every second piece.
        for word in line.split('`').skip(1).step_by(2) {
            let exists = if is_path(word) {
                BASES.iter().any(|base| root().join(base).join(word).exists())
            } else if is_name(word) {
                sources.iter().any(|source| contains_word(&source.text, word))
            } else {
                continue;
            };
            if !exists {
                faults.push(format!("{}:{number}: `{word}` does not exist (any more)", paper.name));
            }
        }
    }
    faults
}

/// The guards of `failpoints.rs` that no test switches off, or that the table in CONTRIBUTING.md does not have.
pub fn unguarded(probes: &Source, tests: &[&Source], contributing: &str) -> Vec<String> {
    let guards = probes.code.split("pub enum Guard {").nth(1).and_then(|rest| rest.split('}').next());
    let names = guards.unwrap_or_default().split(',').filter_map(|guard| guard.split('=').next());
    let mut faults = Vec::new();
    for name in names.map(str::trim).filter(|name| !name.is_empty()) {
        if !tests.iter().any(|test| test.lines_with(&format!("Guard::{name})")).next().is_some()) {
            faults.push(format!("{}: no test runs without `Guard::{name}`", probes.path));
        }
        if !contributing.contains(&format!("| `{name}` |")) {
            faults.push(format!("CONTRIBUTING.md: the table of guards does not have `{name}`"));
        }
    }
    faults
}

/// The rows of the guards whose file does not have the named item, or whose test does not exist.
pub fn stale_guards(contributing: &str, sources: &[&Source]) -> Vec<String> {
    let (_, guards) = contributing.split_once("\n## Guards\n").expect("the guards");
    let (mut faults, mut files) = (Vec::new(), String::new());
    for row in guards.lines().filter(|row| row.starts_with("| ") && row.contains('`')) {
        let (guard, tests) =
            (row.split(" | ").next().unwrap_or(row), row.rsplit(" | ").next().unwrap_or(row));
        let (paths, items): (Vec<_>, Vec<_>) =
            guard.split('`').skip(1).step_by(2).partition(|word| is_path(word));
        if !paths.is_empty() {
            let read = |path| fs::read_to_string(root().join(BASES[2]).join(path)).unwrap_or_default();
            files = paths.into_iter().map(read).collect();
        }
        // The first table names no files.
        let gone = items.iter().filter(|item| !files.is_empty() && !contains_word(&files, item));
        faults.extend(gone.map(|item| format!("CONTRIBUTING.md: `{item}` is not in its file: {guard}")));
        let is_test = |name: &str| {
            sources.iter().any(|source| {
                // Schedules of the cache are made by a macro.
                source.text.contains(&format!("fn {name}("))
                    || source.path.ends_with("/schedules.rs") && contains_word(&source.text, name)
            })
        };
        let missing = tests.split('`').skip(1).step_by(2).filter(|name| !is_test(name));
        faults.extend(missing.map(|name| format!("CONTRIBUTING.md: there is no test `{name}`: {guard}")));
    }
    faults
}

/// A block of code behind a link to a file is a part of that file.
pub fn shows(page: &str, path: &str, file: &str) -> Result<(), String> {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, section) = page.split_once(&format!("](../{path})")).ok_or(format!("no link to {path}"))?;
    let block = section.split("```").nth(1).unwrap_or_default().trim_start_matches("text");
    if block.lines().count() > 3 && words(file).contains(&words(block)) {
        Ok(())
    } else {
        Err(format!("{path} does not contain this block:{block}"))
    }
}

fn is_path(word: &str) -> bool {
    let suffix = [".rs", ".sql", ".toml", ".md"].iter().any(|suffix| word.ends_with(suffix));
    suffix && word.chars().all(|char| char.is_ascii_alphanumeric() || "_-./".contains(char))
}

fn is_name(word: &str) -> bool {
    word.matches('_').count() >= 2
        && word.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_')
}

fn contains_word(text: &str, word: &str) -> bool {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

#[test]
fn what_does_not_exist_is_found() {
    let source = Source::new("a.rs", "fn a_test_that_exists() {}\nfn not_an_abc_test_x() {}");
    let paper = |text: &str| Paper { name: "x.md".to_owned(), text: text.to_owned() };
    let faults = |text: &str| check(&paper(text), &[&source]).len();
    assert_eq!(faults("| I1 | `src/cache/fill.rs` | `a_test_that_exists` | `trust` and `SessionId` |"), 0);
    assert_eq!(faults("| I1 | `src/cache/full.rs` |"), 1);
    assert_eq!(faults("`a_test_that_is_gone` and `an_abc_test`"), 2);
}

#[test]
fn a_guard_without_its_code_or_its_test_is_found() {
    let test = Source::new("crates/a/tests/b.rs", "fn it_holds() {}");
    let page = |row: &str| format!("\n## Guards\n\n| guard | without |\n| --- | --- |\n{row}\n");
    let faults = |row: &str| stale_guards(&page(row), &[&test]).len();
    assert_eq!(faults("| `FillTicket` | served | `it_holds` |"), 0);
    assert_eq!(faults("| one clock (`clock.rs`, `Clock`) | two | `it_holds` |"), 0);
    assert_eq!(faults("| one clock (`clock.rs`, `Sundial`) | two | `it_holds` |"), 1);
    assert_eq!(faults("| one clock (`clock.rs`, `Clock`) | two | `it_held` |"), 1);
}

#[test]
fn page_about_sql_shows_the_tested_examples() {
    for driver in ["sqlx", "diesel"] {
        let path = format!("examples/drivers/src/with_{driver}.rs");
        assert_eq!(shows(&read("docs/sql.md"), &path, &read(&path)), Ok(()));
    }
}

#[test]
fn code_that_differs_from_its_file_is_found() {
    let page = "With [it](../a.rs):\n\n```text\nlet a = 1;\nlet b = 2;\nlet c = 3;\n```\n";
    assert_eq!(shows(page, "a.rs", "fn f() {\n    let a = 1;\n    let b = 2;\n    let c = 3;\n}"), Ok(()));
    assert!(shows(page, "a.rs", "let a = 1;\nlet b = 3;\nlet c = 3;").is_err());
    assert!(shows(page, "b.rs", "let a = 1;\nlet b = 2;\nlet c = 3;").is_err());
}

#[test]
fn a_guard_without_a_control_is_found() {
    let probes =
        Source::new("failpoints.rs", "pub enum Guard {\n    /// One.\n    One = 1,\n    Two = 2,\n}");
    let test = Source::new("t.rs", "node.probes().remove(Guard::One);");
    let faults = unguarded(&probes, &[&test], "| `One` | … |");
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.contains("Two")));
}
