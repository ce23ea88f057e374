//! Combined updates: from jobs to one statement, and from its rows to new records.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::Workshop;
use super::lane::Job;
use super::under_way::Keys;
use crate::cache::Writing;
use crate::error::{Error, ErrorKind, UpdateError};
use crate::id::SessionId;
use crate::postgres::failure::Failure;
use crate::postgres::update::{Applied, Order, RowChange};
use crate::probes::Point;
use crate::session::attributes::{Attributes, Writes};
use crate::session::changes::{Changes, Check};
use crate::session::record::{Record, Row, SharedRecord};

/// Times that one update may be overtaken between what it was made from and the lock. Each time, somebody else's update
/// of the same session went through.
pub(super) const OVERTAKEN_MAX: u32 = 100;

/// One session's changes, on their way.
pub(crate) struct UpdateJob {
    /// What the caller saw; once it was overtaken, what the database held afterwards, as far as the check lets it pass.
    pub(crate) base: SharedRecord,
    pub(crate) check: Check,
    pub(crate) row: RowChange,
    pub(crate) changes: Changes,
    pub(crate) notify: bool,
    pub(crate) overtaken: u32,
    pub(crate) reply: oneshot::Sender<Result<SharedRecord, UpdateError>>,
}

impl UpdateJob {
    pub(super) fn session(&self) -> SessionId {
        self.base.row.id
    }

    /// What the session has once the update is applied on top of `base`.
    fn outcome(&self) -> Attributes {
        let now = self.base.rules.clock.database_now();
        self.base.attributes.apply(&self.changes, self.base.row.version.next(), now)
    }

    fn order<'a>(&self, before: &'a Attributes, after: &'a Attributes) -> Order<'a> {
        let base = self.base.row.revision();
        Order {
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
                let now = found.rules.clock.database_now();
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

    async fn commit(batch: &mut Vec<Self>, workshop: &Workshop) -> Result<Vec<Self>, Failure> {
        // Before the statement leaves: an update of another node that is heard meanwhile must win.
        let _writing: Vec<Writing<'_>> =
            batch.iter().map(|job| workshop.cache.begin_write(job.session())).collect();
        // Nearly every caller saw the newest version.
        if batch.iter().any(|job| job.overtaken > 0) {
            catch_up(batch, workshop).await?;
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let ticket = workshop.cache.ticket();
        let after: Vec<Attributes> = batch.iter().map(Self::outcome).collect();
        let orders = batch.iter().zip(&after).map(|(job, after)| job.order(&job.base.attributes, after));
        let outcomes = workshop.database.update(&orders.collect::<Vec<_>>()).await?;
        workshop.counters.update_statements.fetch_add(1, Ordering::Relaxed);
        workshop.probes.reach(Point::Committed).await;
        let mut again = Vec::new();
        for ((mut job, attributes), outcome) in batch.drain(..).zip(after).zip(outcomes) {
            match outcome {
                Some(applied) => {
                    workshop.counters.updates.fetch_add(1, Ordering::Relaxed);
                    let record = SharedRecord::new(successor(&job, attributes, applied));
                    workshop.cache.publish(ticket, &record);
                    job.answer(Ok(record));
                }
                None if job.overtaken < OVERTAKEN_MAX => {
                    job.overtaken += 1;
                    again.push(job);
                }
                None => job.answer(Err(UpdateError::Failed(overtaken_too_often()))),
            }
        }
        Ok(again)
    }

    async fn find_locked(batch: &[Self], workshop: &Workshop) -> Result<Keys<Self>, Failure> {
        let ids: Vec<SessionId> = batch.iter().map(Self::session).collect();
        Ok(workshop.database.locked_rows(&ids).await?.into_iter().collect())
    }

    fn fail(self, error: Error, workshop: &Workshop) {
        if error.kind() == ErrorKind::OutcomeUnknown {
            // It may have been committed: what is in memory may be outdated.
            workshop.cache.forget(self.session());
        }
        self.answer(Err(error.into()));
    }
}

/// Reads the sessions of those jobs that were overtaken. What can still be applied goes on top of what was read; the
/// others are answered, and leave the batch.
async fn catch_up(batch: &mut Vec<UpdateJob>, workshop: &Workshop) -> Result<(), Failure> {
    let mut found =
        reread(batch.iter().filter(|job| job.overtaken > 0).map(UpdateJob::session), workshop).await?;
    let mut told = Vec::new();
    for job in batch.iter().filter(|job| job.overtaken > 0 && job.notify) {
        if let Some(record) = found.get(job.session())
            && job.conflict(record).is_some()
        {
            told.push((job.session(), record.row.version));
        }
    }
    if workshop.tells_conflicts && !told.is_empty() {
        workshop.database.notify_changed(&told).await.map_err(Failure::before_write)?;
    }
    for mut job in std::mem::take(batch) {
        if job.overtaken == 0 {
            batch.push(job);
            continue;
        }
        let record = match found.take(job.session(), workshop) {
            Ok(record) => record,
            Err(error) => {
                job.answer(Err(error));
                continue;
            }
        };
        let version = record.row.version;
        if record.row.rotated {
            // Whoever asks again is to see that the session has gone on.
            workshop.cache.invalidate(job.session(), version);
            job.answer(Err(UpdateError::Rotated));
        } else if let Some(keys) = job.conflict(&record) {
            // The caller will load again: not the version that has just lost.
            workshop.cache.invalidate(job.session(), version);
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
pub(super) struct Reread(HashMap<SessionId, Result<Record, Error>>);

impl Reread {
    fn get(&self, id: SessionId) -> Option<&Record> {
        self.0.get(&id)?.as_ref().ok()
    }

    /// The session, or what its write is to be answered.
    pub(super) fn take(&mut self, id: SessionId, workshop: &Workshop) -> Result<Record, UpdateError> {
        match self.0.remove(&id) {
            Some(found) => Ok(found?),
            None => {
                workshop.cache.forget(id);
                Err(UpdateError::NotFound)
            }
        }
    }
}

pub(super) async fn reread(
    ids: impl Iterator<Item = SessionId>,
    workshop: &Workshop,
) -> Result<Reread, Failure> {
    let ids: Vec<SessionId> = ids.collect();
    let found = workshop.database.load(&ids).await.map_err(Failure::before_write)?;
    Ok(Reread(found.into_iter().collect()))
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
    let record = Record::new(Arc::clone(&base.rules), row, attributes, last_accessed_at);
    record.access.inherit(&base.access);
    record
}
