//! `pg-session serve`, as a proxy and an operator use it: over HTTP, on a real PostgreSQL.

mod api;
mod console;
mod forward_auth;
mod health;
mod nginx;
mod server;
mod start;
