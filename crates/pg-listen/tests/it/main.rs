//! pg-listen against a real PostgreSQL, through a proxy with faults. One module per behaviour; `proxied` sets the scene.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests: a panic is the report, and times are measured"
)]

mod barriers;
mod delivery;
mod fixtures;
mod full_queue;
mod half_open;
mod hosts;
mod losses;
mod names;
mod overflow;
mod pooler;
mod provider;
mod shutdown;
mod tls;
mod unlisten;
