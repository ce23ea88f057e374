//! The `pg-session` program: a demo that a newcomer can follow, and what operations need.
//!
//! One file or folder per command. Exit codes: 0 done, 1 failed (the last lines say what and why), 2 wrong usage,
//! 128 + n ended early by signal n.

#![allow(
    clippy::disallowed_methods,
    reason = "the program measures and shows real time; what expires and what is trusted is the library's decision"
)]

mod admin;
mod connection;
mod demo;
mod doctor;
mod failure;
mod key;
mod manual;
mod migrate;
mod output;
mod plan;
mod serve;
mod signals;
mod usage;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Distributed web sessions on PostgreSQL.
#[derive(Parser, Debug)]
#[command(name = "pg-session", version, after_help = "RUST_LOG=pg_session=debug shows the library's log.")]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Audit(admin::audit::Options),
    Completions(manual::Completions),
    Demo(demo::Options),
    /// One node of `demo --web`, which starts it.
    #[command(hide = true)]
    DemoNode,
    Doctor(doctor::Options),
    Erase(admin::erase::Options),
    Explain(admin::explain::Options),
    Export(admin::export::Options),
    Key(key::Options),
    List(admin::list::Options),
    Man(manual::Man),
    Migrate(migrate::Options),
    Nodes(admin::nodes::Options),
    Plan(plan::Options),
    Revoke(admin::revoke::Options),
    Serve(serve::Options),
    Show(admin::show::Options),
    Tail(admin::tail::Options),
    Watch(admin::watch::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let program = match Program::try_parse() {
        Ok(program) => program,
        Err(error) => return usage::exit(&error),
    };
    show_log();
    match program.command {
        Command::Audit(options) => Box::pin(admin::audit::run(options)).await,
        Command::Completions(options) => manual::completions(&options, Program::command()),
        Command::Demo(options) => Box::pin(demo::run(options)).await,
        Command::DemoNode => Box::pin(demo::run_node()).await,
        Command::Doctor(options) => Box::pin(doctor::run(options)).await,
        Command::Erase(options) => Box::pin(admin::erase::run(options)).await,
        Command::Explain(options) => Box::pin(admin::explain::run(options)).await,
        Command::Export(options) => Box::pin(admin::export::run(options)).await,
        Command::Key(options) => key::run(options),
        Command::List(options) => Box::pin(admin::list::run(options)).await,
        Command::Man(options) => manual::man(&options, Program::command()),
        Command::Migrate(options) => Box::pin(migrate::run(options)).await,
        Command::Nodes(options) => Box::pin(admin::nodes::run(options)).await,
        Command::Plan(options) => Box::pin(plan::run(options)).await,
        Command::Revoke(options) => Box::pin(admin::revoke::run(options)).await,
        Command::Serve(options) => Box::pin(serve::run(options)).await,
        Command::Show(options) => Box::pin(admin::show::run(options)).await,
        Command::Tail(options) => Box::pin(admin::tail::run(options)).await,
        Command::Watch(options) => Box::pin(admin::watch::run(options)).await,
    }
}

/// The log stays silent unless it is asked for: the library writes to it what the demo shows anyway.
fn show_log() {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
    }
}
