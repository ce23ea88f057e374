//! Combined updates: from jobs to one statement, and from its rows to new records.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::in_flight::Keys;
use super::queue::Job;
use crate::cache::Writing;
use crate::core::Core;
use crate::error::{Error, ErrorKind, UpdateError};
use crate::failpoints::Point;
use crate::id::SessionId;
use crate::postgres::failure::Failure;
use crate::postgres::update::{Applied, RowChange, UpdateRow};
use crate::session::attributes::{Attributes, Writes};
use crate::session::changes::{Changes, Check};
use crate::session::record::{Record, Row, SharedRecord};

/// Times that one update may be overtaken between what it was made from and the lock. Each time, another writer's update
/// of the same session went through.
pub(super) const REBASE_ATTEMPTS_MAX: u32 = 100;

/// One session's changes, on their way.
pub(crate) struct UpdateJob {
    /// What the caller saw; once it was overtaken, what the database held afterwards, as far as the check lets it pass.
    pub(crate) base: SharedRecord,
    pub(crate) check: Check,
    pub(crate) row: RowChange,
    pub(crate) changes: Changes,
    pub(crate) notify: bool,
    pub(crate) conflicts: u32,
    pub(crate) reply: oneshot::Sender<Result<SharedRecord, UpdateError>>,
}

impl UpdateJob {
    pub(super) fn session(&self) -> SessionId {
        self.base.row.id
    }

    /// What the session has once the update is applied on top of `base`.
    fn outcome(&self) -> Attributes {
        let now = self.base.policy.clock.database_now();
        self.base.attributes.apply(&self.changes, self.base.row.version.next(), now)
    }

    fn order<'a>(&self, before: &'a Attributes, after: &'a Attributes) -> UpdateRow<'a> {
        let base = self.base.row.revision();
        UpdateRow {
            id: self.session(),
            base,
            row: self.row,
            writes: Writes::new(before, after),
            notify: self.notify,
        }
    }

    /// What the check says to a session that is now `found`: the keys that differ; none if the version was checked.
    fn conflict(&self, found: &Record) -> Option<Vec<String>> {
        match self.check {
            Check::None => None,
            Check::Version => (found.row.revision() != self.base.row.revision()).then(Vec::new),
            Check::Attributes => {
                let now = found.policy.clock.database_now();
                let keys = found.attributes.differing(&self.base.attributes, &self.changes, now);
                (!keys.is_empty()).then_some(keys)
            }
        }
    }

    /// Nobody waits any more if the future was dropped; the commit stands.
    fn answer(self, outcome: Result<SharedRecord, UpdateError>) {
        let _ = self.reply.send(outcome);
    }
}

impl Job for UpdateJob {
    type Key = SessionId;

    fn key(&self) -> SessionId {
        self.session()
    }

