//! The `pg-session` program.
fn main() {}
