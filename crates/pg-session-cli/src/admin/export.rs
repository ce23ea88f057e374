//! `pg-session export`: what the sessions of a user hold, for a person who asks for their data.

use std::process::ExitCode;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use pg_session::SessionManager;

use super::select::{Age, Selected, user_id};
use super::show::Shown;
use crate::connection::Place;
use crate::failure::{Failure, exit};
use crate::output::{print_json, remark};

/// Print the live sessions of a user with the values of their attributes, one JSON object per session.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The user: an integer, a UUID, or the text that the application gives to UserId::named.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    user: String,
    /// The output is JSON in any case.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    exit("export", options.place.with(async |sessions| export(&options, sessions).await).await)
}

async fn export(options: &Options, sessions: &SessionManager) -> Result<(), Failure> {
    let (mut count, mut written) = (0_u64, Ok(()));
    let everything = Age { older_than: None };
    let visit = |session| {
        count += 1;
        written = print_json(&Shown::new(&session, true));
        written.is_ok()
    };
    Selected::User(user_id(&options.user)).each(sessions, &everything, visit).await?;
    written?;
    if count == 0 {
        remark("The user has no live session.");
    }
    Ok(())
}
