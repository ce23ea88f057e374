//! The corpus of the fuzz targets that read headers, run by every ordinary test run. How to fuzz: `pg-session/fuzz/src/lib.rs`.

#[path = "../../../pg-session/fuzz/src/corpus.rs"]
mod inputs;
#[path = "../../../pg-session/fuzz/src/headers.rs"]
mod targets;

#[test]
fn every_header_of_the_corpus_is_answered_as_its_name_says() {
    inputs::run("cookie_header", targets::cookie_header);
    inputs::run("forwarded_header", targets::forwarded_header);
}
