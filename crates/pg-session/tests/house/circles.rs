//! Circles: files of one crate that use each other, directly or through others.
//!
//! A file uses the file that defines a name, not a file on the way that only re-exports it. So a module may collect
//! the names of its children. A child may also use what its parent defines, and the parent the child: they are one
//! module. Siblings may not.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, end_of_braces, is_name};

type Path = Vec<String>;

/// One crate's modules, each with its file.
struct Crate<'a> {
    files: BTreeMap<Path, File<'a>>,
}

struct File<'a> {
    source: &'a Source,
    uses: Vec<Use>,
}

/// A path in a file: absolute, from the crate's root.
struct Use {
    path: Path,
    /// The name under which a `pub use` shows it, `*` for all names.
    shown_as: Option<String>,
}

/// Circles that are still there, as `folder: files`. Remove them, and add none: the list only shrinks.
pub const KNOWN: &[&str] = &[];

/// The faults of all crates: circles that no line of `known` covers, and lines that no circle needs.
///
/// A circle that lost a file is still covered, so that it can be removed in steps.
pub fn faults(known: &[&str], circles: &[Vec<String>]) -> Vec<String> {
    let known: Vec<(&str, BTreeSet<String>)> = known.iter().map(|line| (*line, files(line))).collect();
    let covers = |files: &BTreeSet<String>, circle: &[String]| circle.iter().all(|file| files.contains(file));
    let new = circles.iter().filter(|circle| !known.iter().any(|(_, files)| covers(files, circle)));
    let new = new.map(|circle| format!("a circle of files: {}; let one direction go", circle.join(" ")));
    let gone = known.iter().filter(|(_, files)| !circles.iter().any(|circle| covers(files, circle)));
    let gone = gone.map(|(line, _)| format!("no circle is left: delete \"{line}\" from `KNOWN`"));
    new.chain(gone).collect()
}

/// The paths of the files in a line of [`KNOWN`].
fn files(line: &str) -> BTreeSet<String> {
    let (folder, names) = line.split_once(": ").expect("a folder, a colon and names");
    names.split_whitespace().map(|name| format!("{folder}/{name}.rs")).collect()
}

/// The circles of the crate in the folder `src`: each group of files that reach each other.
pub fn find(src: &str, sources: &[&Source]) -> Vec<Vec<String>> {
    let library = Crate::parse(src, sources);
    let uses: BTreeMap<&Path, BTreeSet<Path>> =
        library.files.keys().map(|module| (module, library.used_by(module))).collect();
    let reach = |from: &Path| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            next.extend(uses[module].iter().filter(|used| seen.insert((*used).clone())));
        }
        seen
    };
    let reached: BTreeMap<&Path, BTreeSet<Path>> =
        library.files.keys().map(|module| (module, reach(module))).collect();
    let mut groups = BTreeSet::new();
    for (module, seen) in &reached {
        if seen.contains(*module) {
            let group = seen.iter().filter(|other| reached[*other].contains(*module));
            groups.insert(group.map(|module| library.files[module].source.path.clone()).collect::<Vec<_>>());
        }
    }
    groups.into_iter().collect()
}

