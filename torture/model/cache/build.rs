//! Gives the library's cache the locks and atomics of shuttle, see `cache/sync.rs` there.

fn main() {
    println!("cargo::rustc-cfg=shuttle");
    println!("cargo::rerun-if-changed=build.rs");
}
