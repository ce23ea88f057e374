//! Writes that concern any number of sessions: given ones together, those of a user, of a group or of a label, all;
//! deleted or evicted.

use std::time::Duration;

use tokio::task::yield_now;
use uuid::Uuid;

use super::request::{Executed, Keys, Outcome, Pending, Request};
use crate::cache::Ticket;
use crate::cause::Cause;
use crate::clock::DbTime;
use crate::core::Core;
use crate::ending::Ending;
use crate::error::{Error, ErrorKind};
use crate::failpoints::Guard;
use crate::id::{GroupId, Scope, SessionId, UserId};
use crate::pinning::look_up_scope;
use crate::pins::Named;
use crate::postgres::failure::{Failure, Verdict};
use crate::postgres::row_locks::Parts;
use crate::postgres::sweep::{Sweep, Whose};
use crate::retry::{BULK_ROW_WAIT_MAX, REBASES_MAX};
use crate::session::request::BulkChange;

/// Sessions that are dropped from memory before other tasks run.
const FORGOTTEN_MAX: usize = 1_024;

pub(crate) struct BulkRequest {
    change: BulkChange,
    /// Times that it was sent.
    tries: u32,
    /// Living sessions that were changed so far.
    changed: u64,
    /// When the first statement was carried out, by the database's clock.
    since: Option<DbTime>,
    /// Whether attributes or locks of the sessions were locked.
    careful: bool,
    ending: Ending,
}

impl BulkRequest {
    pub(crate) fn new(change: BulkChange, ending: Ending) -> Self {
        Self { ending, change, tries: 0, changed: 0, since: None, careful: false }
    }

    /// How long this try waits for a row: longer each time, because a row may have many writers.
    fn row_wait(&self, core: &Core) -> Duration {
        let first = core.config.row_lock_wait;
        first.saturating_mul(1 << self.tries.min(16)).min(first.max(BULK_ROW_WAIT_MAX))
    }

    async fn carry_out(&mut self, core: &Core) -> Result<u64, Failure> {
        let wait = self.row_wait(core);
        match &self.change {
            BulkChange::Delete(ids) => {
                let sessions: Vec<_> = ids.iter().map(|&id| (id, self.ending.clone())).collect();
                core.note_users(ids);
                let (gone, server) = core.database.delete(&sessions).await?;
                forget_each(&gone.iter().map(|row| row.id).collect::<Vec<_>>(), core).await;
                core.check_revocation(server)?;
                gone.iter().for_each(|row| core.pins.end(row.id, Some(self.ending.cause()), None));
                self.changed = gone.iter().map(|row| u64::from(row.live)).sum();
            }
            &BulkChange::DeleteAll(scope) => self.sweep(Whose::Scope(scope), wait, core).await?,
            &BulkChange::DeleteOthers(user, kept) => {
                self.sweep(Whose::Others(user, kept), wait, core).await?;
            }
            BulkChange::DeleteLabel(label) => {
                let label = label.clone();
                self.sweep(Whose::Label(&label), wait, core).await?;
            }
            BulkChange::RemoveAttribute(user, key) => {
                remove_attribute(*user, key, &mut self.changed, wait, self.tries, core).await?;
            }
            BulkChange::Evict(scope) => {
                core.check_revocation(core.database.notify_drop(*scope).await?)?;
            }
        }
        Ok(self.changed)
    }

    /// Deletes the sessions whose rows are free, waits for one of the others, and looks again. Blocked if some remain.
    async fn sweep(&mut self, whose: Whose<'_>, row_wait: Duration, core: &Core) -> Result<(), Failure> {
        let mut remaining = self.sweep_step(whose, row_wait, None, core).await?;
        if let Some(at) = (self.tries as usize).checked_rem(remaining.len()) {
            match self.sweep_step(whose, row_wait, Some(remaining[at]), core).await {
                Ok(_) => remaining = self.sweep_step(whose, row_wait, None, core).await?,
                Err(failure) if failure.verdict == Verdict::Blocked => {}
                Err(failure) => return Err(failure),
            }
        }
        if remaining.is_empty() { Ok(()) } else { Err(Failure::blocked(row_wait)) }
    }

