//! `pg-session migrate`: creates or upgrades the tables, or prints the SQL that would.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use pg_session::Migrations;

use crate::connection::Place;
use crate::failure::{Failure, exit};

/// How long the connections may take to close.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Create or upgrade the session tables, or print the SQL for another tool.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Print the SQL for an empty database, and connect to nothing.
    #[arg(long)]
    print: bool,
    /// Print the SQL of a function for roles that may end a user's sessions and do nothing else, and connect to nothing.
    #[arg(long, conflicts_with = "print")]
    definer: bool,
    #[command(flatten)]
    place: Place,
}

/// Carries the command out; what went wrong is said on stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    let outcome = migrate(options).await.and_then(|said| Ok(writeln!(io::stdout(), "{}", said.trim_end())?));
    exit("migrate", outcome)
}

async fn migrate(options: Options) -> Result<String, Failure> {
    let config = options.place.config();
    if options.definer {
        return Ok(Migrations::definer_sql(&config)?);
    }
    if options.print {
        return Ok(Migrations::sql(&config)?);
    }
    // Connecting migrates, and then checks tables and rights as the application's nodes will.
    let builder = options.place.builder_with(|config| config.migrations = Migrations::Apply)?;
    let sessions = Box::pin(builder.adopt_settings().connect()).await?;
    let report = sessions.shutdown(CLOSE_WAIT).await;
    let closed = if report.is_complete() { "" } else { " (a connection was slow to close)" };
    Ok(format!("the session tables in schema {:?} are up to date{closed}", config.schema))
}
