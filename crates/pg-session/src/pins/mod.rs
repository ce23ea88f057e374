//! The sessions that the application holds open on this node: sockets, streams and jobs.
//!
//! A [`Pin`] reads three atomics and the clock. Everything else happens beside it:
//!
//! ```text
//! unverified ──found alive──▶ alive ⟲ doubted (a notification names it, a gap, its end is due) ── looked up ──▶ alive
//!      └──────────────────────────────────────┴──────────────── gone, or this node ended it ──▶ ended, for good
//! ```
//!
//! **A notification ends no pin.** Any role can send one. It raises a doubt, and the database
//! answers. Until the answer, the last proof before the doubt holds. A doubted session counts as
//! alive until the end of that proof's trust window. So a pin outlives its session by at most the
//! trust window, whether or not the database answers.
//!
//! Doubts and questions have numbers. An answer settles the doubts that are older than its question. So a session that is
//! changed all the time stays proved, and a revocation that overtakes a question is asked about again. Answers come in any
//! order. What the latest question has found out about the end and the owners of a session counts.
//!
//! This file sends nothing and waits for nothing; `pinning` has the tasks.

mod pin;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use smallvec::SmallVec;
use tokio::sync::Notify;

use self::pin::Held;
pub use self::pin::{Closed, Guarded, Pin};
use crate::cause::Cause;
use crate::clock::{DbTime, Tick};
use crate::id::{GroupId, Scope, SessionId, UserId};
use crate::session::expiry::IdleLimit;
use crate::session::record::{Policy, Record};

/// Sessions that one step looks at before other callers get the lock.
const STEP_SESSIONS: usize = 1_024;
/// Doubts of one session with different deadlines. More are merged, with the earlier deadline.
const DOUBTS_MAX: usize = 4;

/// The pinned sessions of a node.
#[derive(Debug)]
pub(crate) struct Pins {
    policy: Arc<Policy>,
    registry: Mutex<Registry>,
    /// Until when a session without a doubt counts as alive, in nanoseconds of a [`Tick`]. It is
    /// the end of the trust window of the last proof. Unlike trust, it is not lost with the
    /// connection. What was proved stays proved.
    proved_until: AtomicU64,
    /// A session is doubted.
    pub(crate) doubted: Notify,
    /// A deadline has come nearer.
    pub(crate) nearer: Notify,
}

#[derive(Debug, Default)]
struct Registry {
    slots: BTreeMap<SessionId, Slot>,
    users: BTreeSet<(UserId, SessionId)>,
    groups: BTreeSet<(GroupId, SessionId)>,
    /// When each session ends by itself, by the database's clock.
    ends: BTreeSet<(DbTime, SessionId)>,
    /// Sessions that are to be looked up.
    doubted: BTreeSet<SessionId>,
    /// The deadlines of doubted sessions. Few differ: each is the end of a proof.
    deadlines: BTreeSet<Tick>,
    /// Numbers the doubts and the questions.
    doubts: u64,
    /// The number of the last doubt that leads to a lookup.
    last_doubt: u64,
    /// The number of the last doubt about the sessions of an owner.
    owner_doubt: u64,
    closed: bool,
}

#[derive(Debug)]
struct Slot {
    shared: Arc<Shared>,
    /// What all pins of the session hold. The last one to be dropped removes the slot.
    held: Weak<Held>,
    life: Life,
    /// The question that `life` answers.
    asked: u64,
    /// The number of the last of some doubts, and the end of the last proof before the first of them. The oldest comes first.
    doubts: SmallVec<[(u64, Tick); 1]>,
    /// What the last doubt gave as the cause, if the session turns out to be gone.
    cause: Option<Cause>,
}

/// What the database said of a session's owners and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) user_id: Option<UserId>,
    pub(crate) group_id: Option<GroupId>,
    pub(crate) expires_at: DbTime,
    /// By both limits.
    pub(crate) ends_at: DbTime,
}

