//! The write lane of a node: `writer/update.rs` and `writer/delete.rs`, step by step.
//!
//! ```text
//! begin_write ── ticket ── commit ── publish (note ── install) ── answer
//!                  ▲          │ overtaken
//!      begin_write ┴─ reread ─┘
//! ```
//!
//! The notification leaves with the commit, or in a step of its own: see [`gap`](crate::gap).
//!
//! The statement is applied only to the version that it was made from: at first what the caller holds, and once that was
//! overtaken, what was read then. Deletes have a lane of their own, so one may run beside an update of the same session.

use crate::cache::{Cache, Record, Ticket};
use crate::database::Database;
use crate::guard::Guard;
use crate::policy::{Ending, Policy};
use crate::tally::Seen;
use crate::version::Version;

/// Where the update is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Update {
    Idle,
    Begun {
        ticket: Ticket,
        made: Made,
    },
    /// The statement found another version than it was made from, or none; `answered` is what the caller holds.
    Overtaken {
        answered: Version,
    },
    /// The session was read again; the answer is on its way.
    Reread {
        made: Made,
    },
    /// Its server process has committed and has not notified.
    Unnotified {
        ticket: Ticket,
        record: Record,
    },
    Committed {
        ticket: Ticket,
        record: Record,
    },
    Noted {
        ticket: Ticket,
        record: Record,
    },
    NotFound,
}

/// What a statement was made from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Made {
    /// The version that the row must still have.
    pub(crate) base: Version,
    /// The attributes that the changes are applied to.
    attributes: Version,
}

/// Where the delete is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Delete {
    Idle,
    Committed,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Writing {
    pub(crate) update: Update,
    pub(crate) delete: Delete,
    /// What is to be notified again.
    pub(crate) owed: Option<Version>,
}

impl Writing {
    pub(crate) fn new() -> Self {
        Self { update: Update::Idle, delete: Delete::Idle, owed: None }
    }

    /// The caller holds the session as it was last answered.
    pub(crate) fn begin_write(&mut self, policy: &Policy, answered: Version, cache: &mut Cache) {
        cache.begin_write();
        let ticket = cache.ticket();
        self.update = Update::Begun { ticket, made: Made { base: answered, attributes: answered } };
        if !policy.holds(Guard::PublishAfterCommit) {
            cache.install(policy, ticket, Record { version: answered.next(), whole: true });
        }
    }

    /// After a conflict, the writer reads the session.
    pub(crate) fn reread(&mut self, policy: &Policy, database: &Database) {
        if let Update::Overtaken { answered } = self.update {
            self.update = match database.row {
                Version::DELETED => Update::NotFound,
                base => {
                    let attributes = if policy.holds(Guard::Found) { base } else { answered };
                    Update::Reread { made: Made { base, attributes } }
                }
            };
        }
    }

    /// The answer is there, and the statement is about to leave.
    pub(crate) fn catch_up(&mut self, cache: &Cache) {
        if let Update::Reread { made } = self.update {
            self.update = Update::Begun { ticket: cache.ticket(), made };
        }
    }

    /// The statement has the row's lock. Returns the version that it commits, if it does.
    pub(crate) fn commit(
        &mut self,
        policy: &Policy,
        cache: &mut Cache,
        database: &mut Database,
    ) -> Option<Version> {
        let Update::Begun { ticket, made } = self.update else { return None };
        let moved = database.row != made.base;
        if database.row == Version::DELETED || moved && policy.holds(Guard::Moved) {
            policy.tally.add(Seen::Moved);
            cache.begin_write();
            self.update = Update::Overtaken { answered: made.attributes };
            return None;
        }
        // The attributes in the record, and those that the changes were applied to.
        let whole = made.attributes == database.row;
        let version = database.update();
        let record = Record { version, whole };
        self.update = if policy.commits_first(version) {
            Update::Unnotified { ticket, record }
        } else {
            Update::Committed { ticket, record }
        };
        Some(version)
    }

    /// The server process has notified, and answers.
    pub(crate) fn notified(&mut self) {
        if let Update::Unnotified { ticket, record } = self.update {
            self.update = Update::Committed { ticket, record };
        }
    }

    /// What the statement leads to, as long as nothing came of it.
    pub(crate) fn goal(&self) -> Option<Version> {
        match self.update {
            Update::Begun { made, .. } => Some(made.base.next()),
            Update::Unnotified { record, .. } => Some(record.version),
            _ => None,
        }
    }

    /// One step of what follows the commit; returns the answer to the caller.
    pub(crate) fn publish(&mut self, policy: &Policy, cache: &mut Cache) -> Option<Version> {
        match self.update {
            Update::Committed { ticket, record } => {
                let ticket = if policy.holds(Guard::TicketBeforeStatement) { ticket } else { cache.ticket() };
                cache.publish_note(policy, record.version);
                self.update = Update::Noted { ticket, record };
                (!policy.holds(Guard::PublishBeforeAnswer)).then_some(record.version)
            }
            Update::Noted { ticket, record } => {
                let published = cache.install(policy, ticket, record);
                policy.tally.add(if published { Seen::Publish } else { Seen::LatePublish });
                self.end_update(cache);
                policy.holds(Guard::PublishBeforeAnswer).then_some(record.version)
            }
            Update::NotFound => {
                policy.tally.add(Seen::NotFound);
                if policy.holds(Guard::NotFoundForgets) {
                    cache.remove(policy);
                }
                self.end_update(cache);
                Some(Version::DELETED)
            }
            Update::Idle
            | Update::Begun { .. }
            | Update::Overtaken { .. }
            | Update::Reread { .. }
            | Update::Unnotified { .. } => None,
        }
    }

    /// The answer to the statement does not come: the caller does not learn whether it was committed.
    pub(crate) fn outcome_unknown(&mut self, policy: &Policy, cache: &mut Cache) {
        let handled = cache.handled;
        cache.remove(policy);
        // No notification said that it has ended.
        cache.handled = handled;
        self.end_update(cache);
    }

    /// The caller has waited for long enough.
    pub(crate) fn give_up(&mut self, policy: &Policy, cache: &mut Cache) {
        if let Some(version) = self.goal() {
            self.owe(version);
            self.outcome_unknown(policy, cache);
        }
    }

    pub(crate) fn owe(&mut self, version: Version) {
        self.owed = self.owed.max(Some(version));
    }

    fn end_update(&mut self, cache: &mut Cache) {
        cache.end_write();
        self.update = Update::Idle;
    }

    pub(crate) fn forget(&mut self, policy: &Policy, cache: &mut Cache) {
        if policy.holds(Guard::ForgetBeforeAnswer)
            && let Some(ending) = policy.bounds.ending
        {
            ending.apply(policy, cache);
            if ending == Ending::NewGroup && policy.holds(Guard::NamedForgets) {
                cache.remove(policy);
            }
        }
        self.delete = Delete::Idle;
    }

    pub(crate) fn ticket(&mut self) -> Option<&mut Ticket> {
        match &mut self.update {
            Update::Begun { ticket, .. }
            | Update::Unnotified { ticket, .. }
            | Update::Committed { ticket, .. }
            | Update::Noted { ticket, .. } => Some(ticket),
            Update::Idle | Update::Overtaken { .. } | Update::Reread { .. } | Update::NotFound => None,
        }
    }
}
