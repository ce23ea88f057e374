#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod elevated;
mod error;
mod head;
mod layer;
mod session;
#[cfg(feature = "tower-sessions")]
mod store;

pub use elevated::{Elevated, StepUp};
pub use error::SessionError;
pub use head::Peer;
pub use layer::{ResponseFuture, SessionLayer, SessionService};
pub use pg_session;
pub use pg_session_web::{
    CookiePolicy, Denied, Device, DeviceId, Error, ErrorKind, Login, Privilege, Refusal,
    SESSION_TOKEN_HEADER, STEP_UP_HEADER, SessionConfig,
};
pub use session::Session;
#[cfg(feature = "tower-sessions")]
pub use store::PgSessionStore;
