#![doc = include_str!("../README.md")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test tool with real deadlines: nothing here decides by the time it reads"
)]

#[cfg(not(unix))]
compile_error!("pg-sandbox drives PostgreSQL with Unix signals and sockets: it needs Linux, macOS or a BSD");

// From the outside in: what a user holds, what it is made of, what keeps it clean, and the faults on the wire.
mod builder;
mod pooler;
mod standby;

mod sandbox;

mod account;
mod backup;
mod binaries;
mod client;
mod directory;
mod gate;
mod launch;
mod log;
mod port;
mod server;
mod settings;
mod template;
mod version;

mod deadline;
mod processes;
mod reaper;

mod proxy;

mod error;

pub use builder::SandboxBuilder;
pub use error::{Error, ErrorKind};
pub use pooler::{PoolMode, Pooler, PoolerBuilder};
pub use proxy::{Direction, Proxy};
pub use sandbox::Sandbox;
pub use standby::StandbyBuilder;
pub use version::ServerVersion;
