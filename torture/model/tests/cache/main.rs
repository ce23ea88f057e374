//! The library's cache under shuttle: the real code, with a scheduler that decides before each lock and each atomic who
//! runs next. quick_cache has the same scheduler inside. `build.rs` makes the copies.
//!
//! Shuttle and not loom: the scheduler has to reach into the slots, and quick_cache offers shuttle; and with the slots,
//! two stripes and an index there are more schedules than loom could ever finish. What a step must not be overtaken by
//! is shown exhaustively by the model; here the question is whether the locks make the steps.
//!
//! Shuttle's atomics are sequentially consistent, so this shows nothing about `Ordering`.

#![allow(
    dead_code,
    unused,
    unexpected_cfgs,
    unreachable_pub,
    reason = "of the library only the cache is used"
)]
#![allow(clippy::all, reason = "the library is linted where it stands")]

include!(concat!(env!("OUT_DIR"), "/library.rs"));

mod memory;
mod schedules;
mod stories;
