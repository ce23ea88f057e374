//! `pg-session tail`: the ends of sessions and the trust of this program, as they happen.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use pg_session::{Event, Events, SessionManager};
use pg_session_admin::shared::describe;
use serde::Serialize;

use crate::connection::{Place, close};
use crate::failure::{Failure, exit};
use crate::output::{Format, print_json, rfc3339};
use crate::signals::Signals;

/// Follow the ends of sessions on all nodes, with their causes. Until Ctrl-C.
///
/// The first line says whether this program receives notifications. While it does not, ends may be missing.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Print one JSON object per event.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What `--json` prints; docs/cli.md describes the fields.
#[derive(Serialize)]
pub(super) struct EventRow {
    time: String,
    event: &'static str,
    handle: Option<String>,
    user: Option<String>,
    group: Option<String>,
    cause: Option<&'static str>,
    lost: Option<u64>,
    #[serde(skip)]
    sentence: String,
}

impl EventRow {
    /// Nothing for what happens with each login.
    fn of(event: &Event) -> Option<Self> {
        let (sentence, cause) = describe(event)?;
        let (name, handle, user, group, lost) = match event {
            Event::Ended { session, user, .. } => ("ended", Some(*session), *user, None, None),
            Event::UserEnded { user, .. } => ("user_ended", None, Some(*user), None, None),
            Event::GroupEnded { group, .. } => ("group_ended", None, None, Some(*group), None),
            Event::AllEnded { .. } => ("all_ended", None, None, None, None),
            Event::Trusted => ("trusted", None, None, None, None),
            Event::Untrusted => ("untrusted", None, None, None, None),
            Event::Lagged(lost) => ("lagged", None, None, None, Some(*lost)),
            _ => return None,
        };
        Some(Self {
            time: rfc3339(SystemTime::now()),
            event: name,
            handle: handle.map(|handle| handle.to_string()),
            user: user.map(|user| user.to_string()),
            group: group.map(|group| group.to_string()),
            cause: cause.map(pg_session::Cause::name),
            lost,
            sentence,
        })
    }

    /// Time, sentence and cause.
    pub(super) fn cells(&self) -> [&str; 3] {
        [&self.time, &self.sentence, self.cause.unwrap_or("-")]
    }
}

/// The events to show: the trust of this program first, and then each change of it once.
pub(super) struct Following {
    events: Events,
    /// Of the last row.
    trust: Option<&'static str>,
    first: Option<Event>,
}

impl Following {
    pub(super) fn of(sessions: &SessionManager) -> Self {
        let events = sessions.events();
        let is_trusted = sessions.status().trusted_for.is_some();
        let first = if is_trusted { Event::Trusted } else { Event::Untrusted };
        Self { events, trust: None, first: Some(first) }
    }

    /// `None` when the node has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub(super) async fn next(&mut self) -> Option<EventRow> {
        loop {
            let event = match self.first.take() {
                Some(event) => event,
                None => self.events.next().await?,
            };
            let Some(row) = EventRow::of(&event) else { continue };
            if !matches!(event, Event::Trusted | Event::Untrusted) {
                return Some(row);
            }
            if self.trust.replace(row.event) != Some(row.event) {
                return Some(row);
            }
        }
    }
}

/// Runs the command until a signal. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    exit("tail", Box::pin(tail(&options)).await)
}

async fn tail(options: &Options) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let sessions = tokio::select! {
        sessions = options.place.connect() => sessions?,
        _ = signals.next() => return Ok(()),
    };
    let mut following = Following::of(&sessions);
    let format = Format::new(options.json);
    let mut printed = Ok(());
    while printed.is_ok() {
        let row = tokio::select! {
            row = following.next() => row,
            _ = signals.next() => None,
        };
        let Some(row) = row else { break };
        printed = print(format, &row);
    }
    close(&sessions).await;
    Ok(printed?)
}

fn print(format: Format, row: &EventRow) -> io::Result<()> {
    let [time, sentence, cause] = row.cells();
    match format {
        Format::Json => print_json(row),
        Format::Tabs => writeln!(io::stdout(), "{time}\t{sentence}\t{cause}"),
        Format::Table => writeln!(io::stdout(), "{time}  {sentence}  {cause}"),
    }
}
