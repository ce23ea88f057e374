//! What each node receives and shows, and the words for what has changed since the last look.

use std::time::Duration;

use pg_session::{ErrorKind, SessionId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Ann;
use crate::demo::cluster::{Cluster, Node};
use crate::demo::print::counted;

/// How often each node is asked for Ann's session: mostly from memory, so this costs nothing.
const READ_EVERY: Duration = Duration::from_millis(20);

/// One node at one moment.
#[derive(Clone, PartialEq, Debug)]
struct View {
    trusted: bool,
    /// Invalidations that it has handled since its start, its own included (which it handles twice: at once, and when
    /// it learns of them like any other reader).
    invalidations: u64,
    shown: Shown,
}

/// Ann's session, as a node shows it.
#[derive(Clone, PartialEq, Debug)]
enum Shown {
    Nothing,
    Session { version: i64, theme: String },
    Error(ErrorKind),
}

/// The nodes, and how they looked the last time.
pub(super) struct Views(Vec<(&'static str, watch::Receiver<View>, View)>);

impl Views {
    /// Starts looking at every node.
    pub(super) fn start(cluster: &Cluster, ann: &Ann, tasks: &mut JoinSet<()>) -> Self {
        let views = cluster.nodes().map(|node| {
            let first = View {
                trusted: node.is_trusted(),
                invalidations: node.sessions.status().cache.invalidations,
                shown: Shown::Nothing,
            };
            let (seen, view) = watch::channel(first.clone());
            tasks.spawn(look(node.clone(), ann.session(), seen));
            (node.name, view, first)
        });
        Self(views.into())
    }

    /// What has changed since the last call: the names of nodes, and what they have in common.
    pub(super) fn changes(&mut self) -> Vec<(String, String)> {
        let mut changes: Vec<(String, String)> = Vec::new();
        for (name, view, last) in &mut self.0 {
            let now = view.borrow_and_update().clone();
            let Some(what) = now.since(last) else { continue };
            *last = now;
            match changes.iter_mut().find(|(_, other)| *other == what) {
                Some((names, _)) => names.push_str(name),
                None => changes.push(((*name).to_owned(), what)),
            }
        }
        changes
    }
}

/// Looks at one node until the view is dropped.
async fn look(node: Node, session: watch::Receiver<Option<SessionId>>, seen: watch::Sender<View>) {
    let mut read = tokio::time::interval(READ_EVERY);
    while !seen.is_closed() {
        read.tick().await;
        let id = *session.borrow();
        let shown = match id {
            Some(id) => show(&node, id).await,
            None => Shown::Nothing,
        };
        let invalidations = node.sessions.status().cache.invalidations;
        seen.send_replace(View { trusted: node.is_trusted(), invalidations, shown });
    }
}

async fn show(node: &Node, id: SessionId) -> Shown {
    // Not a user's request: it must not keep the session alive.
    match node.sessions.get(id).no_touch().await {
        Ok(None) => Shown::Nothing,
        Ok(Some(session)) => match session.get::<String>("theme") {
            Ok(theme) => Shown::Session {
                version: session.version().get(),
                theme: theme.unwrap_or_else(|| "none".to_owned()),
            },
            Err(error) => Shown::Error(error.kind()),
        },
        Err(error) => Shown::Error(error.kind()),
    }
}

impl View {
    /// In words, what is different from `last`; `None` if nothing is.
    fn since(&self, last: &View) -> Option<String> {
        let mut words = Vec::new();
        if self.invalidations > last.invalidations {
            words.push(counted(self.invalidations - last.invalidations, "invalidation"));
        }
        match (last.trusted, self.trusted) {
            (true, false) => words.push("has no listener, reads from PostgreSQL".to_owned()),
            (false, true) => words.push("is in sync, reads from memory".to_owned()),
            _ => {}
        }
        if self.shown != last.shown {
            words.push(match &self.shown {
                Shown::Nothing => "shows no session".to_owned(),
                Shown::Session { version, theme } => format!("shows {theme}, version {version}"),
                Shown::Error(kind) => format!("answers with an error: {kind:?}"),
            });
        }
        (!words.is_empty()).then(|| words.join(" · "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(trusted: bool, invalidations: u64, shown: Shown) -> View {
        View { trusted, invalidations, shown }
    }

    fn themed(version: i64, theme: &str) -> Shown {
        Shown::Session { version, theme: theme.to_owned() }
    }

    #[test]
    fn only_what_changed_is_said() {
        let last = view(true, 3, themed(1, "plain"));
        assert_eq!(last.since(&last), None);
        let invalidations = view(true, 4, themed(2, "teal")).since(&last);
        assert_eq!(invalidations.as_deref(), Some("1 invalidation · shows teal, version 2"));
        let untrusted = view(false, 3, Shown::Error(ErrorKind::Unavailable)).since(&last);
        assert_eq!(
            untrusted.as_deref(),
            Some("has no listener, reads from PostgreSQL · answers with an error: Unavailable")
        );
        let gone = view(true, 3, Shown::Nothing).since(&view(false, 3, themed(1, "plain")));
        assert_eq!(gone.as_deref(), Some("is in sync, reads from memory · shows no session"));
    }

    #[test]
    fn nodes_that_changed_alike_share_a_line() {
        let first = view(true, 0, Shown::Nothing);
        let (seen, mut views): (Vec<_>, Vec<_>) = ["A", "B", "C"]
            .into_iter()
            .map(|name| {
                let (seen, view) = watch::channel(first.clone());
                (seen, (name, view, first.clone()))
            })
            .unzip();
        seen[0].send_replace(view(true, 1, themed(2, "teal")));
        seen[1].send_replace(view(false, 0, Shown::Nothing));
        seen[2].send_replace(view(true, 1, themed(2, "teal")));
        let mut views = Views(std::mem::take(&mut views));
        let said = views.changes();
        let who: Vec<&str> = said.iter().map(|(who, _)| who.as_str()).collect();
        assert_eq!(who, ["AC", "B"]);
        assert_eq!(views.changes(), []);
    }
}
