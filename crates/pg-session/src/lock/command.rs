//! What a guard asks of its keeper.

use std::time::Duration;

use tokio::sync::oneshot;

use super::error::LockError;

/// What a guard asks of its keeper.
#[derive(Debug)]
pub(super) enum LeaseCommand {
    Extend(Duration, oneshot::Sender<Result<(), LockError>>),
    Release(oneshot::Sender<Result<(), LockError>>),
}