impl<'a> Crate<'a> {
    fn parse(src: &str, sources: &[&'a Source]) -> Self {
        let of_crate = |source: &&&Source| source.path.starts_with(src) && !source.code.trim().is_empty();
        let modules: BTreeMap<Path, &Source> = sources
            .iter()
            .filter(of_crate)
            .map(|source| (module_path(&source.path[src.len()..]), *source))
            .collect();
        let known: BTreeSet<Path> = modules.keys().cloned().collect();
        let files = modules.into_iter().map(|(path, source)| {
            let uses = uses(source, &path, &known);
            (path, File { source, uses })
        });
        Self { files: files.collect() }
    }

    /// The modules whose files define what this one names.
    fn used_by(&self, module: &Path) -> BTreeSet<Path> {
        let uses = self.files[module].uses.iter().filter(|used| used.shown_as.is_none());
        let used = uses.map(|used| self.definition(&used.path, 0));
        used.filter(|used| !used.starts_with(module) && !module.starts_with(used)).collect()
    }

    /// The module whose file defines the last name of `path`.
    fn definition(&self, path: &[String], followed: usize) -> Path {
        let longest = (0..=path.len()).rev().find(|&end| self.files.contains_key(&path[..end]));
        let module = &path[..longest.unwrap_or(0)];
        let rest = &path[module.len()..];
        if let Some(name) = rest.first()
            && followed < 9
            && let Some(file) = self.files.get(module)
            && let Some(shown) = file.uses.iter().find(|used| used.shown_as.as_ref() == Some(name))
        {
            let on: Path = shown.path.iter().chain(&rest[1..]).cloned().collect();
            return self.definition(&on, followed + 1);
        }
        module.to_vec()
    }
}

/// `cache/fill.rs` is `[cache, fill]`, `cache/mod.rs` is `[cache]`, `lib.rs` and `main.rs` are `[]`.
fn module_path(file: &str) -> Path {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    match path {
        "lib" | "main" => Vec::new(),
        _ => path.split('/').map(str::to_owned).collect(),
    }
}

/// The paths of a file into its own crate.
fn uses(source: &Source, module: &Path, known: &BTreeSet<Path>) -> Vec<Use> {
    let code: Vec<char> = source.code.chars().collect();
    let inline = inline_modules(&code);
    let mut uses = Vec::new();
    let starts = (0..code.len()).filter(|&at| is_name(code[at]) && (at == 0 || !is_name(code[at - 1])));
    for at in starts.filter(|&at| !follows(&code, at, "::")) {
        let word = word_at(&code, at);
        let names_child = || known.contains(&[module.as_slice(), std::slice::from_ref(&word)].concat());
        if !matches!(word.as_str(), "crate" | "self" | "super") && !names_child() {
            continue;
        }
        let after = skip(&code, at + word.chars().count());
        if !code[after..].starts_with(&[':', ':']) {
            continue;
        }
        let depth = inline.iter().filter(|body| body.contains(&at)).count();
        let shows = shows(&code, at);
        for mut names in tree(&code, at) {
            let shown_as = names.pop_if(|name| name.starts_with(" as ")).map(|name| name[4..].to_owned());
            let shown_as = shown_as.or_else(|| names.last().cloned()).filter(|_| shows);
            names.retain(|name| name != "*");
            if let Some(path) = absolute(module, depth, &names) {
                uses.push(Use { path, shown_as });
            }
        }
    }
    uses
}

/// Whether the path at `at` belongs to a `pub use` or `pub(…) use`.
fn shows(code: &[char], at: usize) -> bool {
    let statement: String = code[..at].iter().rev().take_while(|char| !";{}".contains(**char)).collect();
    let statement: String = statement.chars().rev().collect();
    let words: Vec<&str> = statement.split_whitespace().collect();
    words.last() == Some(&"use") && words.iter().any(|word| word.starts_with("pub"))
}

/// The path at `at`, or each path in its braces. A renamed one ends with ` as name`.
fn tree(code: &[char], at: usize) -> Vec<Path> {
    let mut names = Vec::new();
    let mut at = skip(code, at);
    loop {
        match code.get(at) {
            Some('{') => {
                let end = end_of_braces(code, at) - 1;
                let mut paths = Vec::new();
                let mut start = at + 1;
                while start < end {
                    let stop = end_of_item(code, start, end);
                    let inner = if code[start..stop].iter().all(|char| char.is_whitespace()) {
                        Vec::new()
                    } else {
                        tree(code, start)
                    };
                    for inner in inner {
                        // `{self, …}` names the module itself.
                        let inner = if inner.first().is_some_and(|name| name == "self") {
                            inner[1..].to_vec()
                        } else {
                            inner
                        };
                        paths.push([names.as_slice(), inner.as_slice()].concat());
                    }
                    start = stop + 1;
                }
                return paths;
            }
            Some('*') => {
                names.push("*".to_owned());
                return vec![names];
            }
            _ => {
                let word = word_at(code, at);
                if word.is_empty() {
                    return vec![names];
                }
                at += word.chars().count();
                names.push(word);
            }
        }
        let next = skip(code, at);
        if code[next.min(code.len())..].starts_with(&[':', ':']) {
            at = skip(code, next + 2);
        } else {
            let renamed = (word_at(code, next) == "as").then(|| word_at(code, skip(code, next + 2)));
            names.extend(renamed.map(|name| format!(" as {name}")));
            return vec![names];
        }
    }
}

/// Where the item of a list that begins at `start` ends: at its comma, or at `end`.
fn end_of_item(code: &[char], start: usize, end: usize) -> usize {
    let mut depth = 0_usize;
    for (at, char) in code.iter().enumerate().take(end).skip(start) {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => return at,
            _ => {}
        }
    }
    end
}

