//! `pg-session watch`: the nodes and the last events, again and again.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use pg_session::{NodeInfo, SessionManager};
use pg_session_admin::shared::NodeRow;
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::nodes::print_nodes;
use super::tail::{EventRow, Following};
use crate::connection::{Place, close};
use crate::failure::{Failure, exit};
use crate::output::{Format, clear, print_json, print_rows, rfc3339};
use crate::signals::Signals;

/// Each look asks each node for a write.
const EVERY_MIN: Duration = Duration::from_millis(500);
/// Longer than a watch.
const EVERY_MAX: Duration = Duration::from_secs(86_400);
/// Events that are shown on a terminal.
const EVENTS_SHOWN: usize = 10;
/// Events that wait for the next look.
const EVENTS_MAX: usize = 1_000;

/// Watch the nodes and the ends of sessions: a live view on a terminal, otherwise one look after the other. Until Ctrl-C.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Between two looks, as 2s; 500ms to 1d.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = every)]
    every: Duration,
    /// End after this many looks.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    looks: Option<u32>,
    /// Print one JSON object per look.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What `--json` prints; docs/cli.md describes the fields.
#[derive(Serialize)]
struct Look<'a> {
    time: &'a str,
    error: Option<&'a str>,
    nodes: Vec<NodeRow>,
    events: &'a VecDeque<EventRow>,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (EVERY_MIN..=EVERY_MAX).contains(&every) { Ok(every) } else { Err("give 500ms to 1d".to_owned()) }
}

/// Runs the command until a signal. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    exit("watch", Box::pin(watch(&options)).await)
}

async fn watch(options: &Options) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let sessions = tokio::select! {
        sessions = options.place.connect() => sessions?,
        _ = signals.next() => return Ok(()),
    };
    let outcome = tokio::select! {
        outcome = look_again(options, &sessions) => outcome,
        _ = signals.next() => Ok(()),
    };
    close(&sessions).await;
    Ok(outcome?)
}

async fn look_again(options: &Options, sessions: &SessionManager) -> io::Result<()> {
    let format = Format::new(options.json);
    let (mut following, mut seen) = (Following::of(sessions), VecDeque::new());
    let mut ticks = tokio::time::interval(options.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    while options.looks.is_none_or(|wanted| looks < wanted) {
        until(&mut ticks, &mut following, &mut seen, format).await;
        // An incident goes on while the database does not answer.
        let nodes = sessions.nodes().await.map_err(|error| error.to_string());
        print(format, sessions, nodes, &seen)?;
        if format != Format::Table {
            seen.clear();
        }
        looks += 1;
    }
    Ok(())
}

/// Gathers events until it is time for the next look.
async fn until(
    ticks: &mut tokio::time::Interval,
    following: &mut Following,
    seen: &mut VecDeque<EventRow>,
    format: Format,
) {
    let limit = if format == Format::Table { EVENTS_SHOWN } else { EVENTS_MAX };
    loop {
        tokio::select! {
            biased;
            Some(row) = following.next() => {
                seen.push_back(row);
                if seen.len() > limit {
                    seen.pop_front();
                }
            }
            _ = ticks.tick() => return,
        }
    }
}

fn print(
    format: Format,
    sessions: &SessionManager,
    nodes: Result<Vec<NodeInfo>, String>,
    events: &VecDeque<EventRow>,
) -> io::Result<()> {
    let time = rfc3339(SystemTime::now());
    let error = nodes.as_ref().err().cloned();
    let mut nodes = nodes.unwrap_or_default();
    nodes.retain(|node| !node.is_this);
    if format == Format::Json {
        let nodes = nodes.iter().map(NodeRow::from).collect();
        return print_json(&Look { time: &time, error: error.as_deref(), nodes, events });
    }
    if format == Format::Table {
        clear()?;
    }
    writeln!(io::stdout(), "{time}")?;
    match error {
        Some(error) => writeln!(io::stdout(), "the nodes cannot be listed: {error}")?,
        None => print_nodes(format, &nodes, sessions.database_time())?,
    }
    writeln!(io::stdout())?;
    if !events.is_empty() {
        let row = |event: &EventRow| event.cells().map(str::to_owned).to_vec();
        let rows: Vec<_> = events.iter().map(row).collect();
        print_rows(format, &["TIME", "EVENT", "CAUSE"], &rows)?;
        writeln!(io::stdout())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_neither_too_often_nor_years_apart() {
        for wrong in ["", "0s", "499ms", "25h", "500000000y", "2"] {
            assert!(every(wrong).is_err(), "{wrong}");
        }
        assert_eq!((every("500ms"), every("1d")), (Ok(EVERY_MIN), Ok(EVERY_MAX)));
    }
}
