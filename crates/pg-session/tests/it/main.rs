//! The library against a real PostgreSQL. One binary, one private server, one schema for each test.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test binary has no API and may panic"
)]

mod captured_logs;
mod clocks;
mod fixtures;
mod observer;
mod operators;
mod support;
mod tables;

mod abandoned;
mod another_server;
mod attribute_removal;
mod audit;
mod bad_input;
mod bad_server;
mod barrier_texts;
mod cache_ttl;
mod cancellation;
mod cascade_delete;
mod cleanup;
mod combining;
mod commit_lock;
mod concurrent_updates;
mod connection_errors;
mod corpus;
mod crash;
mod cut_start;
mod doctor;
mod drop_many;
mod ended;
mod events;
mod everywhere;
mod expiry;
mod fill_race;
mod forgery;
mod go_regressions;
mod half_open;
mod hand_written_sql;
mod heap_only_tuples;
mod history;
mod hostile_role;
mod labels;
mod listener_refused;
mod lists;
mod loading;
mod lock;
mod lock_fence;
mod lock_loss;
mod lock_process;
mod lock_rows;
mod lock_wait;
mod logins;
mod lost_login;
mod mass_delete;
mod metrics;
mod migrations;
mod model;
mod no_notify;
mod other_languages;
mod outcomes;
mod pins;
mod pins_race;
mod placement;
mod plans;
mod planted_objects;
mod pooler;
mod poolers;
mod propagation;
mod provider;
mod publish_race;
mod reads;
mod reconnect;
mod replication;
mod restore_running;
mod restored;
mod rights;
mod role_settings;
mod rotate;
mod row_locks;
mod row_security;
mod runtime_gone;
mod secrets;
mod server_log;
mod session_limit;
mod several_hosts;
mod shared_listener;
mod shutdown;
mod silent_loss;
mod single_flight;
mod smoke;
mod sql_contract;
mod stale_hits;
mod standby;
mod state_errors;
mod statement_modes;
mod statements;
mod sweeps;
mod tls;
mod touch;
mod traces;
