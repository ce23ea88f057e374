//! What was acknowledged, when, and by which node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pg_session::{Session, SessionId};
use tokio::time::Instant;

/// The stories of all sessions, those that live and those that have ended.
pub struct Journal {
    living: Mutex<Vec<Option<Arc<Story>>>>,
    ended: Mutex<Vec<Arc<Story>>>,
}

/// One session, from its creation on.
pub struct Story {
    pub id: SessionId,
    acknowledged: Mutex<Acknowledged>,
}

#[derive(Default)]
struct Acknowledged {
    /// By version.
    updates: BTreeMap<i64, Acknowledgement>,
    deleted: Option<Acknowledgement>,
}

/// Read after the acknowledgement: so what came back before `at` was certainly acknowledged before `at`.
#[derive(Clone, Copy)]
pub struct Acknowledgement {
    pub at: Instant,
    pub node: usize,
}

impl Journal {
    pub fn new(slots: usize) -> Self {
        Self { living: Mutex::new(vec![None; slots]), ended: Mutex::default() }
    }

    /// A new session takes the slot.
    pub fn begin(&self, slot: usize, story: Arc<Story>) {
        if let Some(ended) = lock(&self.living)[slot].replace(story) {
            lock(&self.ended).push(ended);
        }
    }

    /// The session in the slot, or, if there is one, the one that ended last.
    pub fn pick(&self, slot: usize, ended: bool) -> Arc<Story> {
        if ended && let Some(story) = lock(&self.ended).last() {
            return Arc::clone(story);
        }
        Arc::clone(lock(&self.living)[slot].as_ref().expect("each slot has begun"))
    }

    pub fn all(&self) -> Vec<Arc<Story>> {
        let living = lock(&self.living);
        living.iter().flatten().chain(lock(&self.ended).iter()).map(Arc::clone).collect()
    }
}

impl Story {
    pub fn of(session: &Session) -> Arc<Self> {
        Arc::new(Self { id: session.id(), acknowledged: Mutex::default() })
    }

    pub fn updated(&self, node: usize, version: i64) {
        let before =
            lock(&self.acknowledged).updates.insert(version, Acknowledgement { at: Instant::now(), node });
        assert!(before.is_none(), "I5: version {version} was acknowledged to two callers");
    }

    pub fn deleted(&self, node: usize) {
        let before = lock(&self.acknowledged).deleted.replace(Acknowledgement { at: Instant::now(), node });
        assert!(before.is_none(), "I4: a session was deleted twice");
    }

    pub fn deletion(&self) -> Option<Acknowledgement> {
        lock(&self.acknowledged).deleted
    }

    pub fn updates(&self) -> Vec<i64> {
        lock(&self.acknowledged).updates.keys().copied().collect()
    }

    /// How many updates a node has made.
    pub fn updates_by(&self, node: usize) -> usize {
        lock(&self.acknowledged).updates.values().filter(|update| update.node == node).count()
    }

    /// The newest version whose acknowledgement is `due`; 1 if there is none.
    pub fn newest(&self, due: impl Fn(&Acknowledgement) -> bool) -> i64 {
        let acknowledged = lock(&self.acknowledged);
        acknowledged
            .updates
            .iter()
            .rev()
            .find(|(_, acknowledged)| due(acknowledged))
            .map_or(1, |(&version, _)| version)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A task that found a broken promise has panicked; the others may go on to their ends.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
