//! `pg-session doctor`: checks the server, the role and the tables, and prints what to do.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use pg_session::{Finding, Severity};

use crate::connection::Place;
use crate::failure::{Failure, exit};
use crate::output::waiting;

/// Check that nodes can start and keep their promises. Exit code 0: no fault; 1: a fault, or no answer.
///
/// Changes no session. If nothing is at fault, it starts and stops a node, which enters the registry and sends notifications.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Print one JSON object per finding: check, severity, message, fix, page.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    let json = options.json;
    let outcome = match Box::pin(diagnose(options)).await {
        Ok(findings) => print(&findings, json).map(|()| findings).map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(findings) if findings.iter().all(|finding| finding.severity != Severity::Fault) => {
            ExitCode::SUCCESS
        }
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => exit("doctor", Err(failure)),
    }
}

async fn diagnose(options: Options) -> Result<Vec<Finding>, Failure> {
    Ok(waiting("checking", options.place.builder()?.diagnose()).await?)
}

fn print(findings: &[Finding], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for Finding { check, severity, message, fix, page, .. } in findings {
        let severity = if *severity == Severity::Fault { "fault" } else { "warning" };
        if json {
            let line = serde_json::json!({ "check": check, "severity": severity, "message": message, "fix": fix, "page": page });
            writeln!(out, "{line}")?;
        } else {
            let fix = fix.replace('\n', "\n              ");
            writeln!(out, "{severity:<8} {check}: {message}\n         fix: {fix}\n         see: {page}")?;
        }
    }
    if findings.is_empty() && !json {
        writeln!(out, "no findings")?;
    }
    Ok(())
}
