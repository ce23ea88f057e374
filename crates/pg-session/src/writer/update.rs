//! Combined updates: from jobs to one statement, and from its rows to new records.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::Workshop;
use super::lane::Job;
use crate::cache::Writing;
use crate::error::{Error, ErrorKind, UpdateError};
use crate::id::SessionId;
use crate::postgres::failure::Failure;
use crate::postgres::update::{Applied, Order, RowChange, Updated};
use crate::probes::Point;
use crate::session::changes::{Changes, Check};
use crate::session::record::{Record, Row};

/// Times that one update may be overtaken between snapshot and lock. Each time, somebody else's update of the same
/// session went through.
pub(super) const OVERTAKEN_MAX: u32 = 100;

/// One session's changes, on their way.
pub(crate) struct UpdateJob {
    pub(crate) base: Arc<Record>,
    pub(crate) check: Check,
    pub(crate) row: RowChange,
    pub(crate) changes: Changes,
    pub(crate) notify: bool,
    pub(crate) overtaken: u32,
    pub(crate) reply: oneshot::Sender<Result<Arc<Record>, UpdateError>>,
}

impl UpdateJob {
    pub(super) fn session(&self) -> SessionId {
        self.base.row.id
    }

    fn order(&self) -> Order<'_> {
        Order {
            base: &self.base,
            check: self.check,
            row: self.row,
            changes: &self.changes,
            notify: self.notify,
        }
    }

    /// Nobody waits any more if the future was dropped; the commit stands.
    fn answer(self, outcome: Result<Arc<Record>, UpdateError>) {
        let _ = self.reply.send(outcome);
    }
}

impl Job for UpdateJob {
    type Key = SessionId;

    fn key(&self) -> SessionId {
        self.session()
    }

    async fn commit(batch: &mut Vec<Self>, workshop: &Workshop) -> Result<Vec<Self>, Failure> {
        // Before the statement leaves: an update of another node that is heard meanwhile must win.
        let _writing: Vec<Writing<'_>> =
            batch.iter().map(|job| workshop.cache.begin_write(job.session())).collect();
        let ticket = workshop.cache.ticket();
        let orders: Vec<Order<'_>> = batch.iter().map(Self::order).collect();
        // Nearly every caller saw the newest version; the others come again, and are told why it was not.
        let outcomes = if batch.iter().all(|job| job.overtaken == 0) {
            workshop.database.update_newest(&orders).await?
        } else {
            workshop.database.update(&orders).await?
        };
        workshop.counters.update_statements.fetch_add(1, Ordering::Relaxed);
        workshop.probes.reach(Point::Committed).await;
        let mut again = Vec::new();
        for (mut job, outcome) in batch.drain(..).zip(outcomes) {
            match outcome {
                Updated::Applied(applied) => {
                    workshop.counters.updates.fetch_add(1, Ordering::Relaxed);
                    let record = Arc::new(successor(&job, applied));
                    workshop.cache.publish(ticket, &record);
                    job.answer(Ok(record));
                }
                Updated::Conflict { found, keys } => {
                    // The caller will load again: not the version that has just lost.
                    workshop.cache.invalidate(job.session(), found);
                    job.answer(Err(UpdateError::Conflict { keys }));
                }
                Updated::NotFound => {
                    workshop.cache.forget(job.session());
                    job.answer(Err(UpdateError::NotFound));
                }
                Updated::Rotated { found } => {
                    // Whoever asks again is to see that the session has gone on.
                    workshop.cache.invalidate(job.session(), found);
                    job.answer(Err(UpdateError::Rotated));
                }
                Updated::Moved if job.overtaken < OVERTAKEN_MAX => {
                    job.overtaken += 1;
                    again.push(job);
                }
                Updated::Moved => job.answer(Err(UpdateError::Failed(Error::new(
                    ErrorKind::Contention,
                    "other nodes kept updating the session, and this update was not made; try again later",
                )))),
            }
        }
        Ok(again)
    }

    fn fail(self, error: Error, workshop: &Workshop) {
        if error.kind() == ErrorKind::OutcomeUnknown {
            // It may have been committed: what is in memory may be outdated.
            workshop.cache.forget(self.session());
        }
        self.answer(Err(error.into()));
    }
}

/// What the database holds after the update.
///
/// I6: if somebody else's update came between, the caller's attributes are not what the changes were applied to;
/// then the statement has returned those that were.
fn successor(job: &UpdateJob, applied: Applied) -> Record {
    let Applied { version, updated_at, expires_at, last_accessed_at, idle_limit, group_id, found } = applied;
    let base = &job.base;
    assert!(
        found.is_some() || version.follows(base.row.version),
        "attributes of another version were not returned"
    );
    let attributes = found.as_ref().unwrap_or(&base.attributes).apply(&job.changes, version);
    let row = Row { version, updated_at, expires_at, idle_limit, group_id, ..base.row };
    let record = Record::new(Arc::clone(&base.rules), row, attributes, last_accessed_at);
    record.access.inherit(&base.access);
    record
}