    async fn commit(batch: &mut Vec<Self>, core: &Core) -> Result<Vec<Self>, Failure> {
        // Before the statement leaves: an update of another node that is heard meanwhile must win.
        let _writing: Vec<Writing<'_>> =
            batch.iter().map(|job| core.cache.begin_write(job.session())).collect();
        // Nearly every caller saw the newest version.
        if batch.iter().any(|job| job.conflicts > 0) {
            rebase(batch, core).await?;
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let ticket = core.cache.ticket();
        let after: Vec<Attributes> = batch.iter().map(Self::outcome).collect();
        let rows = batch.iter().zip(&after).map(|(job, after)| job.order(&job.base.attributes, after));
        let outcomes = core.database.update(&rows.collect::<Vec<_>>()).await?;
        core.counters.update_statements.add(1);
        core.failpoints.reach(Point::Committed).await;
        let mut again = Vec::new();
        for ((mut job, attributes), outcome) in batch.drain(..).zip(after).zip(outcomes) {
            match outcome {
                Some(applied) => {
                    core.counters.updates.add(1);
                    let record = SharedRecord::new(successor(&job, attributes, applied));
                    core.cache.publish(ticket, &record);
                    job.answer(Ok(record));
                }
                None if job.conflicts < REBASE_ATTEMPTS_MAX => {
                    job.conflicts += 1;
                    again.push(job);
                }
                None => job.answer(Err(UpdateError::Failed(overtaken_too_often()))),
            }
        }
        Ok(again)
    }

    async fn find_locked(batch: &[Self], core: &Core) -> Result<Keys<Self>, Failure> {
        let ids: Vec<SessionId> = batch.iter().map(Self::session).collect();
        Ok(core.database.locked_rows(&ids).await?.into_iter().collect())
    }

    fn fail(self, error: Error, core: &Core) {
        if error.kind() == ErrorKind::OutcomeUnknown {
            // It may have been committed: what is in memory may be outdated.
            core.cache.remove(self.session());
        }
        self.answer(Err(error.into()));
    }
}

/// Reads the sessions of those jobs that were overtaken. What can still be applied goes on top of what was read; the
/// others are answered, and leave the batch.
async fn rebase(batch: &mut Vec<UpdateJob>, core: &Core) -> Result<(), Failure> {
    let mut found =
        reread(batch.iter().filter(|job| job.conflicts > 0).map(UpdateJob::session), core).await?;
    let mut notified = Vec::new();
    for job in batch.iter().filter(|job| job.conflicts > 0 && job.notify) {
        if let Some(record) = found.get(job.session())
            && job.conflict(record).is_some()
        {
            notified.push((job.session(), record.row.version));
        }
    }
    if core.config.notify_conflicts && !notified.is_empty() {
        core.database.notify_changed(&notified).await.map_err(Failure::into_unsent_error)?;
    }
    for mut job in std::mem::take(batch) {
        if job.conflicts == 0 {
            batch.push(job);
            continue;
        }
        let record = match found.take(job.session(), core) {
            Ok(record) => record,
            Err(error) => {
                job.answer(Err(error));
                continue;
            }
        };
        let version = record.row.version;
        if record.row.rotated {
            // The next read has to see that the session was rotated.
            core.cache.invalidate(job.session(), version);
            job.answer(Err(UpdateError::Rotated));
        } else if let Some(keys) = job.conflict(&record) {
            // The caller will load again: not the version that has just lost.
            core.cache.invalidate(job.session(), version);
            job.answer(Err(UpdateError::Conflict { keys }));
        } else {
            record.access.inherit(&job.base.access);
            job.base = SharedRecord::new(record);
            batch.push(job);
        }
    }
    Ok(())
}

/// What the database holds of sessions whose writes were overtaken: those that are alive, or why they cannot be read.
pub(super) struct CurrentRecords(HashMap<SessionId, Result<Record, Error>>);

impl CurrentRecords {
    fn get(&self, id: SessionId) -> Option<&Record> {
        self.0.get(&id)?.as_ref().ok()
    }

    /// The session, or what its write is to be answered.
    pub(super) fn take(&mut self, id: SessionId, core: &Core) -> Result<Record, UpdateError> {
        match self.0.remove(&id) {
            Some(found) => Ok(found?),
            None => {
                core.cache.remove(id);
                Err(UpdateError::NotFound)
            }
        }
    }
}

pub(super) async fn reread(
    ids: impl Iterator<Item = SessionId>,
    core: &Core,
) -> Result<CurrentRecords, Failure> {
    let ids: Vec<SessionId> = ids.collect();
    let found = core.database.load(&ids).await.map_err(Failure::into_unsent_error)?;
    Ok(CurrentRecords(found.into_iter().collect()))
}

pub(super) fn overtaken_too_often() -> Error {
    Error::new(
        ErrorKind::Contention,
        "other nodes kept updating the session, and this update was not made; try again later",
    )
}

/// I6: the statement applied the update on top of `base` or not at all, so this is what the database holds.
fn successor(job: &UpdateJob, attributes: Attributes, applied: Applied) -> Record {
    let UpdateJob { base, row, .. } = job;
    let Applied { updated_at, expires_at, last_accessed_at } = applied;
    let row = Row {
        version: base.row.version.next(),
        updated_at,
        expires_at,
        idle_limit: row.idle_limit.unwrap_or(base.row.idle_limit),
        group_id: row.group_id.unwrap_or(base.row.group_id),
        ..base.row
    };
    let record = Record::new(Arc::clone(&base.policy), row, attributes, last_accessed_at);
    record.access.inherit(&base.access);
    record
}
