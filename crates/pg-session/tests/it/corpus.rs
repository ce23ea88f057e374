//! The corpus of the fuzz targets, run by every ordinary test run. How to fuzz: see `fuzz/src/lib.rs`.

#[path = "../../fuzz/src/corpus.rs"]
mod inputs;
#[path = "../../fuzz/src/lib.rs"]
mod targets;

#[test]
fn every_input_of_the_corpus_is_answered_as_its_name_says() {
    inputs::run("session_token", targets::session_token).expect("the corpus");
    inputs::run("signed_message", targets::signed_message).expect("the corpus");
    inputs::run("versioned_id", targets::versioned_id).expect("the corpus");
    inputs::run("notification", targets::notification).expect("the corpus");
}
