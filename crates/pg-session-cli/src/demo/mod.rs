//! `pg-session demo`: three nodes, a story about them with measured times, and then a cluster to try.
//!
//! In the order of the performance: [`server`] and [`cluster`] set it up, [`story`] plays, [`live`]
//! stays. With `--web`, [`web`] serves pages from three processes. With `--proxy`, [`proxy`] shows
//! an nginx that asks who is signed in. The nodes are ended, and the server or the schema is
//! removed, before the program ends. That holds for a step that fails, for Ctrl-C, and for a reader
//! that goes away.

mod cluster;
mod live;
mod print;
mod proxy;
mod reporter;
mod server;
mod story;
mod web;

use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use self::cluster::Cluster;
use self::print::{counted, took};
use self::reporter::{DemoError, Reporter};
use self::server::Server;
pub(crate) use self::web::run_node;
use crate::failure::Failure;
use crate::signals::{Caught, Signals};

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
    /// nginx in front of an application without session code, and what its questions to `pg-session serve` cost. Needs nginx.
    #[arg(long, conflicts_with_all = ["web", "database_url"])]
    proxy: bool,
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
    let reporter = Arc::new(Reporter::new());
    let mut caught = None;
    let outcome = perform(&options, &reporter, &mut caught).await;
    match outcome {
        Ok(Ending::Held | Ending::Watched) => return ExitCode::SUCCESS,
        Err(DemoError::Step { act, step }) => print::complain(&format!("failed in \"{act}\": {step}")),
        // The reader that closed the pipe knows.
        Err(DemoError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(DemoError::Output(error)) => print::complain(&format!("cannot write: {error}")),
        Err(DemoError::Interrupted) => print::complain("interrupted"),
    }
    caught.map_or(ExitCode::FAILURE, |signal| ExitCode::from(signal.exit_code()))
}

/// Opens the server, plays, and closes the server, whatever the play came to.
async fn perform(
    options: &Options,
    reporter: &Arc<Reporter>,
    caught: &mut Option<Caught>,
) -> Result<Ending, DemoError> {
    let mut signals = Signals::catch()?;
    print::headline(
        "pg-session: web sessions that every node reads from memory, kept coherent by PostgreSQL",
    )?;
    reporter.frame("The cluster")?;
    let server = tokio::select! {
        server = Server::open(options.database_url.as_deref(), reporter) => Arc::new(server?),
        signal = signals.next() => {
            *caught = Some(signal);
            return Err(DemoError::Interrupted);
        }
    };

    let stop = CancellationToken::new();
    // A task of its own, so that even a panic in it leads to the clean-up below.
    let mut playing = JoinSet::new();
    playing.spawn(play(Arc::clone(&server), Arc::clone(reporter), stop.clone(), options.clone()));
    let outcome = tokio::select! {
        Some(outcome) = playing.join_next() => outcome,
        signal = signals.next() => {
            *caught = Some(signal);
            stop.cancel();
            end(&mut playing).await
        }
    };
    let outcome =
        outcome.unwrap_or_else(|panic| Err(reporter.failed("the demo itself does not break", &panic.into())));
    playing.shutdown().await;
    remove(server, outcome, reporter).await
}

/// Waits for the play's orderly end after a signal, or ends it.
async fn end(
    playing: &mut JoinSet<Result<Ending, DemoError>>,
) -> Result<Result<Ending, DemoError>, JoinError> {
    match tokio::time::timeout(END_WAIT, playing.join_next()).await {
        Ok(Some(outcome)) => outcome,
        Ok(None) | Err(_) => Ok(Err(DemoError::Interrupted)),
    }
}

/// Removes what the demo made. The first trouble is the one that counts; another one is only said.
async fn remove(
    server: Arc<Server>,
    outcome: Result<Ending, DemoError>,
    reporter: &Reporter,
) -> Result<Ending, DemoError> {
    let removed = match Arc::into_inner(server) {
        Some(server) => server.close().await,
        None => Err(Failure::new("a node still holds the server")),
    };
    match (outcome, removed) {
        (Ok(ending), Ok(what)) => {
            let (steps, time) = reporter.so_far();
            print::aside(what)?;
            if matches!(ending, Ending::Held) {
                print::headline(&format!("Every step held: {} in {}.", counted(steps, "step"), took(time)))?;
            }
            Ok(ending)
        }
        (Ok(_), Err(failure)) => Err(reporter.failed("nothing is left behind", &failure)),
        (Err(trouble), Ok(what)) => {
            // To a reader that went away, nothing can be said.
            let result = if matches!(trouble, DemoError::Output(_)) { Ok(()) } else { print::aside(what) };
            result.map_err(DemoError::Output).and(Err(trouble))
        }
        (Err(trouble), Err(failure)) => {
            print::complain(&failure.to_string());
            Err(trouble)
        }
    }
}

/// Everything between the server's start and its end.
async fn play(
    server: Arc<Server>,
    reporter: Arc<Reporter>,
    stop: CancellationToken,
    options: Options,
) -> Result<Ending, DemoError> {
    if options.web {
        return web::play(&server, options.port, &reporter, &stop).await;
    }
    if options.proxy {
        return proxy::play(&server, options.once, &reporter, &stop).await;
    }
    let cluster = tokio::select! {
        cluster = Cluster::set(server, &reporter) => cluster?,
        () = stop.cancelled() => return Err(DemoError::Interrupted),
    };
    let result = tokio::select! {
        result = tokio::time::timeout(STORY_WAIT, story::run(&cluster, &reporter)) => result.unwrap_or_else(|_| {
            Err(reporter.failed("the story ends", &Failure::new(format!("it took longer than {STORY_WAIT:?}"))))
        }),
        () = stop.cancelled() => Err(DemoError::Interrupted),
    };
    let ending = match result {
        Ok(()) if !options.once => live::run(&cluster, &reporter, &stop).await.map(|()| Ending::Watched),
        Ok(()) => Ok(Ending::Held),
        Err(trouble) => Err(trouble),
    };
    shut_down(cluster, &reporter, ending).await
}

/// Ends the nodes; after a trouble only so that they are ended.
async fn shut_down(
    cluster: Cluster,
    reporter: &Reporter,
    ending: Result<Ending, DemoError>,
) -> Result<Ending, DemoError> {
    if ending.is_ok() {
        reporter.frame("The end")?;
        reporter
            .step("the nodes write what they still hold and close their connections", cluster.shut_down())
            .await?;
    } else if let Err(failure) = cluster.shut_down().await {
        print::complain(&format!("the nodes did not end in order: {failure}"));
    }
    ending
}
