//! The way of a batch through the database and the cache, the same for every kind of request:
//!
//! ```text
//! begin_write → rebase those that met a conflict → ticket → execute → check the server → publish → answer
//! ```
//!
//! The order is what I1, I2 and I6 rest on. The marks of `begin_write` come before every read, so that a newer version
//! which this node sees meanwhile wins. The ticket comes after the rebase, whose reads are old by then, and before the
//! statement leaves. The answer comes last: a caller that knows of a write reads it on this node.

use std::collections::HashMap;

use super::request::{Outcome, Pending, Request};
use crate::cache::Writing;
use crate::core::Core;
use crate::error::{Error, ErrorKind};
use crate::id::SessionId;
use crate::postgres::failure::Failure;
use crate::retry::REBASES_MAX;
use crate::session::record::Record;

/// Commits the batch with one statement. On success every request was answered, but for those returned, which met a
/// conflict. On failure the batch is as it was.
pub(super) async fn commit<R: Request>(
    batch: &mut Vec<Pending<R>>,
    core: &Core,
) -> Result<Vec<Pending<R>>, Failure> {
    let written = batch.iter().filter_map(|pending| pending.request.written_id());
    let _writing: Vec<Writing<'_>> = written.map(|id| core.cache.begin_write(id)).collect();
    // Nearly every caller saw the newest version.
    if batch.iter().any(|pending| pending.conflicts > 0) {
        rebase(batch, core).await?;
    }
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let ticket = core.cache.ticket();
    let (written, server) = R::execute(batch, core).await?;
    // A write that another server has committed is a success, which the listener does not receive changes of.
    let ticket = core.checked(ticket, server);
    if let Some(point) = R::COMMITTED {
        core.failpoints.reach(point).await;
    }
    let mut conflicts = Vec::new();
    for (mut pending, written) in batch.drain(..).zip(written) {
        match pending.request.settle(written, ticket, core) {
            Outcome::Done(answer) => pending.answer(Ok(answer)),
            Outcome::Failed(error) => pending.answer(Err(error)),
            Outcome::Conflict if pending.conflicts < REBASES_MAX => {
                pending.conflicts += 1;
                conflicts.push(pending);
            }
            Outcome::Conflict => pending.answer(Err(too_many_conflicts().into())),
        }
    }
    Ok(conflicts)
}

/// Reads the sessions of those requests that met a conflict. What can still be applied is put on top of what was read.
/// The others are answered, and leave the batch.
async fn rebase<R: Request>(batch: &mut Vec<Pending<R>>, core: &Core) -> Result<(), Failure> {
    let conflicts = batch.iter().filter(|pending| pending.conflicts > 0);
    let ids: Vec<SessionId> = conflicts.filter_map(|pending| pending.request.base_id()).collect();
    let found = core.database.load(&ids).await.map_err(Failure::into_unsent_error)?;
    let mut found: HashMap<SessionId, Result<Record, Error>> = found.live.into_iter().collect();
    if core.config.notify_conflicts {
        notify_conflicts(batch, &found, core).await?;
    }
    for mut pending in std::mem::take(batch) {
        if pending.conflicts > 0 {
            let current = pending.request.base_id().and_then(|id| found.remove(&id)).transpose();
            let rebased = current.map_err(R::Error::from);
            if let Err(error) = rebased.and_then(|current| pending.request.rebase(current, core)) {
                pending.answer(Err(error));
                continue;
            }
        }
        batch.push(pending);
    }
    Ok(())
}

async fn notify_conflicts<R: Request>(
    batch: &[Pending<R>],
    found: &HashMap<SessionId, Result<Record, Error>>,
    core: &Core,
) -> Result<(), Failure> {
    let failing = batch.iter().filter(|pending| pending.conflicts > 0).filter_map(|pending| {
        let current = found.get(&pending.request.base_id()?)?.as_ref().ok()?;
        pending.request.notifies_conflict(current).then_some((current.row.id, current.row.version))
    });
    let failing: Vec<_> = failing.collect();
    if failing.is_empty() {
        return Ok(());
    }
    core.database.notify_changed(&failing).await.map_err(Failure::into_unsent_error)
}

fn too_many_conflicts() -> Error {
    Error::new(
        ErrorKind::Contention,
        format!(
            "gave up after {REBASES_MAX} conflicts with other writers of the session, and wrote nothing; try again \
             later"
        ),
    )
}
