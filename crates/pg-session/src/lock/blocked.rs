//! What a statement of a lock does while another transaction has locked a row that it needs.
//!
//! It waits for the row for `row_lock_wait`, then gives its connection back. One query at a time of this node asks which
//! rows are free; that statement is sent again. So locked rows take one connection of the pool, however many they are.

use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::sleep;

use super::lease_row::LeaseRow;
use crate::clock::Tick;
use crate::postgres::failure::Failure;
use crate::postgres::lock::Needs;
use crate::retry::LOCKED_ROW;

/// Statements of blocked locks that are repeated at once.
pub(super) const RETRIES_MAX: usize = 1;

/// The tries of one statement.
pub(super) struct BlockedStatement<'a> {
    row: &'a LeaseRow,
    needs: Needs,
    began: Tick,
    blocked_max: Duration,
    pause: Duration,
    /// Held while the statement is repeated.
    turn: Option<SemaphorePermit<'a>>,
}

impl<'a> BlockedStatement<'a> {
    pub(super) fn new(row: &'a LeaseRow, needs: Needs, blocked_max: Duration) -> Self {
        let began = row.core.policy.clock.now();
        Self { row, needs, began, blocked_max, pause: LOCKED_ROW.first, turn: None }
    }

    /// Waits until the rows look free, so that the statement can be repeated. An error if they are locked for
    /// `blocked_max`.
    pub(super) async fn until_free(&mut self) -> Result<(), Failure> {
        let LeaseRow { core, key, retries, .. } = self.row;
        self.turn = None;
        loop {
            let waited = core.policy.clock.now().since(self.began);
            if waited >= self.blocked_max {
                return Err(Failure::blocked(waited));
            }
            sleep(self.pause).await;
            self.pause = LOCKED_ROW.after(self.pause);
            // The semaphore is never closed.
            let turn = retries.acquire().await.ok();
            if !core.database.is_lock_blocked(key, self.needs).await? {
                self.turn = turn;
                return Ok(());
            }
        }
    }
}
