#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! ```text
//! request ── SessionConfig::begin ── the one token, verified ──▶ Session, in the request
//!               (no query)          none, two, forged: anonymous
//! handler ── get, set, login, … ── first access: SessionManager::get(id).min_version(version)
//! response ── Session::close ── saves what was set ──▶ ResponseChanges: the headers that the client needs
//! ```
//!
//! An edge knows its framework. It shows the head of a request through [`RequestHead`] and hands
//! the [`Session`] to handlers. It does to the response what [`ResponseChanges`] says.

mod address;
mod answer;
mod client;
mod cookie;
mod cross_site;
mod development;
mod draft;
mod error;
mod extension;
mod flow_cookie;
#[doc(hidden)]
pub mod fuzzing;
mod lost_cookies;
mod page;
mod refusal;
mod request_head;
mod session_config;
mod superseded;
mod this_machine;
mod transport;
mod user_loader;
mod visitors;

mod atomic;
mod begin;
mod close;
mod csrf;
mod devices;
mod flow;
mod guard;
mod login;
mod session;
mod state;
mod step_up;
mod user;
mod wrapped_error;

pub use answer::Answer;
pub use client::USER_AGENT_BYTES_MAX;
pub use close::{CacheScope, ResponseChanges, is_cache_header};
pub use cookie::{COOKIE_BYTES_MAX, CookiePolicy};
pub use cross_site::is_from_another_site;
pub use devices::{Device, DeviceId, NotADevice};
pub use error::{Error, ErrorKind};
pub use extension::Extension;
pub use flow::{BegunFlow, FLOW_LIFETIME, FLOWS_MAX, Flow, TakenFlow};
pub use guard::{LoginGuard, LoginRequired};
pub use login::Login;
pub use page::{NEXT_PAGE_BYTES_MAX, NextPage};
pub use pg_session;
pub use refusal::Refusal;
pub use request_head::{RequestHead, host_of};
pub use session::Session;
pub use session_config::SessionConfig;
pub use step_up::{Denied, Elevate, Privilege, STEP_UP_HEADER};
pub use transport::SESSION_TOKEN_HEADER;
