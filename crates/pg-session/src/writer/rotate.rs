//! Combined rotations: logins, mostly.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::Workshop;
use super::create::refused;
use super::lane::Job;
use super::under_way::Keys;
use super::update::{OVERTAKEN_MAX, overtaken_too_often, reread};
use crate::cache::Writing;
use crate::error::{Error, ErrorKind, UpdateError};
use crate::id::{SessionId, UserId};
use crate::postgres::failure::Failure;
use crate::postgres::rotate::{Rotated, Successor, Turn};
use crate::postgres::update::RowChange;
use crate::probes::Point;
use crate::session::attributes::{Attributes, Writes};
use crate::session::changes::{Changes, Keep};
use crate::session::record::{Record, SharedRecord};

/// One session that is to go on under another id.
pub(crate) struct RotateJob {
    /// What the caller saw; once it was overtaken, what the database held afterwards.
    pub(crate) base: SharedRecord,
    pub(crate) successor: SessionId,
    pub(crate) user_id: Option<UserId>,
    pub(crate) arrives: bool,
    pub(crate) row: RowChange,
    pub(crate) grace: Duration,
    pub(crate) keep: Keep,
    pub(crate) changes: Changes,
    /// The user if the number of sessions is limited.
    pub(crate) exclusive: Option<Uuid>,
    pub(crate) overtaken: u32,
    pub(crate) reply: oneshot::Sender<Result<SharedRecord, UpdateError>>,
}

impl RotateJob {
    fn session(&self) -> SessionId {
        self.base.row.id
    }

    /// What the session has under its new id.
    fn outcome(&self) -> Attributes {
        let version = self.base.row.version.next();
        let now = self.base.rules.clock.database_now();
        self.base.attributes.carry(&self.keep, version, now).apply(&self.changes, version, now)
    }

    fn turn<'a>(&self, none: &'a Attributes, attributes: &'a Attributes) -> Turn<'a> {
        let base = self.base.row.revision();
        Turn {
            id: self.session(),
            base,
            successor: self.successor,
            user_id: self.user_id,
            arrives: self.arrives,
            row: self.row,
            grace: self.grace,
            writes: Writes::new(none, attributes),
        }
    }

    /// Nobody waits any more if the future was dropped; the commit stands.
    fn answer(self, outcome: Result<SharedRecord, UpdateError>) {
        let _ = self.reply.send(outcome);
    }
}

impl Job for RotateJob {
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.session().expose()
    }

    /// I7: as for creates, one for each user.
    fn second_key(&self) -> Option<Uuid> {
        self.exclusive
    }

    async fn commit(batch: &mut Vec<Self>, workshop: &Workshop) -> Result<Vec<Self>, Failure> {
        let _writing: Vec<Writing<'_>> =
            batch.iter().map(|job| workshop.cache.begin_write(job.successor)).collect();
        if batch.iter().any(|job| job.overtaken > 0) {
            catch_up(batch, workshop).await?;
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let ticket = workshop.cache.ticket();
        let none = Attributes::default();
        let made: Vec<Attributes> = batch.iter().map(Self::outcome).collect();
        let turns = batch.iter().zip(&made).map(|(job, attributes)| job.turn(&none, attributes));
        let outcomes = workshop.database.rotate(&turns.collect::<Vec<_>>(), workshop.limited).await?;
        workshop.counters.rotation_statements.fetch_add(1, Ordering::Relaxed);
        workshop.probes.reach(Point::Rotated).await;
        let mut again = Vec::new();
        for ((mut job, attributes), outcome) in batch.drain(..).zip(made).zip(outcomes) {
            let answer = match outcome {
                Rotated::Done(successor) => {
                    workshop.counters.rotations.fetch_add(1, Ordering::Relaxed);
                    let Successor { row, last_accessed_at, remnants, evicted } = *successor;
                    // Before the answer: whoever was told of the rotation reads no older state of an old id here.
                    for (id, version) in remnants {
                        workshop.cache.invalidate(id, version);
                    }
                    workshop.evicted(row.user_id, &evicted);
                    let record = Record::new(Arc::clone(&workshop.rules), row, attributes, last_accessed_at);
                    let record = SharedRecord::new(record);
                    workshop.cache.publish(ticket, &record);
                    Ok(record)
                }
                Rotated::NotFound => {
                    workshop.cache.forget(job.session());
                    Err(UpdateError::NotFound)
                }
                Rotated::Before { found } => {
                    workshop.cache.invalidate(job.session(), found);
                    Err(UpdateError::Rotated)
                }
                Rotated::Refused => Err(refused().into()),
                Rotated::Moved if job.overtaken < OVERTAKEN_MAX => {
                    job.overtaken += 1;
                    again.push(job);
                    continue;
                }
                Rotated::Moved => Err(UpdateError::Failed(overtaken_too_often())),
            };
            job.answer(answer);
        }
        Ok(again)
    }

    async fn find_locked(batch: &[Self], workshop: &Workshop) -> Result<Keys<Self>, Failure> {
        let ids: Vec<SessionId> = batch.iter().map(Self::session).collect();
        let locked = workshop.database.locked_sessions(&ids).await?;
        Ok(locked.iter().map(|id| id.expose()).collect())
    }

    fn fail(self, error: Error, workshop: &Workshop) {
        if error.kind() == ErrorKind::OutcomeUnknown {
            // It may have been committed: what is in memory may be outdated.
            workshop.cache.forget(self.session());
        }
        self.answer(Err(error.into()));
    }
}

/// Reads the sessions of those jobs that were overtaken: they are rotated as they are now. Those that have ended are
/// answered, and leave the batch.
async fn catch_up(batch: &mut Vec<RotateJob>, workshop: &Workshop) -> Result<(), Failure> {
    let overtaken = batch.iter().filter(|job| job.overtaken > 0).map(RotateJob::session);
    let mut found = reread(overtaken, workshop).await?;
    for mut job in std::mem::take(batch) {
        if job.overtaken > 0 {
            match found.take(job.session(), workshop) {
                Ok(record) => job.base = SharedRecord::new(record),
                Err(error) => {
                    job.answer(Err(error));
                    continue;
                }
            }
        }
        batch.push(job);
    }
    Ok(())
}
