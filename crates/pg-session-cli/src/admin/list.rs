//! `pg-session list`: live sessions, by their handles.

use std::process::ExitCode;

use clap::Args;
use pg_session::{Session, SessionManager};

use super::row::{HEAD, SessionRow, cells};
use super::select::{Age, Scope, Selected};
use crate::connection::Place;
use crate::failure::{Failure, exit};
use crate::output::{Format, print_json, print_rows, remark};

/// Sessions that one call lists at most.
const LIMIT_MAX: u32 = 100_000;

/// List live sessions by handle. Without --user, --group or --label: of all users.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    age: Age,
    /// List at most this many.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
    limit: u32,
    /// Print one JSON object per session.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    exit("list", options.place.with(async |sessions| list(&options, sessions).await).await)
}

async fn list(options: &Options, sessions: &SessionManager) -> Result<(), Failure> {
    let (found, more) = gather(options, sessions).await?;
    let now = sessions.database_time();
    let format = Format::new(options.json);
    if format == Format::Json {
        found.iter().try_for_each(|session| print_json(&SessionRow::new(session)))?;
    } else {
        let rows: Vec<_> = found.iter().map(|session| cells(session, format, now)).collect();
        print_rows(format, &HEAD, &rows)?;
        if found.is_empty() {
            remark("no live session");
        }
    }
    if more {
        remark(&format!("There are more than {} sessions. To list more, raise --limit.", options.limit));
    }
    Ok(())
}

/// The sessions, and whether there are more.
async fn gather(options: &Options, sessions: &SessionManager) -> Result<(Vec<Session>, bool), Failure> {
    let limit = options.limit as usize;
    let selected = options.scope.selected().unwrap_or(Selected::All);
    let mut found = Vec::new();
    let mut more = false;
    let visit = |session: Session| {
        more = found.len() == limit;
        if !more {
            found.push(session);
        }
        !more
    };
    selected.each(sessions, &options.age, visit).await?;
    found.sort_by_key(|session| std::cmp::Reverse(session.last_accessed_at()));
    Ok((found, more))
}
