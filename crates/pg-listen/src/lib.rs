#![doc = include_str!("../README.md")]

// In the order of an event's way: a connection is made (server, hosts, connector, direct) and driven (link, session), a barrier proves what was
// heard (barrier), the task decides (task), the registry knows who hears what, the queue hands it over.
mod backoff;
mod barrier;
mod builder;
mod channel;
mod clock;
mod connector;
mod direct;
mod error;
mod event;
mod hosts;
mod link;
mod listener;
mod notify_query;
mod queue;
mod refusal;
mod registry;
mod server;
mod session;
mod status;
mod subscription;
mod task;

pub use builder::Builder;
pub use channel::CHANNEL_BYTES_MAX;
pub use connector::{ConnectionTask, Connector};
pub use error::{Error, ErrorKind};
pub use event::{Event, LostReason, Notification};
pub use listener::Listener;
pub use notify_query::{NotifyQuery, PAYLOAD_BYTES_MAX};
pub use server::Server;
pub use status::{Phase, Status};
pub use subscription::Subscription;
