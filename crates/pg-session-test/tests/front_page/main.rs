//! The tests of this crate's front page.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    reason = "a test binary has no API and may panic"
)]

mod application;
mod tests;

#[test]
fn the_readme_shows_these_tests() {
    let (_, shown) = include_str!("../../README.md").split_once("```rust,ignore\n").expect("a block");
    let (shown, _) = shown.split_once("\n```").expect("its end");
    let (_, tests) = include_str!("tests.rs").trim_end().split_once("\n\n").expect("a header");
    assert_eq!(shown, tests.replace("use crate::application::application;", "use my_app::application;"));
    assert!(shown.lines().count() < 60, "{}", shown.lines().count());
}
