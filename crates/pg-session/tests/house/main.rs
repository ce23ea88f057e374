//! The house rules, executed. Each rule is a function over a source file that returns faults; each is shown to bite on
//! a small bad snippet beside it.
//!
//! - [`layers`]: a module uses its own layer and those below, as `lib.rs` lists them, and no two modules use each other.
//! - [`circles`]: no two files of a crate use each other, directly or through others.
//! - [`rules`]: one clock, one place for SQL, one reader of SQLSTATEs, no panics, no long files, no sleeping tests.
//! - [`papers`]: what the documents name exists, and every guard has a control that runs without it.
//! - [`evidence`]: the field report names tests that exist.
//! - [`qualified`]: every function and type in the SQL texts names its schema.
//! - [`words`]: one vocabulary, without the words that have a plain one.
//! - [`settings`]: the page about the configuration shows every field with its default.
//!
//! What a compiler or clippy can check is not repeated here, but for `unwrap`, whose exceptions are to be seen.

#![allow(unreachable_pub, reason = "a test binary has no API")]
#![allow(clippy::expect_used, reason = "what panics here fails its test, also outside the test functions")]

mod circles;
mod evidence;
mod layers;
mod papers;
mod qualified;
mod rules;
mod settings;
mod source;
mod words;

use std::collections::BTreeSet;

use source::{Source, torture, workspace};

#[test]
fn a_module_uses_only_its_own_layer_and_those_below() {
    let sources = workspace();
    let layers = layers(sources);
    let modules: Vec<&Source> = sources.iter().filter(|source| layers::is_module(source)).collect();
    assert!(modules.len() > 30, "the library's files were found");
    nothing(&layers.check(&modules));
}

#[test]
fn the_architecture_shows_the_layers_as_they_are() {
    nothing(&layers(workspace()).missing_in(&papers::read("ARCHITECTURE.md")));
}

#[test]
fn no_files_of_a_crate_use_each_other() {
    let sources: Vec<&Source> = workspace().iter().chain(torture()).collect();
    let folders: BTreeSet<&str> = sources.iter().filter_map(|source| crate_folder(&source.path)).collect();
    assert!(folders.len() > 8, "the crates were found: {folders:?}");
    let circles: Vec<_> = folders.iter().flat_map(|folder| circles::find(folder, &sources)).collect();
    nothing(&circles::faults(circles::KNOWN, &circles));
}

/// The folder of the crate's root, such as `torture/model/src/`; none for tests and examples.
fn crate_folder(path: &str) -> Option<&str> {
    path.find("/src/").map(|at| &path[..at + "/src/".len()])
}

#[test]
fn every_file_opens_with_what_it_is_about() {
    everywhere(rules::header);
}

#[test]
fn no_file_is_longer_than_600_lines() {
    everywhere(rules::length);
    nothing(&torture().iter().flat_map(rules::length).collect::<Vec<_>>());
}

#[test]
fn no_function_name_is_longer_than_60_characters() {
    everywhere(rules::names);
    nothing(&torture().iter().flat_map(rules::names).collect::<Vec<_>>());
}

#[test]
fn only_clock_rs_reads_the_clock() {
    everywhere(rules::clock);
}

#[test]
fn only_postgres_contains_sql() {
    everywhere(rules::sql);
}

#[test]
fn every_function_and_type_in_sql_names_its_schema() {
    everywhere(qualified::in_rust);
    let folder = source::root().join("crates/pg-session/migrations");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("the migrations") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a migration");
        let faults = qualified::faults(&text).into_iter();
        nothing(&faults.map(|fault| format!("{}: {fault}", path.display())).collect::<Vec<_>>());
        seen += 1;
    }
    assert!(seen > 0, "the migrations were found");
}

#[test]
fn sqlstates_are_read_only_in_failure_rs() {
    everywhere(rules::sqlstate);
}

#[test]
fn nothing_unwraps_outside_tests_without_a_reason() {
    everywhere(rules::unwrap);
}

#[test]
fn tests_wait_for_signals_and_do_not_sleep() {
    everywhere(rules::sleeping);
}

#[test]
fn the_documents_name_only_what_exists() {
    let sources: Vec<&Source> = workspace().iter().chain(torture()).collect();
    nothing(&papers::all().iter().flat_map(|paper| papers::check(paper, &sources)).collect::<Vec<_>>());
}

#[test]
fn every_guard_has_a_test_that_runs_without_it() {
    let sources = workspace();
    let probes = sources.iter().find(|source| source.path.ends_with("pg-session/src/failpoints.rs"));
    let places = ["crates/pg-session/tests/it/", "torture/model/cache/"];
    let is_test = |source: &&Source| places.iter().any(|place| source.path.starts_with(place));
    let tests: Vec<&Source> = sources.iter().chain(torture()).filter(is_test).collect();
    let contributing = papers::read("CONTRIBUTING.md");
    nothing(&papers::unguarded(probes.expect("failpoints.rs"), &tests, &contributing));
}

#[test]
fn every_text_keeps_to_the_words_of_the_field() {
    let (files, faults) = words::everywhere();
    assert!(files > 500, "the repository's texts were found: {files}");
    nothing(&faults);
}

#[test]
fn every_guard_names_its_code_and_its_tests() {
    let sources: Vec<&Source> = workspace().iter().chain(torture()).collect();
    nothing(&papers::stale_guards(&papers::read("CONTRIBUTING.md"), &sources));
}

fn layers(sources: &[Source]) -> layers::Layers {
    let root = sources.iter().find(|source| source.path == "crates/pg-session/src/lib.rs").expect("lib.rs");
    layers::Layers::parse(&root.text)
}

fn everywhere(rule: fn(&Source) -> Vec<String>) {
    nothing(&workspace().iter().flat_map(rule).collect::<Vec<_>>());
}

#[track_caller]
fn nothing(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
