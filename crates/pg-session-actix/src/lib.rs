#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod elevated;
mod error;
mod head;
mod middleware;
pub mod prelude;
mod refuse;
mod require_login;
mod session;
mod signed_in;
#[cfg(feature = "actix-session")]
mod store;

pub use elevated::Elevated;
pub use error::{LoginRequired, SessionError, StepUp};
pub use middleware::{SessionMiddleware, SessionService};
pub use pg_session;
pub use pg_session_web::{
    BegunFlow, CookiePolicy, Denied, Device, DeviceId, Error, ErrorKind, Flow, Login, NextPage, Privilege,
    Refusal, SESSION_TOKEN_HEADER, STEP_UP_HEADER, SessionConfig, TakenFlow,
};
pub use require_login::{RequireLogin, RequireLoginService, require_login};
pub use session::Session;
pub use signed_in::{CurrentUser, SignedIn};
#[cfg(feature = "actix-session")]
pub use store::PgSessionStore;
