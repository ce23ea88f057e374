//! `pg-session doctor`: checks the server, the role and the tables, and prints what to do.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use pg_session::{Config, Finding, SessionManager, Severity};

use crate::why::Why;

/// Check that nodes can start and keep their promises. Reads only. Exit code 0: no fault; 1: a fault, or no answer.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The server, as postgres://user:password@host:5432/database. Use the role of the application.
    #[arg(long, value_name = "URL")]
    database_url: String,
    /// The address of the listener, if it differs.
    #[arg(long, value_name = "URL")]
    listen_url: Option<String>,
    /// The schema that holds the tables.
    #[arg(long, default_value = "public")]
    schema: String,
    /// The prefix of each table's name.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Print one JSON object per finding: check, severity, message, fix.
    #[arg(long)]
    json: bool,
}

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    let json = options.json;
    let outcome = match Box::pin(diagnose(options)).await {
        Ok(findings) => print(&findings, json).map(|()| findings).map_err(Why::from),
        Err(why) => Err(why),
    };
    match outcome {
        Ok(findings) if findings.iter().all(|finding| finding.severity != Severity::Fault) => {
            ExitCode::SUCCESS
        }
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            // If stderr is closed as well, only the exit code is left.
            let _ = writeln!(io::stderr(), "pg-session doctor: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn diagnose(options: Options) -> Result<Vec<Finding>, Why> {
    let mut config = Config::default();
    config.schema = options.schema;
    config.table_prefix = options.prefix;
    let mut builder = SessionManager::builder(config).url(&options.database_url)?;
    if let Some(url) = &options.listen_url {
        builder = builder.listen_on_url(url)?;
    }
    Ok(builder.diagnose().await?)
}

fn print(findings: &[Finding], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for Finding { check, severity, message, fix, .. } in findings {
        let severity = if *severity == Severity::Fault { "fault" } else { "warning" };
        if json {
            let line =
                serde_json::json!({ "check": check, "severity": severity, "message": message, "fix": fix });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{severity:<8} {check}: {message}\n         fix: {fix}")?;
        }
    }
    if findings.is_empty() && !json {
        writeln!(out, "no findings")?;
    }
    Ok(())
}
