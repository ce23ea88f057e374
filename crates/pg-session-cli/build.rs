//! Reads the code blocks of the documents for `tests/it/documents.rs`, which runs them.
//!
//! Each Rust block becomes a module, named after its page and its place there: `operations_1`. Each SQL block becomes an
//! element of `SQL`. A block in another language than text, shell, Rust or SQL is an error.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What a program of the documents takes from its environment, and what the test gives it instead.
const REPLACED: [(&str, &str); 2] =
    [("std::env::var(", "crate::documents::variable("), ("TcpListener::bind(", "crate::documents::bind(")];

struct Block {
    language: String,
    /// The number of its first line.
    line: usize,
    text: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let (mut modules, mut statements) = (String::new(), String::new());
    for page in pages(&root)? {
        println!("cargo::rerun-if-changed={}", page.display());
        let name = page.strip_prefix(&root)?.display().to_string();
        let stem = page.file_stem().unwrap_or_default().to_string_lossy().to_lowercase().replace('-', "_");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for block in blocks(&fs::read_to_string(&page)?) {
            let place = format!("{name}:{}", block.line);
            match block.language.split(',').next() {
                Some("rust") => {
                    let count = counts.entry("rust").or_default();
                    *count += 1;
                    writeln!(
                        modules,
                        "/// {place}\npub(super) mod {stem}_{count} {{\n{}}}",
                        rust(&block.text)
                    )?;
                }
                Some("sql") => {
                    writeln!(statements, "({name:?}, {place:?}, {:?}),", block.text)?;
                }
                Some("text" | "sh") => {}
                _ => return Err(format!("{place}: this block's language is not one that is tested").into()),
            }
        }
    }
    for folder in ["", "docs", "docs/decisions", "docs/history"] {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("blocks.rs"), modules)?;
    fs::write(out.join("statements.rs"), format!("&[{statements}]"))?;
    Ok(())
}

fn pages(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "docs/decisions", "docs/history"] {
        for entry in fs::read_dir(root.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (line, number) in page.lines().zip(1..) {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block { language: language.to_owned(), line: number + 1, text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    blocks.extend(open);
    blocks
}

/// As rustdoc reads it: lines that begin with `# ` are code, and statements without a function are the body of one.
fn rust(block: &str) -> String {
    let mut text = String::new();
    for line in block.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let is_function = line.starts_with("fn ") || line.starts_with("async fn ");
        text.push_str(if is_function { "pub " } else { "" });
        text.extend([line, "\n"]);
    }
    for (from, to) in REPLACED {
        text = text.replace(from, to);
    }
    let text = replace_urls(&text);
    if text.contains("fn ") {
        return text;
    }
    format!("pub fn example() -> Result<(), impl std::fmt::Debug> {{\n{text}}}\n")
}

fn replace_urls(text: &str) -> String {
    let mut pieces = text.split("\"postgres://");
    let mut replaced = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (url, rest) = piece.split_once('"').unwrap_or((piece, ""));
        replaced.extend(["crate::documents::url(\"", url, "\")", rest]);
    }
    replaced
}
