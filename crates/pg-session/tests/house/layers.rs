//! The layers: read from `lib.rs`, checked against every path that starts at `crate` or climbs with `super`.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, end_of_braces, is_name, line_of};

const SRC: &str = "crates/pg-session/src/";

/// Each module at the crate's root with its layer.
pub struct Layers(BTreeMap<String, usize>);

/// Whether the file belongs to a module, which all files but the root do.
pub fn is_module(source: &Source) -> bool {
    source.path.strip_prefix(SRC).is_some_and(|rest| rest != "lib.rs")
}

impl Layers {
    /// Reads the comments `// Layer N…` and the `mod` lines below each.
    pub fn parse(root: &str) -> Self {
        let (mut layers, mut layer) = (BTreeMap::new(), None);
        for line in root.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("// Layer ") {
                layer = rest.chars().next().and_then(|digit| digit.to_digit(10)).map(|digit| digit as usize);
            } else if let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                let layer = layer.unwrap_or_else(|| panic!("lib.rs: `mod {name};` is on no layer"));
                layers.insert(name.to_owned(), layer);
            }
        }
        Self(layers)
    }

    /// Modules that a table of layers, with rows like "| 2 | `loader` `writer` |", does not have in their row.
    pub fn missing_in(&self, table: &str) -> Vec<String> {
        let has = |name: &str, layer: usize| {
            let row = format!("| {layer} |");
            table.lines().any(|line| line.starts_with(&row) && line.contains(&format!("`{name}`")))
        };
        let missing = self.0.iter().filter(|&(name, &layer)| !has(name, layer));
        missing.map(|(name, layer)| format!("ARCHITECTURE.md: `{name}` is on layer {layer}")).collect()
    }

    /// Paths that lead upwards, paths that name no module, and modules of one layer that use each other.
    pub fn check(&self, sources: &[&Source]) -> Vec<String> {
        let mut faults = Vec::new();
        let mut uses: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for source in sources {
            let module = module_path(source)[0];
            let Some(&own) = self.0.get(module) else {
                faults.push(format!("{}: `{module}` is on no layer in lib.rs", source.path));
                continue;
            };
            for (line, name) in root_names(source) {
                match self.0.get(&name) {
                    Some(&layer) if layer > own => faults.push(format!(
                        "{}:{line}: `{module}` on layer {own} uses `{name}` on layer {layer}",
                        source.path
                    )),
                    Some(_) => {
                        uses.entry(module).or_default().insert(name);
                    }
                    None => faults.push(format!(
                        "{}:{line}: `crate::{name}` hides its layer; write the path of the module",
                        source.path
                    )),
                }
            }
        }
        faults.extend(circles(&uses));
        faults
    }
}

/// `src/cache/fill.rs` is `[cache, fill]`, `src/cache/mod.rs` is `[cache]`.
fn module_path(source: &Source) -> Vec<&str> {
    let path = source.path.strip_prefix(SRC).unwrap_or(&source.path);
    path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect()
}

/// Modules that can be reached from themselves through others.
fn circles(uses: &BTreeMap<&str, BTreeSet<String>>) -> Vec<String> {
    let reach = |from: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(module) = next.pop() {
            let used = uses.get(module.as_str()).into_iter().flatten();
            next.extend(used.filter(|&used| *used != module && seen.insert(used.clone())).cloned());
        }
        seen
    };
    let circular = uses.keys().filter(|module| reach(module).contains(**module));
    circular.map(|module| format!("`{module}` uses a module that uses `{module}`")).collect()
}

/// The names at the crate's root that the file's paths go through, each with its line.
fn root_names(source: &Source) -> Vec<(usize, String)> {
    let code: Vec<char> = source.code.chars().collect();
    let inline = inline_modules(&code);
    let depth = module_path(source).len();
    let mut names = Vec::new();
    for (at, word) in words(&code).filter(|(at, _)| !follows_path(&code, *at)) {
        let levels = depth + inline.iter().filter(|module| module.contains(&at)).count();
        let (mut end, mut climbed) = match word.as_str() {
            "crate" => (at + 5, levels),
            "super" => (at + 5, 1),
            _ => continue,
        };
        while code[end..].starts_with(&[':', ':', 's', 'u', 'p', 'e', 'r', ':', ':']) {
            (end, climbed) = (end + 7, climbed + 1);
        }
        if code[end..].starts_with(&[':', ':']) && climbed == levels {
            let line = line_of(&code, at);
            names.extend(heads(&code, end + 2).into_iter().map(|name| (line, name)));
        }
    }
    names
}

