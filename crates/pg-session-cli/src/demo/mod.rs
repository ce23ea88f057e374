//! `pg-session demo`: three nodes, a story about them with measured times, and then a stage to play on.
//!
//! In the order of the performance: [`server`] and [`stage`] set it up, [`story`] plays, [`live`] stays; or, with `--web`,
//! [`web`] serves pages from three processes. Whatever
//! happens (a step that fails, Ctrl-C, a reader that goes away), the nodes are ended and the server or the schema is
//! removed before the program ends.

mod live;
mod print;
mod server;
mod stage;
mod story;
mod teller;
mod web;

use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use self::print::{counted, took};
use self::server::Server;
use self::stage::Stage;
use self::teller::{Teller, Trouble};
pub(crate) use self::web::run_node;
use crate::signals::{Caught, Signals};
use crate::why::Why;

/// How long the story may take; it takes a few seconds.
const STORY_WAIT: Duration = Duration::from_secs(50);
/// How long the nodes get to end in order after a signal.
const END_WAIT: Duration = Duration::from_secs(15);

/// Three nodes on a PostgreSQL: how they keep their sessions coherent, step by step, with measured times.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Tell the story once and end: exit code 0 only if every step held. Without it the nodes stay up until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// Run on your own server instead of a private one, in a schema that is created and dropped. Without TLS: for
    /// a server that requires it, run the demo on a private one.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Pages instead of a story: three nodes as processes of their own, to be looked at with a browser, until Ctrl-C.
    #[arg(long, conflicts_with_all = ["once", "database_url"])]
    web: bool,
    /// The first of the three ports of `--web`, which listens on 127.0.0.1 only; 0 for any free ones.
    #[arg(long, default_value_t = 8080, requires = "web")]
    port: u16,
}

/// How the performance ended.
enum Ending {
    /// Every step held.
    Held,
    /// The story is over, and the user watched the nodes until now.
    Watched,
}

/// Carries the command out.
pub(crate) async fn run(options: Options) -> ExitCode {
    let teller = Arc::new(Teller::new());
    let mut caught = None;
    let outcome = perform(&options, &teller, &mut caught).await;
    match outcome {
        Ok(Ending::Held | Ending::Watched) => return ExitCode::SUCCESS,
        Err(Trouble::Step { act, step }) => print::complain(&format!("failed in \"{act}\": {step}")),
        // The reader that closed the pipe knows.
        Err(Trouble::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(Trouble::Output(error)) => print::complain(&format!("cannot write: {error}")),
        Err(Trouble::Interrupted) => print::complain("interrupted"),
    }
    caught.map_or(ExitCode::FAILURE, |signal| ExitCode::from(signal.exit_code()))
}

/// Opens the server, plays, and closes the server, whatever the play came to.
async fn perform(
    options: &Options,
    teller: &Arc<Teller>,
    caught: &mut Option<Caught>,
) -> Result<Ending, Trouble> {
    let mut signals = Signals::catch()?;
    print::headline(
        "pg-session: web sessions that every node reads from memory, kept coherent by PostgreSQL",
    )?;
    teller.frame("The stage")?;
    let server = tokio::select! {
        server = Server::open(options.database_url.as_deref(), teller) => Arc::new(server?),
        signal = signals.next() => {
            *caught = Some(signal);
            return Err(Trouble::Interrupted);
        }
    };

    let stop = CancellationToken::new();
    // A task of its own, so that even a panic in it leads to the clean-up below.
    let mut playing = JoinSet::new();
    playing.spawn(play(Arc::clone(&server), Arc::clone(teller), stop.clone(), options.clone()));
    let outcome = tokio::select! {
        Some(outcome) = playing.join_next() => outcome,
        signal = signals.next() => {
            *caught = Some(signal);
            stop.cancel();
            end(&mut playing).await
        }
    };
    let outcome =
        outcome.unwrap_or_else(|panic| Err(teller.failed("the demo itself does not break", &panic.into())));
    playing.shutdown().await;
    remove(server, outcome, teller).await
}

/// Waits for the play's orderly end after a signal, or ends it.
async fn end(playing: &mut JoinSet<Result<Ending, Trouble>>) -> Result<Result<Ending, Trouble>, JoinError> {
    match tokio::time::timeout(END_WAIT, playing.join_next()).await {
        Ok(Some(outcome)) => outcome,
        Ok(None) | Err(_) => Ok(Err(Trouble::Interrupted)),
    }
}

/// Removes what the demo made. The first trouble is the one that counts; another one is only said.
async fn remove(
    server: Arc<Server>,
    outcome: Result<Ending, Trouble>,
    teller: &Teller,
) -> Result<Ending, Trouble> {
    let removed = match Arc::into_inner(server) {
        Some(server) => server.close().await,
        None => Err(Why::new("a node still holds the server")),
    };
    match (outcome, removed) {
        (Ok(ending), Ok(what)) => {
            let (steps, time) = teller.so_far();
            print::aside(what)?;
            if matches!(ending, Ending::Held) {
                print::headline(&format!("Every step held: {} in {}.", counted(steps, "step"), took(time)))?;
            }
            Ok(ending)
        }
        (Ok(_), Err(why)) => Err(teller.failed("nothing is left behind", &why)),
        (Err(trouble), Ok(what)) => {
            // To a reader that went away, nothing can be said.
            let result = if matches!(trouble, Trouble::Output(_)) { Ok(()) } else { print::aside(what) };
            result.map_err(Trouble::Output).and(Err(trouble))
        }
        (Err(trouble), Err(why)) => {
            print::complain(&why.to_string());
            Err(trouble)
        }
    }
}

/// Everything between the server's start and its end.
async fn play(
    server: Arc<Server>,
    teller: Arc<Teller>,
    stop: CancellationToken,
    options: Options,
) -> Result<Ending, Trouble> {
    if options.web {
        return web::play(&server, options.port, &teller, &stop).await;
    }
    let stage = tokio::select! {
        stage = Stage::set(server, &teller) => stage?,
        () = stop.cancelled() => return Err(Trouble::Interrupted),
    };
    let result = tokio::select! {
        result = tokio::time::timeout(STORY_WAIT, story::tell(&stage, &teller)) => result.unwrap_or_else(|_| {
            Err(teller.failed("the story ends", &Why::new(format!("it took longer than {STORY_WAIT:?}"))))
        }),
        () = stop.cancelled() => Err(Trouble::Interrupted),
    };
    let ending = match result {
        Ok(()) if !options.once => live::run(&stage, &teller, &stop).await.map(|()| Ending::Watched),
        Ok(()) => Ok(Ending::Held),
        Err(trouble) => Err(trouble),
    };
    strike(stage, &teller, ending).await
}

/// Ends the nodes; after a trouble only so that they are ended.
async fn strike(stage: Stage, teller: &Teller, ending: Result<Ending, Trouble>) -> Result<Ending, Trouble> {
    if ending.is_ok() {
        teller.frame("The end")?;
        teller
            .step("the nodes write what they still hold and close their connections", stage.strike())
            .await?;
    } else if let Err(why) = stage.strike().await {
        print::complain(&format!("the nodes did not end in order: {why}"));
    }
    ending
}