/// What a pin looks at.
#[derive(Debug)]
struct Shared {
    ended: OnceLock<Ended>,
    /// Until when the session counts as alive although it is doubted, in nanoseconds. The greatest number without a doubt.
    doubted_until: AtomicU64,
    /// It has ended, or a deadline has passed.
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    cause: Cause,
    successor: Option<SessionId>,
}

/// Sessions that a notification or a statement named.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named<'a> {
    Sessions(&'a [SessionId]),
    Scope(Scope),
}

impl Life {
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            user_id: record.row.user_id,
            group_id: record.row.group_id,
            expires_at: record.row.expires_at,
            ends_at: record.ends_at(),
        }
    }

    pub(crate) fn ends_at(
        policy: &Policy,
        expires_at: DbTime,
        idle_limit: IdleLimit,
        last_accessed_at: DbTime,
    ) -> DbTime {
        match idle_limit {
            IdleLimit::Enforced => expires_at.min(last_accessed_at.plus(policy.idle_timeout)),
            IdleLimit::Exempt => expires_at,
        }
    }
}

impl Pins {
    pub(crate) fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            registry: Mutex::default(),
            proved_until: AtomicU64::new(0),
            doubted: Notify::new(),
            nearer: Notify::new(),
        }
    }

    /// A proof has come: everything before it was handled, so each session without a doubt lived at its time.
    pub(crate) fn prove(&self, until: Tick) {
        if self.registry().closed {
            return;
        }
        let before = self.proved_until.fetch_max(until.nanos(), Ordering::AcqRel);
        // The task that keeps the deadlines has none while nothing is proved.
        if before <= self.policy.clock.now().nanos() {
            self.nearer.notify_one();
        }
    }

    /// The node will never prove anything again.
    pub(crate) fn close(&self) {
        self.registry().closed = true;
        self.proved_until.store(0, Ordering::Release);
        self.wake_all();
    }

    pub(crate) fn proved_until(&self) -> Tick {
        // Acquire: a reader that sees a proof also sees every doubt that came before it.
        Tick::from_nanos(self.proved_until.load(Ordering::Acquire))
    }

    /// Pins a session. Unless it is pinned already, it is not known to live until
    /// [`alive`](Pins::alive) is called. The caller may have read it long ago. What this node
    /// learns from here on reaches the pin.
    pub(crate) fn register(self: &Arc<Self>, id: SessionId, life: Life) -> Pin {
        let mut registry = self.registry();
        if let Some(held) = registry.slots.get(&id).and_then(|slot| slot.held.upgrade()) {
            return Pin(held);
        }
        // A slot whose last pin is being dropped is replaced.
        registry.forget(id);
        let shared = Arc::new(Shared::default());
        let held = Arc::new(Held { id, shared: Arc::clone(&shared), pins: Arc::clone(self) });
        let number = registry.next_number();
        let slot = Slot {
            shared,
            held: Arc::downgrade(&held),
            life,
            asked: number,
            doubts: SmallVec::from_buf([(number, Tick::ZERO)]),
            cause: None,
        };
        registry.slots.insert(id, slot);
        registry.index(id, life);
        Pin(held)
    }

    /// The last pin of a session is gone.
    fn unregister(&self, held: &Held) {
        let mut registry = self.registry();
        let is_its_own = |slot: &Slot| Arc::ptr_eq(&slot.shared, &held.shared);
        if registry.slots.get(&held.id).is_some_and(is_its_own) {
            registry.forget(held.id);
        }
    }

    /// The number of a question: greater than those of the doubts and questions so far. To be taken before it leaves.
    pub(crate) fn question(&self) -> u64 {
        self.registry().next_number()
    }

    /// The number of the last doubt, if any session is still to be looked up.
    pub(crate) fn last_doubt(&self) -> Option<u64> {
        let registry = self.registry();
        (!registry.doubted.is_empty()).then_some(registry.last_doubt)
    }

    /// The database, asked by `question`, or the memory says that the session lives.
    pub(crate) fn alive(&self, id: SessionId, question: u64, life: Life) {
        if !self.lives_until(id, question, life) {
            // The next answer settles the doubts.
            return self.doubt(Named::Sessions(&[id]), None);
        }
        let mut registry = self.registry();
        let Some(slot) = registry.slots.get_mut(&id).filter(|slot| !slot.shared.has_ended()) else { return };
        slot.doubts.retain(|&mut (last, _)| last > question);
        let deadline = slot.doubts.iter().map(|(_, deadline)| deadline.nanos()).min();
        slot.shared.doubted_until.store(deadline.unwrap_or(u64::MAX), Ordering::Release);
        if slot.doubts.is_empty() {
            slot.cause = None;
            registry.doubted.remove(&id);
        }
    }

    /// What `question` has found out about the end and the owners of a session. It settles no doubt. An answer that a later
    /// question has overtaken changes nothing: a save may have shortened the session in between.
    ///
    /// False if the session has got another owner, and a revocation of that owner may have come since the question. Such a
    /// notification names no sessions, and has not found this one.
    #[must_use]
    pub(crate) fn lives_until(&self, id: SessionId, question: u64, life: Life) -> bool {
        let mut registry = self.registry();
        let owner_doubt = registry.owner_doubt;
        let slot = registry.slots.get_mut(&id).filter(|slot| !slot.shared.has_ended());
        let Some(slot) = slot.filter(|slot| slot.asked <= question) else { return true };
        slot.asked = question;
        let before = std::mem::replace(&mut slot.life, life);
        registry.unindex(id, before);
        registry.index(id, life);
        let is_next = registry.ends.first().is_some_and(|&(_, first)| first == id);
        drop(registry);
        if is_next {
            self.nearer.notify_one();
        }
        (before.user_id, before.group_id) == (life.user_id, life.group_id) || owner_doubt < question
    }

    /// The session has ended. `cause` is what the caller knows; otherwise the doubt's cause counts, or the clock.
    ///
    /// `successor` is the id that it goes on under, and the user there. The holder learns it if that is the user of this id: a
    /// thief who knew the id before a login must not follow it. Two rotations may come at once, of which the first is the login.
    pub(crate) fn end(
        &self,
        id: SessionId,
        cause: Option<Cause>,
        successor: Option<(SessionId, Option<UserId>)>,
    ) {
        let now = self.policy.clock.database_now();
        let mut registry = self.registry();
        let Some(slot) = registry.slots.get_mut(&id) else { return };
        let by_itself = if slot.life.expires_at <= now {
            Some(Cause::Expired)
        } else {
            (slot.life.ends_at <= now).then_some(Cause::Idle)
        };
        let cause = cause.or(slot.cause).or(by_itself).unwrap_or(Cause::Unknown);
        let (shared, life) = (Arc::clone(&slot.shared), slot.life);
        let successor = successor.filter(|&(_, user)| user == life.user_id).map(|(id, _)| id);
        // The first end counts.
        let _ = shared.ended.set(Ended { cause, successor });
        registry.doubted.remove(&id);
        registry.unindex(id, life);
        drop(registry);
        shared.changed.notify_waiters();
    }

    /// The sessions may have ended: they are looked up.
    pub(crate) fn doubt(&self, named: Named<'_>, cause: Option<Cause>) {
        match named {
            Named::Sessions(ids) => {
                ids.chunks(STEP_SESSIONS).for_each(|some| self.doubt_some(some, cause, None));
            }
            Named::Scope(scope) => {
                self.doubt_owner(scope);
                self.for_each_of(scope, |some| self.doubt_some(some, cause, None));
            }
        }
    }

    /// This node has ended sessions of a scope, and cannot look up which: none of them counts as alive until it can.
    pub(crate) fn distrust(&self, scope: Scope) {
        self.for_each_of(scope, |some| self.doubt_some(some, None, Some(Tick::ZERO)));
    }

    /// Before the sessions of the owner are looked for: an answer on its way may bring another one.
    fn doubt_owner(&self, scope: Scope) {
        if scope == Scope::All {
            return;
        }
        let mut registry = self.registry();
        let number = registry.next_number();
        registry.owner_doubt = number;
        if !registry.doubted.is_empty() {
            // A request waits for the lookup that follows such an answer.
            registry.last_doubt = number;
            drop(registry);
            self.doubted.notify_one();
        }
    }

    /// Something may have been missed. To be called before the next proof counts, and before a request is acknowledged.
    pub(crate) fn doubt_all(&self) {
        self.doubt(Named::Scope(Scope::All), None);
    }

    /// Until the lookup, they count as alive until `deadline`. Without one, what was proved before the doubt counts.
    fn doubt_some(&self, ids: &[SessionId], cause: Option<Cause>, deadline: Option<Tick>) {
        let mut registry = self.registry();
        let deadline = deadline.unwrap_or_else(|| self.proved_until());
        let mut any = false;
        for id in ids {
            let number = registry.next_number();
            let Some(slot) = registry.slots.get_mut(id).filter(|slot| !slot.shared.has_ended()) else {
                continue;
            };
            slot.add_doubt(number, deadline);
            slot.cause = cause.or(slot.cause);
            registry.doubted.insert(*id);
            registry.last_doubt = number;
            any = true;
        }
        if !any {
            return;
        }
        registry.deadlines.insert(deadline);
        drop(registry);
        self.doubted.notify_one();
        self.nearer.notify_one();
    }

    /// Those of `ids` that are pinned and have not ended.
    pub(crate) fn pinned<T: Copy>(&self, named: &[T], id: impl Fn(T) -> SessionId) -> Vec<T> {
        let registry = self.registry();
        if registry.slots.is_empty() {
            return Vec::new();
        }
        let is_pinned =
            |named: T| registry.slots.get(&id(named)).is_some_and(|slot| !slot.shared.has_ended());
        named.iter().copied().filter(|&named| is_pinned(named)).collect()
    }

    /// The user of a pinned session.
    pub(crate) fn user_of(&self, id: SessionId) -> Option<Option<UserId>> {
        self.registry().slots.get(&id).map(|slot| slot.life.user_id)
    }

    /// All pinned sessions of a scope, a step at a time.
    pub(crate) fn for_each_of(&self, scope: Scope, mut each: impl FnMut(&[SessionId])) {
        let mut after = None;
        loop {
            let some = self.registry().some_of(scope, after);
            each(&some);
            match some.last() {
                Some(&last) if some.len() == STEP_SESSIONS => after = Some(last),
                _ => return,
            }
        }
    }

    /// At most `sessions_max` sessions that are to be looked up, behind `after`.
    pub(crate) fn some_doubted(&self, after: Option<SessionId>, sessions_max: usize) -> Vec<SessionId> {
        let registry = self.registry();
        registry.doubted.range(behind(after)).take(sessions_max).copied().collect()
    }

    /// Handles what is due. It doubts the sessions whose end has come, and wakes the holders of
    /// those that are no longer proved. Returns the next time for this, by the node's clock.
    pub(crate) fn handle_due(&self) -> Option<Tick> {
        let now = self.policy.clock.now();
        let ending = self.take_ending();
        self.doubt(Named::Sessions(&ending), None);
        let is_past = {
            let mut registry = self.registry();
            let later = registry.deadlines.split_off(&Tick::from_nanos(now.nanos().saturating_add(1)));
            !std::mem::replace(&mut registry.deadlines, later).is_empty()
        };
        if is_past {
            self.wake(&self.some_doubted(None, usize::MAX));
        }
        self.next_due(now)
    }

    /// Wakes every holder: no proof has come in time.
    pub(crate) fn wake_all(&self) {
        self.for_each_of(Scope::All, |some| self.wake(some));
    }

    fn take_ending(&self) -> Vec<SessionId> {
        let now = self.policy.clock.database_now();
        let mut registry = self.registry();
        let later =
            registry.ends.split_off(&(DbTime::from_nanos(now.nanos().saturating_add(1)), SessionId::MIN));
        let ending = std::mem::replace(&mut registry.ends, later);
        ending.into_iter().map(|(_, id)| id).collect()
    }

    fn next_due(&self, now: Tick) -> Option<Tick> {
        let registry = self.registry();
        let database_now = self.policy.clock.database_at(now);
        let end = registry.ends.first().map(|(end, _)| now.plus(end.since(database_now)));
        let deadline = registry.deadlines.first().copied();
        end.into_iter().chain(deadline).min()
    }

    fn wake(&self, ids: &[SessionId]) {
        for some in ids.chunks(STEP_SESSIONS) {
            let shared: Vec<Arc<Shared>> = {
                let registry = self.registry();
                let slots = some.iter().filter_map(|id| registry.slots.get(id));
                slots.map(|slot| Arc::clone(&slot.shared)).collect()
            };
            shared.iter().for_each(|shared| shared.changed.notify_waiters());
        }
    }

    /// Pinned sessions, also those that have ended.
    pub(crate) fn count(&self) -> usize {
        self.registry().slots.len()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Each critical section leaves the registry consistent, so a panic elsewhere does not spoil it.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    fn next_number(&mut self) -> u64 {
        self.doubts += 1;
        self.doubts
    }

    fn index(&mut self, id: SessionId, life: Life) {
        if let Some(user) = life.user_id {
            self.users.insert((user, id));
        }
        if let Some(group) = life.group_id {
            self.groups.insert((group, id));
        }
        if life.ends_at != DbTime::NEVER {
            self.ends.insert((life.ends_at, id));
        }
    }

    fn unindex(&mut self, id: SessionId, life: Life) {
        if let Some(user) = life.user_id {
            self.users.remove(&(user, id));
        }
        if let Some(group) = life.group_id {
            self.groups.remove(&(group, id));
        }
        self.ends.remove(&(life.ends_at, id));
    }

    fn forget(&mut self, id: SessionId) {
        if let Some(slot) = self.slots.remove(&id) {
            self.unindex(id, slot.life);
            self.doubted.remove(&id);
        }
    }

    fn some_of(&self, scope: Scope, after: Option<SessionId>) -> Vec<SessionId> {
        let first = after.unwrap_or(SessionId::MIN);
        let is_behind = |id: &SessionId| after.is_none_or(|after| *id > after);
        match scope {
            Scope::User(user) => {
                let of_user = self.users.range((user, first)..=(user, SessionId::MAX));
                of_user.map(|&(_, id)| id).filter(is_behind).take(STEP_SESSIONS).collect()
            }
            Scope::Group(group) => {
                let of_group = self.groups.range((group, first)..=(group, SessionId::MAX));
                of_group.map(|&(_, id)| id).filter(is_behind).take(STEP_SESSIONS).collect()
            }
            Scope::All => self.slots.range(behind(after)).map(|(&id, _)| id).take(STEP_SESSIONS).collect(),
        }
    }
}

fn behind(after: Option<SessionId>) -> impl std::ops::RangeBounds<SessionId> {
    (after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded), std::ops::Bound::Unbounded)
}

impl Slot {
    fn add_doubt(&mut self, number: u64, deadline: Tick) {
        let is_full = self.doubts.len() == DOUBTS_MAX;
        match self.doubts.last_mut() {
            // The earlier deadline counts for both.
            Some((last, known)) if *known == deadline || is_full => {
                (*last, *known) = (number, deadline.min(*known));
            }
            _ => self.doubts.push((number, deadline)),
        }
        self.shared.doubted_until.fetch_min(deadline.nanos(), Ordering::AcqRel);
    }
}

impl Default for Shared {
    /// Nothing is known of it yet.
    fn default() -> Self {
        Self { ended: OnceLock::new(), doubted_until: AtomicU64::new(0), changed: Notify::new() }
    }
}

impl Shared {
    fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }
}
