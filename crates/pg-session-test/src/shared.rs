//! What a test's database, nodes and browsers share.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pg_session::{SessionManager, Signer};

use crate::server::drop_database;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) signer: Signer,
    /// What the test has let pass, in microseconds.
    pub(crate) passed: Arc<AtomicU64>,
    nodes: Mutex<BTreeMap<u64, SessionManager>>,
    next_node: AtomicU64,
}

impl Shared {
    pub(crate) fn new(name: String, url: String, signer: Signer) -> Self {
        let (nodes, next_node) = (Mutex::default(), AtomicU64::new(0));
        Self { name, url, signer, passed: Arc::default(), nodes, next_node }
    }

    pub(crate) fn add(&self, node: SessionManager) -> u64 {
        let number = self.next_node.fetch_add(1, Relaxed);
        self.lock().insert(number, node);
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        self.lock().remove(&number);
    }

    pub(crate) fn nodes(&self) -> Vec<SessionManager> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, SessionManager>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop_database(std::mem::take(&mut self.name));
    }
}
