#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod elevated;
mod error;
mod head;
mod middleware;
mod session;
#[cfg(feature = "actix-session")]
mod store;

pub use elevated::{Elevated, StepUp};
pub use error::SessionError;
pub use middleware::{SessionMiddleware, SessionService};
pub use pg_session;
pub use pg_session_web::{
    CookiePolicy, Denied, Device, DeviceId, Error, ErrorKind, Login, Privilege, Refusal,
    SESSION_TOKEN_HEADER, STEP_UP_HEADER, SessionConfig,
};
pub use session::Session;
#[cfg(feature = "actix-session")]
pub use store::PgSessionStore;
