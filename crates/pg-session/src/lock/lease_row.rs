//! What the statements of one lease need.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::core::Core;
use crate::lock_key::LockKey;

/// One acquisition's claim on a row.
pub(super) struct LeaseRow {
    pub(super) core: Arc<Core>,
    pub(super) stop: CancellationToken,
    pub(super) key: LockKey,
    pub(super) owner: Uuid,
    /// Of the node; see [`blocked`](super::blocked).
    pub(super) retries: Arc<Semaphore>,
}
