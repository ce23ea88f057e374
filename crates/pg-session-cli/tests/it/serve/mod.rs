//! `pg-session serve`, as a proxy and an operator use it: over HTTP, on a real PostgreSQL.

mod api;
mod behind_proxy;
mod console;
mod forward_auth;
mod fuzz;
mod health;
mod limits;
mod nginx;
mod proxies;
mod server;
mod start;
mod wire;