/// The first names of a path, or of each path in its braces.
fn heads(code: &[char], start: usize) -> Vec<String> {
    if code.get(start) != Some(&'{') {
        return word_at(code, start).into_iter().collect();
    }
    let end = end_of_braces(code, start) - 1;
    let (mut heads, mut depth, mut fresh) = (Vec::new(), 0, true);
    for at in start + 1..end {
        match code[at] {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            char if fresh && is_name(char) => {
                heads.extend(word_at(code, at));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

fn words(code: &[char]) -> impl Iterator<Item = (usize, String)> + '_ {
    let starts = (0..code.len()).filter(|&at| is_name(code[at]) && (at == 0 || !is_name(code[at - 1])));
    starts.filter_map(|at| Some((at, word_at(code, at)?)))
}

fn word_at(code: &[char], at: usize) -> Option<String> {
    let word: String = code[at..].iter().take_while(|char| is_name(**char)).collect();
    (!word.is_empty()).then_some(word)
}

fn follows_path(code: &[char], at: usize) -> bool {
    at > 0 && code[at - 1] == ':'
}

/// Where the bodies of `mod name { … }` are: a `super` inside climbs one level less far.
fn inline_modules(code: &[char]) -> Vec<std::ops::Range<usize>> {
    let modules = words(code).filter(|(_, word)| word == "mod").filter_map(|(at, _)| {
        let name = word_at(code, at + 4)?;
        let open = at + 4 + name.chars().count() + 1;
        (code.get(open) == Some(&'{')).then(|| open..end_of_braces(code, open))
    });
    modules.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str =
        "// Layer 0, pure.\nmod clock;\nmod id;\n// Layer 1.\nmod cache;\n// Layer 2.\nmod writer;\n";

    fn faults(path: &str, text: &str) -> Vec<String> {
        Layers::parse(ROOT).check(&[&Source::new(&format!("{SRC}{path}"), text)])
    }

    #[test]
    fn a_path_that_leads_upwards_is_found() {
        for (path, text) in [
            ("cache/fill.rs", "use crate::writer::Writer;"),
            ("cache/fill.rs", "fn f() { crate::writer::go() }"),
            ("cache/fill.rs", "use super::super::writer::Writer;"),
            ("cache/mod.rs", "use super::writer::Writer;"),
            ("cache/mod.rs", "use crate::{id::SessionId, writer::{Lane, Writer}};"),
            ("cache/mod.rs", "mod inner { use super::super::writer::Writer; }"),
            ("cache.rs", "pub(in crate::writer) fn f() {}"),
        ] {
            let found = faults(path, text);
            let expected = "`cache` on layer 1 uses `writer` on layer 2";
            assert!(found.len() == 1 && found[0].ends_with(expected), "{path}: {text}: {found:?}");
        }
    }

    #[test]
    fn paths_downwards_sideways_and_inside_are_fine() {
        for (path, text) in [
            (
                "writer/queue.rs",
                "use crate::cache::Cache; use super::touch::Touch; use super::super::id::UserId;",
            ),
            (
                "cache/mod.rs",
                "use self::fill::Ticket; // not crate::writer\nconst X: &str = \"crate::writer\";",
            ),
            (
                "cache/mod.rs",
                "mod inner { use super::Writer; }\n#[cfg(test)]\nmod tests { use crate::writer::W; }",
            ),
            ("cache/mod.rs", "use other::crate_::writer; pub(crate) fn f() {}"),
        ] {
            assert_eq!(faults(path, text), [""; 0], "{path}: {text}");
        }
    }

    #[test]
    fn a_name_of_the_root_does_not_hide_a_layer() {
        assert!(faults("cache/mod.rs", "use crate::SessionManager;")[0].contains("hides its layer"));
        assert!(faults("lock/mod.rs", "")[0].contains("is on no layer"));
    }

    #[test]
    fn a_table_that_misses_a_module_is_found() {
        let layers = Layers::parse(ROOT);
        assert_eq!(layers.missing_in("| 2 | `writer` |\n| 1 | `cache` |\n| 0 | `clock` `id` |"), [""; 0]);
        assert_eq!(layers.missing_in("| 2 | `writer` `cache` |\n| 0 | `clock` `id` |").len(), 1);
    }

    #[test]
    fn modules_of_one_layer_that_use_each_other_are_found() {
        let clock = Source::new(&format!("{SRC}clock.rs"), "use crate::id::UserId;");
        let id = Source::new(&format!("{SRC}id.rs"), "use crate::clock::Clock;");
        let layers = Layers::parse(ROOT);
        assert_eq!(layers.check(&[&clock]), [""; 0]);
        assert_eq!(layers.check(&[&clock, &id]).len(), 2);
    }
}
