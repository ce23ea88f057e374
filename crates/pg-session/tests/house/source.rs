//! The source files of the workspace, with comments, texts and test modules separated from code.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// One file.
pub struct Source {
    /// From the root of the repository, with `/`.
    pub path: String,
    pub text: String,
    /// The text with comments, literals and test items blanked out. Line by line, and character by character, where
    /// the text has them.
    pub code: String,
    /// The string literals outside test items, each with its line.
    pub strings: Vec<(usize, String)>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let (mut code, literals) = split(text);
        let tests = if path.contains("/src/") && path.ends_with("/tests.rs") {
            // A test module in a file of its own.
            blank(&mut code);
            std::iter::once(0..code.len()).collect()
        } else {
            blank_tests(&mut code)
        };
        let outside = |at: usize| !tests.iter().any(|test| test.contains(&at));
        let strings = literals.into_iter().filter(|(at, _)| outside(*at));
        let strings = strings.map(|(at, literal)| (line_of(&code, at), literal)).collect();
        Self { path: path.to_owned(), text: text.to_owned(), code: code.into_iter().collect(), strings }
    }

    /// The lines, from 1, in which the code contains `needle`, not as the end of a longer name.
    pub fn lines_with<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        let named = needle.starts_with(is_name);
        let has = move |line: &str| {
            line.match_indices(needle).any(|(at, _)| !(named && line[..at].ends_with(is_name)))
        };
        self.code.lines().zip(1..).filter(move |(line, _)| has(line)).map(|(_, number)| number)
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    assert!(
        root.join("crates").is_dir(),
        "these tests look at the whole repository, not at a packaged crate"
    );
    root
}

/// Every Rust file of every crate, of the benchmarks and of the example of the drivers, read once.
pub fn workspace() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> =
        LazyLock::new(|| read(&["crates", "bench/src", "examples/drivers"]));
    &SOURCES
}

/// Every Rust file of the torture test and of the model, read once.
pub fn torture() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| read(&["torture"]));
    &SOURCES
}

fn read(folders: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    folders.iter().for_each(|folder| visit(&root(), folder, &mut sources));
    assert!(!sources.is_empty(), "no source files found");
    sources
}

fn visit(root: &Path, path: &str, sources: &mut Vec<Source>) {
    let mut names: Vec<String> = fs::read_dir(root.join(path))
        .expect("a folder of the repository")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("names are UTF-8"))
        .filter(|name| name != "target")
        .collect();
    names.sort_unstable();
    for name in names {
        let path = format!("{path}/{name}");
        if root.join(&path).is_dir() {
            visit(root, &path, sources);
        } else if path.ends_with(".rs") {
            let text = fs::read_to_string(root.join(&path)).expect("a source file");
            sources.push(Source::new(&path, &text));
        }
    }
}

/// Code with blanks for comments and literals, and the string literals with their offsets.
fn split(text: &str) -> (Vec<char>, Vec<(usize, String)>) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut strings) = (chars.clone(), Vec::new());
    let mut at = 0;
    while at < chars.len() {
        let end = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => find(&chars, at, &['\n']),
            ('/', Some('*')) => end_of_block_comment(&chars, at),
            ('r', _) if let Some(hashes) = raw_string_at(&chars, at) => {
                let mut close = vec!['"'];
                close.resize(hashes + 1, '#');
                let open = at + hashes + 2;
                let end = find(&chars, open, &close);
                strings.push((at, chars[open..end].iter().collect()));
                end + close.len()
            }
            ('"', _) => {
                let end = end_of_quoted(&chars, at, '"');
                strings.push((at, chars[at + 1..end - 1].iter().collect()));
                end
            }
            ('\'', Some('\\')) => end_of_quoted(&chars, at, '\''),
            ('\'', _) if chars.get(at + 2) == Some(&'\'') => at + 3,
            _ => {
                at += 1;
                continue;
            }
        };
        let end = end.min(chars.len());
        blank(&mut code[at..end]);
        at = end;
    }
    (code, strings)
}

fn find(chars: &[char], from: usize, what: &[char]) -> usize {
    (from..chars.len()).find(|&at| chars[at..].starts_with(what)).unwrap_or(chars.len())
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < chars.len() {
        if chars[at..].starts_with(&['/', '*']) {
            (depth, at) = (depth + 1, at + 2);
        } else if chars[at..].starts_with(&['*', '/']) {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The number of hashes, if a raw string begins here.
fn raw_string_at(chars: &[char], at: usize) -> Option<usize> {
    // `br` and `cr` begin one as well, `r` at the end of a name does not.
    let before = match at.checked_sub(1).map(|before| chars[before]) {
        Some('b' | 'c') => at.checked_sub(2).map(|before| chars[before]),
        other => other,
    };
    if before.is_some_and(is_name) {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|&&char| char == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

fn end_of_quoted(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// Blanks the items behind `#[cfg(test)]`, and returns their places.
fn blank_tests(code: &mut [char]) -> Vec<std::ops::Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let mark: Vec<char> = MARK.chars().collect();
    let (mut tests, mut from) = (Vec::new(), 0);
    loop {
        let start = find(code, from, &mark);
        if start == code.len() {
            return tests;
        }
        let body = (start..code.len()).find(|&at| matches!(code[at], '{' | ';')).unwrap_or(start);
        let end = if code.get(body) == Some(&'{') { end_of_braces(code, body) } else { body + 1 };
        blank(&mut code[start..end]);
        tests.push(start..end);
        from = end;
    }
}

/// The offset after the brace that closes the one at `open`.
pub fn end_of_braces(code: &[char], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, char) in code.iter().enumerate().skip(open) {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

pub fn line_of(code: &[char], at: usize) -> usize {
    1 + code[..at].iter().filter(|&&char| char == '\n').count()
}

pub fn is_name(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn blank(chars: &mut [char]) {
    chars.iter_mut().filter(|char| **char != '\n').for_each(|char| *char = ' ');
}

#[test]
fn code_is_distinguished_from_comments_and_literals() {
    let text =
        "// one\nfn f<'a>(x: &'a str) -> char { /* two /* nested */ */ g(\"three \\\" //\"); '\"' } // four";
    let source = Source::new("x.rs", text);
    let code = source.code.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code, "fn f<'a>(x: &'a str) -> char { g( ); }");
    assert_eq!(source.strings, [(2, "three \\\" //".to_owned())]);
}

#[test]
fn raw_strings_end_where_their_hashes_do() {
    let source = Source::new("x.rs", "let a = r#\"a \"quoted\" word\"#; let var\" = br\"x\\\"; b");
    assert_eq!(source.strings[0].1, "a \"quoted\" word");
    let source = Source::new("x.rs", "let a = br\"x\\\"; after");
    assert_eq!(source.strings, [(1, "x\\".to_owned())]);
    assert!(source.code.contains("after"));
}

#[test]
fn tests_are_not_code() {
    let text =
        "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { c(\"d\"); } }\n#[cfg(test)]\nmod far;\nfn e() {}";
    let source = Source::new("x.rs", text);
    assert_eq!(source.code.split_whitespace().collect::<String>(), "fna(){}fne(){}");
    assert!(source.strings.is_empty());
    assert_eq!(source.lines_with("fn e").collect::<Vec<_>>(), [6]);
    assert_eq!(Source::new("crates/x/src/y/tests.rs", "fn a() {}").code.trim(), "");
}
