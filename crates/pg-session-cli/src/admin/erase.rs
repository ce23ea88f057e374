//! `pg-session erase`: deletes all that the tables have about a user, for a person who asks for it.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use pg_session::{Cause, SessionManager, UserId};
use pg_session_admin::shared::Receipt;
use serde::Serialize;

use super::receipt::{actor, fields};
use super::revoke::asks_for_consent;
use super::select::{Selected, user_id};
use crate::connection::Place;
use crate::failure::{Failure, exit};
use crate::output::{Format, counted, print_fields, print_json, remark};
use crate::signals::Signals;

/// Erase the sessions of a user with their attributes, labels and locks, and the user's entries in the audit log. Asks first.
///
/// Returns when no node can serve the sessions any more. It takes the trust window, by default 6 s.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The user: an integer, a UUID, or the text that the application gives to UserId::named.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    user: String,
    /// Do not ask. Needed without a terminal.
    #[arg(long)]
    yes: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What `--json` prints; docs/cli.md describes the fields.
#[derive(Serialize)]
struct Outcome {
    user: String,
    sessions: u64,
    audit_entries: u64,
    receipt: Receipt,
}

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    exit("erase", erase(&options).await)
}

async fn erase(options: &Options) -> Result<(), Failure> {
    if !options.yes && !io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask on; add --yes"));
    }
    options.place.with_signals(async |sessions, signals| carry_out(options, sessions, signals).await).await
}

async fn consent(options: &Options, sessions: &SessionManager, user: UserId) -> Result<(), Failure> {
    // Before anything is erased: the role may lack a right.
    let entries = sessions.audit().count(user).await?;
    let count = Selected::User(user).count(sessions).await?;
    let what = format!("{} and {} of the audit log", counted(count, "session"), entries_text(entries));
    if !options.yes && !asks_for_consent(&format!("Erase {what}")).await? {
        return Err(Failure::new("nothing was erased"));
    }
    Ok(())
}

async fn carry_out(
    options: &Options,
    sessions: &SessionManager,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let user = user_id(&options.user);
    tokio::select! {
        agreed = consent(options, sessions, user) => agreed?,
        signal = signals.next() => return Err(Failure::interrupted(signal, "interrupted; nothing was erased")),
    }
    if io::stderr().is_terminal() {
        remark("waiting for all nodes …");
    }
    let change = sessions.user(user).delete().cause(Cause::Admin).by(&actor(None).await);
    let (ended, everywhere) = tokio::select! {
        done = change.with_everywhere() => done?,
        signal = signals.next() => {
            let text = "interrupted; the sessions may be ended, the audit log is not erased, and no receipt was written. Run the \
                        same command again";
            return Err(Failure::interrupted(signal, text));
        }
    };
    // The log has recorded these ends, too.
    let outcome = Outcome {
        user: user.to_string(),
        sessions: ended,
        audit_entries: sessions.audit().erase(user).await?,
        receipt: Receipt::from(&everywhere),
    };
    let format = Format::new(options.json);
    if format == Format::Json {
        return Ok(print_json(&outcome)?);
    }
    let mut lines = vec![
        ("erased", counted(outcome.sessions, "session")),
        ("erased in the audit log", entries_text(outcome.audit_entries)),
    ];
    lines.extend(fields(outcome.receipt));
    Ok(print_fields(format, &lines)?)
}

fn entries_text(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}