    /// Returns some of those that remain.
    async fn sweep_step(
        &mut self,
        whose: Whose<'_>,
        row_wait: Duration,
        only: Option<SessionId>,
        core: &Core,
    ) -> Result<Vec<SessionId>, Failure> {
        let ending = self.ending.clone();
        let step = Sweep { row_wait, since: self.since, careful: self.careful, only, ending: &ending };
        let swept = match core.database.sweep(whose, step).await {
            // A row that goes with a session is locked. Which one is not known, and nothing was deleted.
            Err(failure) if failure.verdict == Verdict::Blocked && only.is_none() && !self.careful => {
                self.careful = true;
                core.database.sweep(whose, Sweep { careful: true, ..step }).await?
            }
            outcome => outcome?,
        };
        let is_first = self.since.is_none();
        self.since = self.since.or(Some(swept.at));
        self.changed += swept.live;
        let named = if core.failpoints.holds(Guard::NamedForgets) { swept.named } else { Some(Vec::new()) };
        forget_named(named.as_deref(), self.ending.cause(), core).await;
        // Those of this statement; a later one reports each, as do those of a label.
        if is_first && !matches!(whose, Whose::Label(_)) {
            self.forget(core).await;
        }
        core.check_revocation(swept.server)?;
        match named {
            Some(ids) => ids.iter().for_each(|&id| core.pins.end(id, Some(self.ending.cause()), None)),
            None => look_up_scope(core, Scope::All).await,
        }
        Ok(swept.remaining)
    }

    /// Before the answer, whatever it is: what was acknowledged holds on this node, and what has failed may have
    /// happened. Other tasks run between the steps.
    async fn forget(&self, core: &Core) {
        let (pins, cause) = (&core.pins, Some(self.ending.cause()));
        let scope = match &self.change {
            BulkChange::Delete(ids) => {
                forget_each(ids, core).await;
                return pins.doubt(Named::Sessions(ids), cause);
            }
            BulkChange::RemoveAttribute(user, _) | BulkChange::DeleteOthers(user, _) => Scope::User(*user),
            BulkChange::DeleteAll(scope) | BulkChange::Evict(scope) => *scope,
            // The memory does not know the sessions of a label.
            BulkChange::DeleteLabel(_) => Scope::All,
        };
        core.drop_sessions(scope).await;
        if self.deletes() {
            pins.doubt(Named::Scope(scope), cause);
        }
    }

    /// Before the answer: what was acknowledged has ended for the pins of this node.
    async fn settle_pins(&self, core: &Core) {
        match self.change {
            BulkChange::DeleteAll(scope) => look_up_scope(core, scope).await,
            BulkChange::DeleteOthers(user, _) => look_up_scope(core, Scope::User(user)).await,
            // The statement has reported each session.
            BulkChange::Delete(_) | BulkChange::DeleteLabel(_) => {}
            BulkChange::RemoveAttribute(..) | BulkChange::Evict(_) => {}
        }
    }

    fn deletes(&self) -> bool {
        !matches!(self.change, BulkChange::RemoveAttribute(..) | BulkChange::Evict(_))
    }
}

/// Drops the sessions that a sweep has named. If there were too many, nothing in memory is served before it is verified.
async fn forget_named(named: Option<&[SessionId]>, cause: Cause, core: &Core) {
    match named {
        Some(ids) => forget_each(ids, core).await,
        None => {
            core.cache.begin_epoch();
            core.pins.doubt(Named::Scope(Scope::All), Some(cause));
        }
    }
}

async fn forget_each(ids: &[SessionId], core: &Core) {
    for some in ids.chunks(FORGOTTEN_MAX) {
        some.iter().for_each(|&id| core.cache.remove(id));
        yield_now().await;
    }
}

