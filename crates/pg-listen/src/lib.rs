#![doc = include_str!("../README.md")]

// The way of an event: a connection is opened (server, hosts, connector, pooler_check) and driven (connection, protocol).
// A barrier proves that nothing is missing (barrier). The task decides (task). The registry finds the subscriptions of a
// channel (registry), and each has a queue (queue).
mod backoff;
mod barrier;
mod builder;
mod channel;
mod clock;
mod connection;
mod connector;
mod error;
mod error_kind;
mod event;
mod hosts;
mod listener;
mod notify_query;
mod pooler_check;
mod protocol;
mod queue;
mod refusal;
mod registry;
mod server;
mod status;
mod subscription;
mod task;

pub use builder::Builder;
pub use channel::CHANNEL_BYTES_MAX;
pub use connector::{ConnectionTask, Connector};
pub use error::Error;
pub use error_kind::ErrorKind;
pub use event::{Event, LostReason, Notification};
pub use listener::Listener;
pub use notify_query::{NotifyQuery, PAYLOAD_BYTES_MAX};
pub use server::Server;
pub use status::{Phase, Status};
pub use subscription::Subscription;
