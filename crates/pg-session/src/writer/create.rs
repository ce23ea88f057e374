//! Combined creates.

use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::count_evicted;
use super::queue::Job;
use crate::cache::Writing;
use crate::core::Core;
use crate::error::{Error, ErrorKind};
use crate::failpoints::Point;
use crate::id::{GroupId, SessionId, UserId};
use crate::postgres::create::{Created, NewSession};
use crate::postgres::failure::Failure;
use crate::postgres::update::Expiry;
use crate::session::IdleLimit;
use crate::session::attributes::{Attributes, Writes};
use crate::session::changes::Changes;
use crate::session::record::{Record, Row, SharedRecord};
use crate::version::Version;

/// One session to be made.
pub(crate) struct CreateJob {
    pub(crate) id: SessionId,
    pub(crate) user_id: Option<UserId>,
    pub(crate) group_id: Option<GroupId>,
    pub(crate) expiry: Expiry,
    pub(crate) idle_limit: IdleLimit,
    pub(crate) attributes: Changes,
    /// The user if the number of sessions is limited, the session itself if not.
    pub(crate) conflict_key: Uuid,
    pub(crate) reply: oneshot::Sender<Result<SharedRecord, Error>>,
}

impl CreateJob {
    fn new_session<'a>(&self, none: &'a Attributes, attributes: &'a Attributes) -> NewSession<'a> {
        NewSession {
            id: self.id,
            user_id: self.user_id,
            group_id: self.group_id,
            expiry: self.expiry,
            idle_limit: self.idle_limit,
            writes: Writes::new(none, attributes),
        }
    }
}

impl Job for CreateJob {
    /// I7: one create per user in a statement, or both would count the same sessions.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.conflict_key
    }

    async fn commit(batch: &mut Vec<Self>, core: &Core) -> Result<Vec<Self>, Failure> {
        // A caller that lists the user's sessions knows the id from the commit on, and may change the session.
        let _writing: Vec<Writing<'_>> = batch.iter().map(|job| core.cache.begin_write(job.id)).collect();
        let ticket = core.cache.ticket();
        let none = Attributes::default();
        let now = core.policy.clock.database_now();
        let made = batch.iter().map(|job| none.apply(&job.attributes, Version::FIRST, now));
        let made: Vec<Attributes> = made.collect();
        let new_sessions =
            batch.iter().zip(&made).map(|(job, attributes)| job.new_session(&none, attributes));
        let outcomes =
            core.database.create(&new_sessions.collect::<Vec<_>>(), core.limits_sessions()).await?;
        core.counters.create_statements.add(1);
        core.failpoints.reach(Point::Created).await;
        for ((job, attributes), outcome) in batch.drain(..).zip(made).zip(outcomes) {
            let answer = match outcome {
                Created::Made { created_at, expires_at, evicted } => {
                    core.counters.creates.add(1);
                    count_evicted(core, job.user_id, &evicted);
                    let row = Row {
                        id: job.id,
                        user_id: job.user_id,
                        group_id: job.group_id,
                        version: Version::FIRST,
                        created_at,
                        updated_at: created_at,
                        expires_at,
                        idle_limit: job.idle_limit,
                        rotated: false,
                    };
                    let record =
                        SharedRecord::new(Record::new(Arc::clone(&core.policy), row, attributes, created_at));
                    core.cache.publish(ticket, &record);
                    Ok(record)
                }
                Created::Refused => Err(refused()),
            };
            // Nobody waits any more if the future was dropped; the session exists all the same.
            let _ = job.reply.send(answer);
        }
        Ok(Vec::new())
    }

    fn fail(self, error: Error, _: &Core) {
        let _ = self.reply.send(Err(error));
    }
}

/// The policy lets the user have no other session.
pub(super) fn refused() -> Error {
    Error::new(
        ErrorKind::SessionLimit,
        "the user has sessions_per_user_max live sessions and on_session_limit is \"refuse\"; end one first",
    )
}