/// Page by page, and again until no session of the user was overtaken by another update. Blocked if rows are locked.
async fn remove_attribute(
    user: UserId,
    key: &str,
    sessions: &mut u64,
    wait: Duration,
    tries: u32,
    core: &Core,
) -> Result<(), Failure> {
    for _ in 0..REBASES_MAX {
        let (mut conflicts, mut locked) = (0, 0);
        let mut page = Some(Uuid::nil());
        while let Some(after) = page {
            let removed =
                core.database.remove_attribute(user.as_uuid(), key, after, wait, tries as usize).await?;
            removed.servers.iter().try_for_each(|&server| core.check_revocation(server))?;
            *sessions += removed.sessions;
            conflicts += removed.conflicts;
            locked += removed.locked;
            page = removed.next;
        }
        if conflicts == 0 {
            return if locked == 0 { Ok(()) } else { Err(Failure::blocked(wait)) };
        }
    }
    let error = Error::new(
        ErrorKind::Contention,
        "other updates of the user's sessions kept coming, and some may still have the attribute; try again",
    );
    Err(Failure { error, verdict: Verdict::Refused })
}

impl Request for BulkRequest {
    /// Changes of one user, of one group, of one label or of all are made one after the other.
    type Key = (u8, Uuid);
    type Written = u64;
    /// How many living sessions were changed.
    type Answer = u64;
    type Error = Error;

    const KIND: &'static str = "bulk";

    fn conflict_keys(&self, _: &Core) -> (Self::Key, Option<Self::Key>) {
        let key = match &self.change {
            BulkChange::Delete(ids) => (0, ids.first().map_or(Uuid::nil(), |id| id.expose())),
            BulkChange::DeleteOthers(user, _) | BulkChange::RemoveAttribute(user, _) => (1, user.as_uuid()),
            // A hash. Two labels with the same one would only wait for each other.
            BulkChange::DeleteLabel(label) => (4, GroupId::named(label.as_str()).as_uuid()),
            BulkChange::DeleteAll(scope) | BulkChange::Evict(scope) => match *scope {
                Scope::User(user) => (1, user.as_uuid()),
                Scope::Group(group) => (2, group.as_uuid()),
                Scope::All => (3, Uuid::nil()),
            },
        };
        (key, None)
    }

    /// The batch is one request: each is a statement over any number of rows.
    async fn execute(batch: &mut [Pending<Self>], core: &Core) -> Result<Executed<Self>, Failure> {
        let mut counts = Vec::with_capacity(batch.len());
        for Pending { request, .. } in batch {
            let outcome = request.carry_out(core).await;
            // A sweep has dropped what it deleted, and a blocked deletion has deleted nothing. A removal may have changed any
            // session.
            let is_dropped = match (&request.change, &outcome) {
                (
                    BulkChange::DeleteAll(_) | BulkChange::DeleteLabel(_) | BulkChange::DeleteOthers(..),
                    Ok(_),
                ) => true,
                (BulkChange::RemoveAttribute(..), _) | (_, Ok(_)) => false,
                (_, Err(failure)) => failure.verdict == Verdict::Blocked,
            };
            if !is_dropped {
                request.forget(core).await;
            }
            request.tries += 1;
            counts.push(outcome?);
            request.settle_pins(core).await;
        }
        Ok((counts, None))
    }

    fn settle(&self, count: u64, _: Ticket, _: &Core) -> Outcome<Self> {
        Outcome::Done(count)
    }

    /// Given sessions are deleted all or none. What of them is locked is asked for, so that the others need not wait.
    async fn find_locked(batch: &[Pending<Self>], core: &Core) -> Result<Keys<Self>, Failure> {
        let mut keys = Keys::<Self>::default();
        for pending in batch {
            if let BulkChange::Delete(ids) = &pending.request.change
                && !core.database.locked_sessions(ids, Parts::Deleted).await?.is_empty()
            {
                keys.insert(pending.key());
            }
        }
        Ok(keys)
    }

    fn blocked_max(core: &Core) -> Duration {
        core.database.bulk_timeout()
    }
}