/// The path from the root, or none if it stays inside an inline module of the file.
fn absolute(module: &Path, depth: usize, names: &[String]) -> Option<Path> {
    let mut base: Path = module.clone();
    let mut inside = depth;
    let mut rest = names;
    while let Some((first, more)) = rest.split_first() {
        match first.as_str() {
            "crate" => (base, inside) = (Vec::new(), 0),
            "self" => {}
            "super" if inside > 0 => inside -= 1,
            "super" => {
                base.pop()?;
            }
            _ => break,
        }
        rest = more;
    }
    (inside == 0).then(|| base.into_iter().chain(rest.iter().cloned()).collect())
}

fn inline_modules(code: &[char]) -> Vec<std::ops::Range<usize>> {
    let starts = (0..code.len())
        .filter(|&at| is_name(code[at]) && (at == 0 || !is_name(code[at - 1])) && word_at(code, at) == "mod");
    let bodies = starts.filter_map(|at| {
        let name = skip(code, at + 3);
        let open = skip(code, name + word_at(code, name).chars().count());
        (code.get(open) == Some(&'{')).then(|| open..end_of_braces(code, open))
    });
    bodies.collect()
}

fn word_at(code: &[char], at: usize) -> String {
    code.get(at..).unwrap_or_default().iter().take_while(|char| is_name(**char)).collect()
}

fn skip(code: &[char], from: usize) -> usize {
    (from..code.len()).find(|&at| !code[at].is_whitespace()).unwrap_or(code.len())
}

fn follows(code: &[char], at: usize, what: &str) -> bool {
    let what: Vec<char> = what.chars().collect();
    code[..at].ends_with(&what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| Source::new(&format!("x/src/{path}"), text)).collect();
        let found = find("x/src/", &sources.iter().collect::<Vec<_>>());
        found.iter().map(|circle| circle.join(" ")).collect()
    }

    #[test]
    fn files_that_use_each_other_are_found() {
        for (a, b) in [
            ("use crate::b::B;", "use crate::a::A;"),
            ("use super::b::B;", "fn f() { super::a::go() }"),
            ("use crate::{c::C, b::{self, B}};", "pub(crate) use crate::c::C; use crate::a;"),
            ("mod inner { use super::super::b::B; }", "use crate::a::inner::X as Y;"),
            ("fn f() -> crate::B {}", "use crate::{A as _};"),
        ] {
            let root = "mod a; mod b; mod c; pub use a::A; pub use crate::b::{B};";
            let found = circles(&[("lib.rs", root), ("a.rs", a), ("b.rs", b), ("c.rs", "struct C;")]);
            assert_eq!(found, ["x/src/a.rs x/src/b.rs"], "{a} {b}");
        }
    }

    #[test]
    fn a_circle_of_three_and_one_inside_a_module_are_found() {
        let found = circles(&[
            ("lib.rs", "mod m;"),
            ("m/mod.rs", "mod a; mod b; mod c;"),
            ("m/a.rs", "use super::b::B;"),
            ("m/b.rs", "use crate::m::c::C;"),
            ("m/c.rs", "use super::a;"),
        ]);
        assert_eq!(found, ["x/src/m/a.rs x/src/m/b.rs x/src/m/c.rs"]);
    }

    #[test]
    fn a_child_and_its_parent_are_one_module() {
        let found = circles(&[
            ("lib.rs", "mod m; pub use m::a::A; struct Root;"),
            ("m/mod.rs", "mod a; use self::a::A; pub(crate) use a::Shown; struct M;"),
            ("m/a.rs", "use super::M; use crate::Root; // use crate::b::B"),
            ("b.rs", "use crate::m::Shown;"),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn new_circles_and_superfluous_exceptions_are_faults() {
        let circle = |files: &[&str]| files.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>();
        let known = ["x/src: a b c"];
        assert_eq!(faults(&known, &[circle(&["x/src/a.rs", "x/src/b.rs"])]), [""; 0]);
        assert_eq!(faults(&known, &[circle(&["x/src/a.rs", "x/src/d.rs"])]).len(), 2);
        assert_eq!(faults(&known, &[]), ["no circle is left: delete \"x/src: a b c\" from `KNOWN`"]);
    }
}
