//! Ann, who logs in, changes her theme on one node after the other, and logs out: so that there are changes to receive.

use std::time::Duration;

use pg_session::{SessionId, UpdateError, UserId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Event;
use crate::demo::cluster::{Cluster, Node};
use crate::failure::Failure;

/// How long Ann thinks.
const STEP_EVERY: Duration = Duration::from_secs(4);
/// What she likes, in turn.
const THEMES: [&str; 5] = ["teal", "amber", "indigo", "coral", "olive"];

/// The way to Ann.
pub(super) struct Ann {
    session: watch::Receiver<Option<SessionId>>,
    paused: watch::Sender<bool>,
    next: mpsc::Sender<()>,
}

/// Ann herself.
struct Life {
    nodes: Vec<Node>,
    session: watch::Sender<Option<SessionId>>,
    turn: usize,
    themes_left: usize,
}

impl Ann {
    pub(super) fn start(cluster: &Cluster, events: mpsc::Sender<Event>, tasks: &mut JoinSet<()>) -> Self {
        let (known, session) = watch::channel(None);
        let (paused, is_paused) = watch::channel(false);
        let (next, asked) = mpsc::channel(1);
        let nodes = cluster.nodes().into_iter().cloned().collect();
        let life = Life { nodes, session: known, turn: 0, themes_left: 0 };
        tasks.spawn(life.live(is_paused, asked, events));
        Self { session, paused, next }
    }

    /// Ann's session, while she is logged in.
    pub(super) fn session(&self) -> watch::Receiver<Option<SessionId>> {
        self.session.clone()
    }

    /// Lets her take her next step now.
    pub(super) fn go_on(&self) {
        // Full: she has a message already.
        let _ = self.next.try_send(());
    }

    /// Pauses her, or ends her pause. Returns whether she pauses now.
    pub(super) fn pause(&self) -> bool {
        self.paused.send_modify(|paused| *paused = !*paused);
        *self.paused.borrow()
    }
}

impl Life {
    async fn live(
        mut self,
        paused: watch::Receiver<bool>,
        mut asked: mpsc::Receiver<()>,
        events: mpsc::Sender<Event>,
    ) {
        let mut step = tokio::time::interval(STEP_EVERY);
        loop {
            tokio::select! {
                _ = step.tick() => if *paused.borrow() { continue },
                asked = asked.recv() => if asked.is_none() { return },
            }
            let node = self.nodes[self.turn % self.nodes.len()].clone();
            self.turn += 1;
            let what =
                self.step(&node).await.unwrap_or_else(|failure| format!("Ann's request fails: {failure}"));
            if events.send(Event { who: node.name, what }).await.is_err() {
                return;
            }
        }
    }

    async fn step(&mut self, node: &Node) -> Result<String, Failure> {
        let known = *self.session.borrow();
        let Some(id) = known else { return self.log_in(node).await };
        if self.themes_left == 0 {
            node.sessions.delete(id).await?;
            self.session.send_replace(None);
            return Ok("Ann logs out".to_owned());
        }
        self.themes_left -= 1;
        let theme = THEMES[self.themes_left];
        match change_theme(node, id, theme).await {
            Ok(true) => Ok(format!("Ann changes her theme to {theme}")),
            // It was deleted in psql.
            Ok(false) => {
                self.session.send_replace(None);
                Ok("Ann finds herself logged out".to_owned())
            }
            Err(failure) => Err(failure),
        }
    }

    async fn log_in(&mut self, node: &Node) -> Result<String, Failure> {
        let session = node.sessions.create(UserId::named("ann")).set("theme", "plain").await?;
        self.session.send_replace(Some(session.id()));
        self.themes_left = THEMES.len();
        Ok("Ann logs in".to_owned())
    }
}

/// Returns whether the session was still there.
async fn change_theme(node: &Node, id: SessionId, theme: &str) -> Result<bool, Failure> {
    let Some(mut session) = node.sessions.get(id).await? else { return Ok(false) };
    session.set("theme", theme)?;
    match node.sessions.save(&mut session).await {
        Ok(()) => Ok(true),
        Err(UpdateError::NotFound) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
