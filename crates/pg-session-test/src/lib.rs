#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![allow(
    clippy::disallowed_methods,
    reason = "a test tool with real deadlines: nothing here decides by the time it reads"
)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "this crate runs in tests: a fault of the test's surroundings ends the test with its reason"
)]

mod browser;
mod cookies;
mod database;
mod handler;
mod node;
mod server;
mod service;
mod shared;
mod wait;

pub use browser::{Browser, Reply};
pub use database::TestDatabase;
pub use handler::SessionBuilder;
pub use node::Node;
pub use pg_sandbox;
pub use pg_session;
pub use wait::{WAIT_MAX, eventually};
