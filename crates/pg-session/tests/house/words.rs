//! The words that this project does not use: each has a plain word of the field. The rule covers code, comments, tests,
//! SQL, documents and scripts, but not the archive in `docs/history`.

use std::fs;
use std::path::Path;

use crate::source::{is_name, root};

/// What to name instead: the node, caller, client, reader, statement or row.
const WORDS: [&str; 25] = [
    "anybody",
    "anyone",
    "births",
    "crowded",
    "deaf",
    "deafen",
    "dice",
    "everybody",
    "going on under",
    "hearing",
    "hears",
    "heir",
    "laden",
    "nobody",
    "patience",
    "remnant",
    "remnants",
    "somebody",
    "stands",
    "strangers",
    "those who",
    "told",
    "whoever",
    "whomever",
    "workshop",
];

/// `nobody` as a name, and why: the account of every Unix, or a role, channel or user of a test.
const NAMES: [&str; 8] =
    ["\"nobody\"", "'nobody'", "`nobody`", "nobody@", "=nobody", "= nobody", "LISTEN nobody", "ROLE nobody"];

/// Places that need a word, and why.
const ALLOWED: [(&str, &str); 2] = [
    ("crates/pg-session/tests/house/words.rs", "this list"),
    ("crates/pg-session/tests/it/connection_errors.rs", "a rule of `pg_hba.conf` for the role `nobody`"),
];

const FOLDERS: [&str; 7] = [".ci", "bench", "crates", "docs", "examples", "torture", ""];
const EXTENSIONS: [&str; 8] = ["css", "html", "js", "md", "rs", "sh", "sql", "toml"];

/// Every text file of the repository, and in each the lines with such a word.
pub fn everywhere() -> (usize, Vec<String>) {
    let (mut files, mut faults) = (0, Vec::new());
    let mut look = |path: &str| {
        let text = fs::read_to_string(root().join(path)).expect("a text file of the repository");
        files += 1;
        if ALLOWED.iter().all(|(allowed, _)| *allowed != path) {
            faults.extend(found(&text).into_iter().map(|fault| format!("{path}:{fault}")));
        }
    };
    FOLDERS.iter().for_each(|folder| visit(folder, &mut look));
    (files, faults)
}

fn visit(folder: &str, look: &mut dyn FnMut(&str)) {
    let mut names: Vec<String> = fs::read_dir(root().join(folder))
        .expect("a folder of the repository")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("names are UTF-8"))
        .collect();
    names.sort_unstable();
    for name in names {
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let is_folder = root().join(&path).is_dir();
        if is_folder && !folder.is_empty() && name != "target" && path != "docs/history" {
            visit(&path, look);
        } else if !is_folder && is_text(&path) {
            look(&path);
        }
    }
}

fn is_text(path: &str) -> bool {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    path == "dev" || path == ".ci/run" || extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// `line: word`, for each line of the text with such a word.
fn found(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let plain = NAMES.iter().fold(line.to_owned(), |line, name| line.replace(name, "")).to_lowercase();
        let words = WORDS.iter().filter(|word| contains_word(&plain, word));
        faults.extend(words.map(|word| format!("{number}: `{word}`: name the node, caller, client or row")));
    }
    faults
}

/// A name in code counts by its parts: `was_told` has the word `told`.
fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |char: char| is_name(char) && char != '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

#[test]
fn the_word_rule_bites() {
    for bad in
        ["// Whoever asks is told.", "fn nobody_is_told() {}", "a row that STANDS there", "those who wait"]
    {
        assert!(!found(bad).is_empty(), "{bad}");
    }
    for good in ["user=nobody", "LISTEN nobody", "let page = \"nobody\";", "an understanding", "hearts"] {
        assert_eq!(found(good), [""; 0], "{good}");
    }
    assert_eq!(
        found("fine\nwhoever was told"),
        [
            "2: `told`: name the node, caller, client or row",
            "2: `whoever`: name the node, caller, client or row"
        ]
    );
}
