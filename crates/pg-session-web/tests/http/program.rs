//! The programs of examples, for tests that run them.

use std::path::PathBuf;
use std::process::Command;

/// The program of an example of this workspace.
///
/// `cargo test` builds the examples beside the tests: `target/debug/deps/it-HASH` and `target/debug/examples/NAME`. A run of
/// one test target (`--test it`) builds no example, so a missing one is built here.
pub(crate) fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the path of this test");
    let profile = own.ancestors().nth(2).expect("a profile's folder");
    let program = profile.join("examples").join(name);
    if !program.exists() {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--locked", "--all-features", "--example", name]);
        cargo.args(profile.ends_with("release").then_some("--release"));
        cargo.arg("--target-dir").arg(profile.parent().expect("the folder of the profiles"));
        let status =
            cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).status().expect("cargo runs");
        assert!(status.success(), "the example {name} does not compile");
    }
    program
}
