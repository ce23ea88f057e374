//! The library against a real PostgreSQL. One binary, one private server, one schema for each test.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test binary has no API and may panic"
)]

mod clocks;
mod stage;
mod support;
mod tables;
mod told;

mod abandoned;
mod another_server;
mod bad_input;
mod bad_server;
mod barrier_texts;
mod combining;
mod connection_errors;
mod corpus;
mod crash;
mod drop_many;
mod dropped;
mod ending;
mod expiry;
mod fill_race;
mod follow;
mod forgery;
mod half_open;
mod history;
mod hostile_role;
mod hot;
mod listener_refused;
mod loading;
mod lock;
mod lock_fence;
mod lock_loss;
mod lock_process;
mod lock_wait;
mod logins;
mod lost_login;
mod mass_delete;
mod migrations;
mod model;
mod modes;
mod moved;
mod outcomes;
mod placement;
mod plans;
mod pooler;
mod poolers;
mod predecessor;
mod propagation;
mod publish_race;
mod reads;
mod reconnect;
mod restored;
mod rights;
mod rotate;
mod row_locks;
mod row_security;
mod runtime_gone;
mod secrets;
mod server_log;
mod session_limit;
mod shared_listener;
mod silent_loss;
mod single_flight;
mod smoke;
mod standby;
mod statements;
mod tls;
mod touch;
mod upkeep;
