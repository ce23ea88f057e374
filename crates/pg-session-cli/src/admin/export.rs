//! `pg-session export`: what the sessions of a user hold, for a person who asks for their data.

use std::process::ExitCode;

use clap::Args;

use super::select::{Age, Selected, user_id};
use super::show::Shown;
use crate::connection::{Place, close};
use crate::output::{print_json, remark};
use crate::why::{Why, exit};

/// Print the live sessions of a user with the values of their attributes, one JSON object per session.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The user: an integer, a UUID, or the text that the application gives to UserId::named.
    #[arg(long, value_name = "ID")]
    user: String,
    #[command(flatten)]
    place: Place,
}

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    exit("export", export(&options).await)
}

async fn export(options: &Options) -> Result<(), Why> {
    let sessions = options.place.connect().await?;
    let (mut count, mut written) = (0_u64, Ok(()));
    let everything = Age { older_than: None };
    let visit = |session| {
        count += 1;
        written = print_json(&Shown::new(&session, true));
        written.is_ok()
    };
    let outcome = Selected::User(user_id(&options.user)).each(&sessions, &everything, visit).await;
    close(&sessions).await;
    outcome?;
    written?;
    if count == 0 {
        remark("The user has no live session.");
    }
    Ok(())
}
