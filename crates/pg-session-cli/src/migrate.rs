//! `pg-session migrate`: creates or upgrades the tables, or prints the SQL that would.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use pg_session::{Config, Migrations, SessionManager};

use crate::why::Why;

/// How long the connections may take to close.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Create or upgrade the session tables, or print the SQL for another tool.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The server, as postgres://user:password@host:5432/database.
    #[arg(long, value_name = "URL", required_unless_present_any = ["print", "definer"])]
    database_url: Option<String>,
    /// The schema that holds the tables; created if it is missing.
    #[arg(long, default_value = "public")]
    schema: String,
    /// Put before each table's name.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Print the SQL for an empty database, and connect to nothing.
    #[arg(long)]
    print: bool,
    /// Print the SQL of a function for roles that may end a user's sessions and do nothing else, and connect to nothing.
    #[arg(long, conflicts_with = "print")]
    definer: bool,
}

/// Carries the command out; what went wrong is said on stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    let outcome = migrate(options).await.and_then(|said| Ok(writeln!(io::stdout(), "{}", said.trim_end())?));
    let Err(why) = outcome else { return ExitCode::SUCCESS };
    // If stderr is closed as well, the exit code has to do.
    let _ = writeln!(io::stderr(), "pg-session migrate: {why}");
    ExitCode::FAILURE
}

async fn migrate(options: Options) -> Result<String, Why> {
    let mut config = Config::default();
    config.schema = options.schema;
    config.table_prefix = options.prefix;
    if options.definer {
        return Ok(Migrations::definer_sql(&config)?);
    }
    // Without `--print`, clap has seen to it that there is a URL.
    let url = match options.database_url {
        Some(url) if !options.print => url,
        _ => return Ok(Migrations::sql(&config)?),
    };
    config.migrations = Migrations::Apply;
    config.pool_connections_max = 1;
    // Connecting migrates, and then checks tables and rights as the application's nodes will.
    let sessions = SessionManager::connect(&url, config.clone()).await?;
    let report = sessions.shutdown(CLOSE_WAIT).await;
    let closed = if report.is_complete() { "" } else { " (a connection was slow to close)" };
    Ok(format!("the session tables in schema {:?} are up to date{closed}", config.schema))
}
