//! What most applications use: `use pg_session_actix::prelude::*;`.
//!
//! There is one `Session`, the extractor, and one error, [`SessionError`]. Sessions outside of requests and their errors are in
//! [`pg_session`].

pub use pg_session::{Config, GroupId, KeyRing, Migrations, SessionManager, Signer, SigningKey, UserId};
pub use pg_session_web::{CookiePolicy, NextPage, Privilege, SessionConfig};

pub use crate::{CurrentUser, Elevated, Session, SessionError, SessionMiddleware, SignedIn, require_login};
