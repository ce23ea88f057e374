//! A new password and the end of the user's other sessions, in one transaction of the application: with sqlx and with
//! diesel. `tests/change_password.rs` runs both on a real PostgreSQL beside two nodes.
//!
//! ```text
//! ./dev drivers
//! ```

pub mod with_diesel;
pub mod with_sqlx;
