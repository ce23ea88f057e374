//! The inputs of the fuzz targets, for ordinary test runs. The test crates that run them include this file.

use std::path::Path;
use std::{fs, io};

/// Runs a target on its inputs and compares what it accepts with their names. Inputs without such a name were found by
/// fuzzing: they only must not break what the target asserts.
///
/// # Errors
/// The corpus cannot be read.
pub fn run(target: &str, accepts: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pg-session/fuzz/corpus").join(target);
    let (mut accepted, mut rejected) = (0, 0);
    for file in fs::read_dir(&corpus)? {
        let file = file?;
        let name = file.file_name();
        let name = name.to_string_lossy();
        let outcome = accepts(&fs::read(file.path())?);
        if name.starts_with("accepted") {
            assert!(outcome, "{target}/{name} was rejected");
            accepted += 1;
        } else if name.starts_with("rejected") {
            assert!(!outcome, "{target}/{name} was accepted");
            rejected += 1;
        }
    }
    assert!(accepted > 0 && rejected > 0, "{target}: the corpus has nothing to show");
    Ok(())
}
