//! `pg-session migrate`: creates or upgrades the tables, or prints the SQL that would.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use pg_session::Migrations;

use crate::connection::{CLOSE_WAIT, Place};
use crate::failure::{Failure, exit};
use crate::output::{print_text, waiting};

/// Create or upgrade the session tables, or print the SQL for another tool.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Print the SQL for an empty database, and connect to nothing.
    #[arg(long)]
    print: bool,
    /// Print the SQL of two functions, and connect to nothing. They are for roles that may end the sessions of a user or of
    /// a label and do nothing else.
    #[arg(long, conflicts_with = "print")]
    definer: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Carries the command out.
pub(crate) async fn run(options: Options) -> ExitCode {
    let json = options.json;
    let outcome = migrate(options).await.and_then(|outcome| print(&outcome, json));
    exit("migrate", outcome)
}

/// What was done.
enum Outcome {
    /// The SQL that would do it.
    Sql(String),
    /// The tables of this schema are up to date.
    UpToDate { schema: String, is_closed: bool },
}

fn print(outcome: &Outcome, json: bool) -> Result<(), Failure> {
    let mut out = io::stdout();
    Ok(match outcome {
        Outcome::Sql(sql) if json => {
            print_text(format!("{}\n", serde_json::json!({ "schema": null, "sql": sql })).as_bytes())
        }
        Outcome::Sql(sql) => print_text(format!("{}\n", sql.trim_end()).as_bytes()),
        Outcome::UpToDate { schema, .. } if json => {
            writeln!(out, "{}", serde_json::json!({ "schema": schema, "sql": null }))
        }
        Outcome::UpToDate { schema, is_closed } => {
            let closed = if *is_closed { "" } else { " (a connection was slow to close)" };
            writeln!(out, "the session tables in schema {schema:?} are up to date{closed}")
        }
    }?)
}

async fn migrate(options: Options) -> Result<Outcome, Failure> {
    let config = options.place.config();
    if options.definer {
        return Ok(Outcome::Sql(Migrations::definer_sql(&config)?));
    }
    if options.print {
        return Ok(Outcome::Sql(Migrations::sql(&config)?));
    }
    // Connecting migrates, and then checks tables and rights as the application's nodes will.
    let builder = options.place.builder_with(|config| config.migrations = Migrations::Apply)?;
    let connecting = Box::pin(builder.adopt_settings().connect());
    let sessions = waiting("migrating", connecting).await?;
    let report = sessions.shutdown(CLOSE_WAIT).await;
    Ok(Outcome::UpToDate { schema: config.schema, is_closed: report.is_complete() })
}
