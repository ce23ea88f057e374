//! The corpus of the fuzz targets that read headers, and mutations of it, run by every ordinary test run. How to fuzz:
//! `pg-session/fuzz/src/lib.rs`. `MUTATIONS=1000000` runs more than usual.

use std::fs;
use std::path::Path;

#[path = "../../../pg-session/fuzz/src/corpus.rs"]
mod inputs;
#[path = "../../../pg-session/fuzz/src/headers.rs"]
mod targets;

#[test]
fn every_header_of_the_corpus_is_answered_as_its_name_says() {
    inputs::run("cookie_header", targets::cookie_header).expect("the corpus");
    inputs::run("forwarded_header", targets::forwarded_header).expect("the corpus");
}

/// A seed that never changes, so that a failure repeats.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const MUTATIONS: u64 = 4_000;
/// What the readers take apart.
const WORDS: [&[u8]; 16] = [
    b";",
    b"=",
    b",",
    b"\"",
    b"\\",
    b"\n",
    b" ",
    b"%",
    b"[",
    b"]",
    b":",
    b"for=",
    b"__Host-session=",
    b"10.0.0.1",
    b"::1",
    b"\xff",
];

#[test]
fn no_mutation_of_a_header_breaks_a_promise() {
    let count = std::env::var("MUTATIONS").map_or(MUTATIONS, |count| count.parse().expect("a number"));
    mutate("cookie_header", count, targets::cookie_header);
    mutate("forwarded_header", count, targets::forwarded_header);
}

/// Shows the input that broke a promise.
struct Input(Vec<u8>);

impl Drop for Input {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input: {}", self.0.escape_ascii());
        }
    }
}

fn mutate(target: &str, count: u64, accepts: impl Fn(&[u8]) -> bool) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pg-session/fuzz/corpus").join(target);
    let files = fs::read_dir(&corpus).expect("the corpus of this target");
    let mut inputs: Vec<_> =
        files.map(|file| fs::read(file.expect("a file").path()).expect("an input")).collect();
    inputs.sort();
    let mut state = SEED;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 32).expect("it fits") % below.max(1)
    };
    let mut accepted = 0;
    for _ in 0..count {
        let mut input = Input(inputs[random(inputs.len())].clone());
        let bytes = &mut input.0;
        for _ in 0..=random(6) {
            let at = random(bytes.len() + 1);
            let end = (at + random(12)).min(bytes.len());
            match random(5) {
                0 if at < bytes.len() => bytes[at] ^= 1 << random(8),
                1 => drop(bytes.drain(at..end)),
                2 => drop(bytes.splice(at..at, WORDS[random(WORDS.len())].iter().copied())),
                3 => drop(bytes.splice(at..end, inputs[random(inputs.len())].iter().copied())),
                _ => bytes.extend_from_within(at..end),
            }
        }
        accepted += u64::from(accepts(bytes));
    }
    assert!(accepted > 0 && accepted < count, "{target}: {accepted} of {count} mutations were accepted");
}
