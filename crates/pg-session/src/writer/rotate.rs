//! Combined rotations: logins, mostly.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::Workshop;
use super::create::refused;
use super::lane::Job;
use crate::cache::Writing;
use crate::error::{Error, ErrorKind, UpdateError};
use crate::id::{SessionId, UserId};
use crate::postgres::failure::Failure;
use crate::postgres::rotate::{Rotated, Successor, Turn};
use crate::postgres::update::RowChange;
use crate::probes::Point;
use crate::session::changes::{Changes, Keep};
use crate::session::record::Record;

/// One session that is to go on under another id.
pub(crate) struct RotateJob {
    pub(crate) id: SessionId,
    pub(crate) successor: SessionId,
    pub(crate) user_id: Option<UserId>,
    pub(crate) arrives: bool,
    pub(crate) row: RowChange,
    pub(crate) grace: Duration,
    pub(crate) keep: Keep,
    pub(crate) changes: Changes,
    /// The user if the number of sessions is limited.
    pub(crate) exclusive: Option<Uuid>,
    pub(crate) reply: oneshot::Sender<Result<Arc<Record>, UpdateError>>,
}

impl RotateJob {
    fn turn(&self) -> Turn<'_> {
        Turn {
            id: self.id,
            successor: self.successor,
            user_id: self.user_id,
            arrives: self.arrives,
            row: self.row,
            grace: self.grace,
            keep: &self.keep,
            changes: &self.changes,
        }
    }

    /// Nobody waits any more if the future was dropped; the commit stands.
    fn answer(self, outcome: Result<Arc<Record>, UpdateError>) {
        let _ = self.reply.send(outcome);
    }
}

impl Job for RotateJob {
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.id.expose()
    }

    /// I7: as for creates, one for each user.
    fn second_key(&self) -> Option<Uuid> {
        self.exclusive
    }

    async fn commit(batch: &mut Vec<Self>, workshop: &Workshop) -> Result<Vec<Self>, Failure> {
        let _writing: Vec<Writing<'_>> =
            batch.iter().map(|job| workshop.cache.begin_write(job.successor)).collect();
        let ticket = workshop.cache.ticket();
        let turns: Vec<Turn<'_>> = batch.iter().map(Self::turn).collect();
        let outcomes = workshop.database.rotate(&turns, workshop.limited).await?;
        workshop.counters.rotation_statements.fetch_add(1, Ordering::Relaxed);
        workshop.probes.reach(Point::Rotated).await;
        for (job, outcome) in batch.drain(..).zip(outcomes) {
            let answer = match outcome {
                Rotated::Done(successor) => {
                    workshop.counters.rotations.fetch_add(1, Ordering::Relaxed);
                    let Successor { row, attributes, last_accessed_at, remnants, evicted } = *successor;
                    // Before the answer: whoever was told of the rotation reads no older state of an old id here.
                    for (id, version) in remnants {
                        workshop.cache.invalidate(id, version);
                    }
                    for id in evicted {
                        workshop.cache.forget(id);
                    }
                    let record = Record::new(Arc::clone(&workshop.rules), row, attributes, last_accessed_at);
                    let record = Arc::new(record);
                    workshop.cache.publish(ticket, &record);
                    Ok(record)
                }
                Rotated::NotFound => {
                    workshop.cache.forget(job.id);
                    Err(UpdateError::NotFound)
                }
                Rotated::Before { found } => {
                    workshop.cache.invalidate(job.id, found);
                    Err(UpdateError::Rotated)
                }
                Rotated::Refused => Err(refused().into()),
            };
            job.answer(answer);
        }
        Ok(Vec::new())
    }

    fn fail(self, error: Error, workshop: &Workshop) {
        if error.kind() == ErrorKind::OutcomeUnknown {
            // It may have been committed: what is in memory may be outdated.
            workshop.cache.forget(self.id);
        }
        self.answer(Err(error.into()));
    }
}
