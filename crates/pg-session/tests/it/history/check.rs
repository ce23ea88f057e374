//! What each answer must and must not show.

use std::collections::HashMap;
use std::time::Duration;

use pg_session::{Session, SessionId};
use tokio::time::Instant;

use super::ELSEWHERE;
use super::journal::{Acknowledgement, Journal, Story};
use crate::support::World;

/// Gone: later than any version.
const GONE: i64 = i64::MAX;

/// One task that reads on one node, one read after the other.
pub struct Reader {
    node: usize,
    trust_window: Duration,
    seen: HashMap<SessionId, i64>,
}

impl Reader {
    pub fn of(node: usize, trust_window: Duration) -> Self {
        Self { node, trust_window, seen: HashMap::new() }
    }

    /// Checks what a read that started at `started` has `found`.
    pub fn check(&mut self, story: &Story, started: Instant, found: Option<&Session>) {
        let version = found.map_or(GONE, |session| session.version().get());
        self.moves_forward(story, version);
        // A delete may be visible before it is acknowledged; no other client ends sessions here.
        let Some(session) = found else { return };
        belongs_together(session);
        let due = |acknowledged: &Acknowledgement| self.is_due(acknowledged, started);
        let least = story.newest(due);
        assert!(version >= least, "I3: read {version}, although {least} had been acknowledged");
        let deletion = story.deletion().filter(due);
        assert!(deletion.is_none(), "I4: a deleted session was read on node {}", self.node);
    }

    /// Notes an acknowledged update through this task's node, and checks what it handed back.
    pub fn acknowledged(&mut self, story: &Story, node: usize, session: &Session) {
        let version = session.version().get();
        story.updated(node, version);
        belongs_together(session);
        self.moves_forward(story, version);
    }

    fn moves_forward(&mut self, story: &Story, version: i64) {
        let before = self.seen.insert(story.id, version).unwrap_or(0);
        assert!(version >= before, "I2: node {} went back from {before} to {version}", self.node);
    }

    fn is_due(&self, acknowledged: &Acknowledgement, started: Instant) -> bool {
        let grace = if acknowledged.node == self.node { Duration::ZERO } else { self.trust_window };
        acknowledged.at + grace < started
    }
}

/// I6, from the two ways in which these tests write.
fn belongs_together(session: &Session) {
    let number = |key| session.get::<i64>(key).expect("a number").expect("each session has it");
    let written = |key| session.attribute_version(key).map(|version| version.get());
    assert_eq!(number("v"), number("w"), "I6: written together");
    assert_eq!((Some(number("v")), written("v")), (written("v"), written("w")), "I6: with that version");
    let newest = session.keys().iter().filter_map(|key| written(key)).max();
    assert_eq!(newest, Some(session.version().get()), "I6: the newest attribute is the session's version");
}

/// I5: after the end, from the tables.
pub async fn table(world: &World, journal: &Journal) {
    let client = world.client().await;
    let (mut deleted, mut updated, mut in_sql) = (0, 0, 0);
    for story in journal.all() {
        let id = story.id.expose();
        let row =
            client.query_opt("SELECT version FROM sessions WHERE id = $1", &[&id]).await.expect("it answers");
        let updates = story.updates();
        let contiguous = updates.iter().zip(2..).all(|(&update, expected)| update == expected);
        assert!(contiguous, "I5: all outcomes are known, so no version is missing: {updates:?}");
        match row {
            Some(row) => {
                assert!(story.deletion().is_none(), "I4: it was deleted");
                assert_eq!(row.get::<_, i64>(0), updates.last().copied().unwrap_or(1), "I5");
            }
            None => assert!(story.deletion().is_some(), "no client deleted it"),
        }
        deleted += usize::from(story.deletion().is_some());
        updated += updates.len();
        in_sql += story.updates_by(ELSEWHERE);
    }
    println!("{updated} updates, of which {in_sql} in SQL, and {deleted} deletes were acknowledged");
    assert!(
        updated - in_sql > 5 && in_sql > 5 && deleted > 0,
        "a history in which little happens proves little"
    );
}
