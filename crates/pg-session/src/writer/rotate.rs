//! Combined rotations: logins, mostly.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::count_evicted;
use super::create::refused;
use super::in_flight::Keys;
use super::queue::Job;
use super::update::{REBASE_ATTEMPTS_MAX, overtaken_too_often, reread};
use crate::cache::Writing;
use crate::core::Core;
use crate::error::{Error, ErrorKind, UpdateError};
use crate::failpoints::Point;
use crate::id::{SessionId, UserId};
use crate::postgres::failure::Failure;
use crate::postgres::rotate::{Rotated, Rotation, Successor};
use crate::postgres::update::RowChange;
use crate::session::attributes::{Attributes, Writes};
use crate::session::changes::{Changes, Keep};
use crate::session::record::{Record, SharedRecord};

/// One session that is to go on under another id.
pub(crate) struct RotateJob {
    /// What the caller saw; once it was overtaken, what the database held afterwards.
    pub(crate) base: SharedRecord,
    pub(crate) successor: SessionId,
    pub(crate) user_id: Option<UserId>,
    pub(crate) changes_user: bool,
    pub(crate) row: RowChange,
    pub(crate) grace: Duration,
    pub(crate) keep: Keep,
    pub(crate) changes: Changes,
    /// The user if the number of sessions is limited.
    pub(crate) conflict_key: Option<Uuid>,
    pub(crate) conflicts: u32,
    pub(crate) reply: oneshot::Sender<Result<SharedRecord, UpdateError>>,
}

impl RotateJob {
    fn session(&self) -> SessionId {
        self.base.row.id
    }

    /// What the session has under its new id.
    fn outcome(&self) -> Attributes {
        let version = self.base.row.version.next();
        let now = self.base.policy.clock.database_now();
        self.base.attributes.carry(&self.keep, version, now).apply(&self.changes, version, now)
    }

    fn turn<'a>(&self, none: &'a Attributes, attributes: &'a Attributes) -> Rotation<'a> {
        let base = self.base.row.revision();
        Rotation {
            id: self.session(),
            base,
            successor: self.successor,
            user_id: self.user_id,
            changes_user: self.changes_user,
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
        self.conflict_key
    }

    async fn commit(batch: &mut Vec<Self>, core: &Core) -> Result<Vec<Self>, Failure> {
        let _writing: Vec<Writing<'_>> =
            batch.iter().map(|job| core.cache.begin_write(job.successor)).collect();
        if batch.iter().any(|job| job.conflicts > 0) {
            rebase(batch, core).await?;
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let ticket = core.cache.ticket();
        let none = Attributes::default();
        let made: Vec<Attributes> = batch.iter().map(Self::outcome).collect();
        let turns = batch.iter().zip(&made).map(|(job, attributes)| job.turn(&none, attributes));
        let outcomes = core.database.rotate(&turns.collect::<Vec<_>>(), core.limits_sessions()).await?;
        core.counters.rotation_statements.add(1);
        core.failpoints.reach(Point::Rotated).await;
        let mut again = Vec::new();
        for ((mut job, attributes), outcome) in batch.drain(..).zip(made).zip(outcomes) {
            let answer = match outcome {
                Rotated::Done(successor) => {
                    core.counters.rotations.add(1);
                    let Successor { row, last_accessed_at, remnants, evicted } = *successor;
                    // Before the answer: a caller that knows of the rotation reads no older state of an old id here.
                    for (id, version) in remnants {
                        core.cache.invalidate(id, version);
                    }
                    count_evicted(core, row.user_id, &evicted);
                    let record = Record::new(Arc::clone(&core.policy), row, attributes, last_accessed_at);
                    let record = SharedRecord::new(record);
                    core.cache.publish(ticket, &record);
                    Ok(record)
                }
                Rotated::NotFound => {
                    core.cache.remove(job.session());
                    Err(UpdateError::NotFound)
                }
                Rotated::AlreadyDone { found } => {
                    core.cache.invalidate(job.session(), found);
                    Err(UpdateError::Rotated)
                }
                Rotated::Refused => Err(refused().into()),
                Rotated::VersionConflict if job.conflicts < REBASE_ATTEMPTS_MAX => {
                    job.conflicts += 1;
                    again.push(job);
                    continue;
                }
                Rotated::VersionConflict => Err(UpdateError::Failed(overtaken_too_often())),
            };
            job.answer(answer);
        }
        Ok(again)
    }

    async fn find_locked(batch: &[Self], core: &Core) -> Result<Keys<Self>, Failure> {
        let ids: Vec<SessionId> = batch.iter().map(Self::session).collect();
        let locked = core.database.locked_sessions(&ids).await?;
        Ok(locked.iter().map(|id| id.expose()).collect())
    }

    fn fail(self, error: Error, core: &Core) {
        if error.kind() == ErrorKind::OutcomeUnknown {
            // It may have been committed: what is in memory may be outdated.
            core.cache.remove(self.session());
        }
        self.answer(Err(error.into()));
    }
}

/// Reads the sessions of those jobs that were overtaken: they are rotated as they are now. Those that have ended are
/// answered, and leave the batch.
async fn rebase(batch: &mut Vec<RotateJob>, core: &Core) -> Result<(), Failure> {
    let conflicts = batch.iter().filter(|job| job.conflicts > 0).map(RotateJob::session);
    let mut found = reread(conflicts, core).await?;
    for mut job in std::mem::take(batch) {
        if job.conflicts > 0 {
            match found.take(job.session(), core) {
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
