//! The documents: a test, a setting or a file that one of them names has to exist, so that renaming one is noticed.

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
fn a_guard_without_a_control_is_found() {
    let probes =
        Source::new("failpoints.rs", "pub enum Guard {\n    /// One.\n    One = 1,\n    Two = 2,\n}");
    let test = Source::new("t.rs", "node.probes().remove(Guard::One);");
    let faults = unguarded(&probes, &[&test], "| `One` | … |");
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.contains("Two")));
}
