//! `pg-session show`: one session with its attributes.

use std::process::ExitCode;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use pg_session::{IdleLimit, Session, SessionManager};
use serde::Serialize;

use super::row::{AttributeRow, SessionRow, attributes};
use super::select::by_handle;
use crate::connection::Place;
use crate::failure::{Failure, exit};
use crate::output::{Format, harmless, print_fields, print_json};

/// Show one session, and the keys of its attributes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The handle, or its first 8 digits or more, from a listing or a log.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    handle: String,
    /// Print the values of the attributes, too. They may be personal data.
    #[arg(long)]
    values: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What `--json` prints; docs/cli.md describes the fields.
#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    session: SessionRow,
    attributes: Vec<AttributeRow>,
}

impl Shown {
    pub(super) fn new(session: &Session, values: bool) -> Self {
        Self { session: SessionRow::new(session), attributes: attributes(session, values) }
    }
}

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    exit("show", options.place.with(async |sessions| show(&options, sessions).await).await)
}

async fn show(options: &Options, sessions: &SessionManager) -> Result<(), Failure> {
    let session = by_handle(sessions, &options.handle).await?;
    let now = sessions.database_time();
    let format = Format::new(options.json);
    if format == Format::Json {
        return Ok(print_json(&Shown::new(&session, options.values))?);
    }
    let time = |time| format.time(time, now);
    let mut fields = vec![
        ("handle", session.id().handle().to_string()),
        ("user", session.user_id().map_or_else(|| "-".to_owned(), |id| id.to_string())),
        ("group", session.group_id().map_or_else(|| "-".to_owned(), |id| id.to_string())),
        ("state", state(&session).to_owned()),
        ("version", session.version().get().to_string()),
        ("created", time(session.created_at())),
        ("updated", time(session.updated_at())),
        ("last access", time(session.last_accessed_at())),
        ("expires", time(session.expires_at())),
        ("idle limit", if session.idle_limit() == IdleLimit::Enforced { "yes" } else { "no" }.to_owned()),
    ];
    fields
        .extend(attributes(&session, options.values).iter().map(|attribute| ("attribute", line(attribute))));
    Ok(print_fields(format, &fields)?)
}

fn state(session: &Session) -> &'static str {
    if session.is_retired() { "retired id: the session has a new handle" } else { "live" }
}

fn line(attribute: &AttributeRow) -> String {
    let mut text = harmless(&attribute.key);
    if let Some(value) = &attribute.value {
        text.push_str(&format!(" = {}", harmless(value.get())));
    }
    if let Some(expires_at) = &attribute.expires_at {
        text.push_str(&format!(" (until {expires_at})"));
    }
    text
}
