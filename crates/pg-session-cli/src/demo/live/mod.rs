//! After the story the nodes stay up, and the user may try them. What each node receives and shows
//! is printed as it changes. A key cuts B off or restarts PostgreSQL.
//!
//! One task per actor: [`ann`] changes her session, [`view`] looks at each node, a thread reads the [`keys`]. This
//! loop prints what they say, so that no two lines mix.

mod ann;
mod keys;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::ann::Ann;
use self::keys::Key;
use self::view::Views;
use super::cluster::Cluster;
use super::print;
use super::reporter::{DemoError, Reporter};

/// How often changes are looked for. Changes within one look share a line.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Events that may wait to be printed.
const EVENTS_MAX: usize = 64;

/// An action of a user.
struct Event {
    who: &'static str,
    what: String,
}

/// What the loop holds.
struct Live<'a> {
    cluster: &'a Cluster,
    began: Instant,
    ann: Ann,
    network: Network,
    events: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
}

/// How B is connected.
#[derive(Clone, Copy)]
enum Network {
    Whole,
    Disconnected,
    Gone,
}

/// Keeps the nodes up until stopped.
///
/// # Errors
/// [`DemoError::Output`] if the output has no reader.
pub(super) async fn run(
    cluster: &Cluster,
    reporter: &Reporter,
    stop: &CancellationToken,
) -> Result<(), DemoError> {
    introduce(cluster, reporter)?;
    let (events, mut events_out) = mpsc::channel(EVENTS_MAX);
    let mut tasks = JoinSet::new();
    let ann = Ann::start(cluster, events.clone(), &mut tasks);
    let mut views = Views::start(cluster, &ann, &mut tasks);
    let mut keys = keys::read();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut live = Live { cluster, began: Instant::now(), ann, network: Network::Whole, events, tasks };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            Some(event) = events_out.recv() => live.print(event.who, &event.what)?,
            Some(key) = keys.recv() => match key {
                Key::Quit => return Ok(()),
                key => live.press(key)?,
            },
            _ = look.tick() => {
                for (who, what) in views.changes() {
                    live.print(&who, &what)?;
                }
            }
        }
    }
}

fn introduce(cluster: &Cluster, reporter: &Reporter) -> Result<(), DemoError> {
    let (steps, time) = reporter.so_far();
    let held = format!("Every step held: {} in {}.", print::counted(steps, "step"), print::took(time));
    reporter.frame(&format!("{held} The nodes stay up, until Ctrl-C."))?;
    print::text(
        "   Ann keeps changing her theme, now on one node, now on another; what they receive and show follows.",
    )?;
    print::text("   To look into the tables:")?;
    match cluster.server.sandbox() {
        Some(sandbox) => print::text(&format!("      psql {}", sandbox.url()))?,
        None => print::text(&format!("      SET search_path TO {};", cluster.server.schema()))?,
    }
    print::text("      SELECT id, version, attributes FROM sessions;")?;
    print::text(
        "   The nodes learn of what you change there through the triggers; e makes every node load anew.",
    )?;
    print::text(&format!("   {}", Key::HELP))?;
    Ok(print::text("")?)
}

impl Live<'_> {
    fn print(&self, who: &str, what: &str) -> Result<(), DemoError> {
        Ok(print::event(self.began.elapsed(), who, what)?)
    }

    fn press(&mut self, key: Key) -> Result<(), DemoError> {
        match key {
            Key::Next => self.ann.go_on(),
            Key::Pause => {
                let what = if self.ann.pause() { "Ann pauses" } else { "Ann goes on" };
                self.print("", what)?;
            }
            Key::Cut => self.cut()?,
            Key::Restart => self.restart()?,
            Key::Evict => self.evict(),
            Key::Unknown => self.print("", Key::HELP)?,
            Key::Quit => {}
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<(), DemoError> {
        let Some(wires) = &self.cluster.wires else {
            return self.print("B", "cannot be cut off: the server is reached through a Unix socket");
        };
        let (network, what) = match self.network {
            Network::Whole => {
                (Network::Disconnected, "the wire of its listener is cut; press c again to cut the rest")
            }
            Network::Disconnected => (Network::Gone, "all its wires are cut; press c again to mend them"),
            Network::Gone => (Network::Whole, "its wires are mended"),
        };
        // Printed first, so that its effects follow it.
        self.print("B", what)?;
        self.network = network;
        match network {
            Network::Whole => wires.mend(),
            Network::Disconnected => wires.cut_listener(),
            Network::Gone => wires.cut_pool(),
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), DemoError> {
        let Some(sandbox) = self.cluster.server.sandbox() else {
            return self.print("", "the demo does not restart a server of yours");
        };
        self.print("", "PostgreSQL is restarted")?;
        let (sandbox, events) = (Arc::clone(sandbox), self.events.clone());
        self.tasks.spawn(async move {
            let what = match tokio::task::spawn_blocking(move || sandbox.restart()).await {
                Ok(Ok(())) => "PostgreSQL is up again".to_owned(),
                Ok(Err(error)) => format!("PostgreSQL did not restart: {error}"),
                Err(panic) => format!("PostgreSQL did not restart: {panic}"),
            };
            // Fails only if the loop has ended, which needs no event.
            let _ = events.send(Event { who: "", what }).await;
        });
        Ok(())
    }

    fn evict(&mut self) {
        let (node, events) = (self.cluster.a.clone(), self.events.clone());
        self.tasks.spawn(async move {
            let what = match node.sessions.evict_all().await {
                Ok(()) => "asks every node to forget what it has in memory".to_owned(),
                Err(error) => format!("cannot reach the others: {error}"),
            };
            // As above.
            let _ = events.send(Event { who: node.name, what }).await;
        });
    }
}
