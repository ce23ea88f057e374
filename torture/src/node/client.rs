//! A client of the application: picks a session, does something with it, says what came of it, pauses, again.
//!
//! Writes gather on a few sessions, other ones in each epoch; reads go there, and to the sessions of the epochs before,
//! which hardly change any more: a node that still serves an old version of those is found.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use pg_session::{ErrorKind, Everywhere, Pin, Revocation, Session, SessionId, UpdateError, Version};
use tokio::sync::watch;
use uuid::Uuid;

use super::Node;
use super::padded::Padded;
use crate::clock::{Nanos, nanos, now};
use crate::history::{Answer, Change, Elevates, Entry, Found, Intent, Listed, Op, Outcome, Read, Seen};
use crate::plan::{CLIENT_PLACES, NodePlan, SLOTS, SLOTS_PER_USER, TRUST_WINDOW, USERS, user_of};
use crate::rng::Rng;

/// Sessions that are written in one epoch, and its length: longer than the window, so that the epoch after it has
/// reads that must show its last writes.
const FOCUS: usize = 6;
const EPOCH: Nanos = 2 * TRUST_WINDOW.as_nanos() as Nanos;
/// The pause between two operations of one client.
const PAUSE_MS: (u64, u64) = (50, 240);

pub(super) struct Client {
    node: Arc<Node>,
    rng: Rng,
    /// The newest version that this client has seen, as a cookie would carry it.
    carried: Option<(Uuid, Version)>,
}

pub(super) async fn run(node: Arc<Node>, number: usize, mut stopped: watch::Receiver<bool>) {
    let rng = node.rng.fork(number as u64 + 1);
    let mut client = Client::new(node, rng);
    loop {
        client.step().await;
        let pause = client.rng.millis(PAUSE_MS.0, PAUSE_MS.1);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}

impl Client {
    pub(super) fn new(node: Arc<Node>, rng: Rng) -> Self {
        Self { node, rng, carried: None }
    }

    async fn step(&mut self) {
        match self.rng.below(1_000) {
            0..490 => self.read_some(false).await,
            490..560 => self.read_some(true).await,
            560..640 => self.read_carried().await,
            640..965 => self.write().await,
            965..975 => self.list().await,
            975..980 => self.delete_user().await,
            980..984 => self.unelevate().await,
            984..987 => self.evict_user().await,
            _ => self.read_ended().await,
        }
    }

    // --- reads ---------------------------------------------------------------------------------------------------

    async fn read_some(&mut self, refresh: bool) {
        let slot = match self.rng.below(100) {
            0..40 => self.focus(0),
            40..70 => self.focus(1),
            70..85 => self.focus(2),
            _ => self.rng.index(CLIENT_PLACES),
        };
        let Some(session) = self.current_session(slot).await else { return };
        if self.read(session, refresh, None).await.is_some_and(|found| found.is_none()) {
            self.begin(slot, session).await;
        }
    }

    async fn read_carried(&mut self) {
        if let Some((session, version)) = self.carried {
            self.read(session, false, Some(version)).await;
        }
    }

    /// What a slot held before: usually gone, and never to come back.
    async fn read_ended(&mut self) {
        let slot = self.focus(1);
        if let Ok(entry) = self.node.slots.read(slot)
            && !entry.before.is_nil()
        {
            self.read(entry.before, false, None).await;
        }
    }

    /// `None` if there was an error.
    pub(super) async fn read(
        &mut self,
        session: Uuid,
        refresh: bool,
        at_least: Option<Version>,
    ) -> Option<Option<Session>> {
        let mut get = self.node.manager.get(SessionId::from_uuid(session));
        if let Some(version) = at_least {
            get = get.min_version(version);
        }
        if refresh {
            get = get.bypass_cache();
        }
        let from = now();
        let answer = get.await;
        let to = now();
        let (found, cached) = match &answer {
            Ok(Some(session)) => (Found::Seen(self.look(session)), session.is_from_cache()),
            Ok(None) => (Found::Gone, false),
            Err(error) => (Found::Failed(format!("{:?}", error.kind())), false),
        };
        let at_least = at_least.map_or(0, Version::get);
        self.node.journal.write(&Entry::Read(Read { session, from, to, at_least, cached, found }));
        answer.ok()
    }

    async fn list(&mut self) {
        let user = self.rng.index(USERS);
        if let Ok(sessions) = self.node.manager.user(user as i64).list().await {
            self.node.journal.write(&Entry::Listed(Listed { user, count: sessions.len() }));
        }
    }

    // --- writes --------------------------------------------------------------------------------------------------

    async fn write(&mut self) {
        let slot = if self.rng.chance(90) { self.focus(0) } else { self.rng.index(CLIENT_PLACES) };
        let Some(session) = self.current_session(slot).await else { return };
        let outcome = match self.rng.below(100) {
            0..60 => self.update(session).await,
            60..90 => self.modify(session).await,
            90..96 => self.rotate(slot, session).await,
            96..99 => self.delete(session).await,
            _ => self.delete_by_old_id(slot).await,
        };
        if matches!(outcome, Some(Outcome::Gone)) {
            self.begin(slot, session).await;
        }
    }

    /// Blind, checked, or with an end for the session itself; and perhaps with what may end by itself.
    pub(super) async fn update(&mut self, session: Uuid) -> Option<Outcome> {
        let mut handle = self.read(session, false, None).await??;
        let elevates = match self.rng.below(100) {
            0..10 => Elevates::ForAWhile,
            10..18 => Elevates::ToTheEnd,
            18..22 => Elevates::NoMore,
            _ => Elevates::AsBefore,
        };
        let op = self.intend(Change::Update { session, elevates });
        let way = self.rng.below(100);
        let soon = self.rng.millis(200, 1_500);
        let elevated = Padded::new(op, &mut self.rng);
        let set = sign(&mut handle, op, &mut self.rng).and_then(|()| match elevates {
            Elevates::ForAWhile => handle.set_for("elevated", &elevated, soon),
            Elevates::ToTheEnd => handle.set("elevated", &elevated),
            Elevates::NoMore => {
                handle.remove("elevated");
                Ok(())
            }
            Elevates::AsBefore => Ok(()),
        });
        if let Err(error) = set {
            return Some(self.answer(op, Outcome::Refused(error.to_string())));
        }
        let update = self.node.manager.save(&mut handle);
        let outcome = match way {
            0..40 => update.await,
            40..60 => update.check_version().await,
            60..80 => update.check_attributes().await,
            80..85 => update.expires_in(soon).await,
            _ => update.await,
        };
        let outcome = self.outcome_of(outcome.map(|()| handle));
        Some(self.answer(op, outcome))
    }

    async fn modify(&mut self, session: Uuid) -> Option<Outcome> {
        let op = self.intend(Change::Modify { session });
        let rng = &mut self.rng;
        let modified = self.node.manager.modify(SessionId::from_uuid(session), |session| {
            let n = session.get("n")?.map_or(0, |padded: Padded<i64>| padded.0);
            session.set("n", &Padded::new(n + 1, rng))?;
            sign(session, op, rng)
        });
        let outcome = modified.await;
        let outcome = self.outcome_of(outcome);
        Some(self.answer(op, outcome))
    }

    /// The session was rotated, and the old one answers for a grace or not at all. An anonymous session may
    /// become a user's: a login, which takes the place of one of the user's sessions.
    async fn rotate(&mut self, slot: usize, session: Uuid) -> Option<Outcome> {
        let mut handle = self.read(session, false, None).await??;
        let logs_in = user_of(slot).is_none() && self.rng.chance(60);
        let place = if logs_in { self.rng.index(SLOTS) } else { slot };
        let user = user_of(place);
        let keeps = !logs_in || self.rng.chance(50);
        let grace = if self.rng.chance(50) { Duration::ZERO } else { self.rng.millis(200, 3_000) };
        let op = self.intend(Change::Rotate { session, user, keeps, grace: nanos(grace) });
        if let Err(error) = sign(&mut handle, op, &mut self.rng) {
            return Some(self.answer(op, Outcome::Refused(error.to_string())));
        }
        let rotate = self.node.manager.rotate(&mut handle).grace(grace);
        let rotated = match user {
            Some(user) if logs_in && keeps => rotate.user(user as i64).keep(["n", "elevated"]).await,
            Some(user) if logs_in => rotate.user(user as i64).await,
            _ => rotate.await,
        };
        let outcome = self.outcome_of(rotated.map(|()| handle));
        let outcome = self.answer(op, outcome);
        if let Outcome::Made { session: new, .. } = outcome {
            let old = self.node.slots.read(place).ok()?.now;
            self.node.slots.replace(place, if logs_in { old } else { session }, new).ok()?;
            if logs_in {
                self.node.slots.replace(slot, session, Uuid::nil()).ok()?;
            }
        }
        Some(outcome)
    }

    async fn delete(&mut self, session: Uuid) -> Option<Outcome> {
        let op = self.intend(Change::Delete { session });
        let node = Arc::clone(&self.node);
        // Whether it was alive or not: it is gone.
        let outcome = self.revoke(op, node.manager.delete(SessionId::from_uuid(session))).await;
        Some(self.answer(op, outcome))
    }

    /// By what the slot held before: if that was rotated, a request in flight logs out.
    async fn delete_by_old_id(&mut self, slot: usize) -> Option<Outcome> {
        let before = self.node.slots.read(slot).ok()?.before;
        if !before.is_nil() {
            self.delete(before).await;
        }
        None
    }

    async fn delete_user(&mut self) {
        let Some(user) = user_of(self.focus(0)) else { return };
        let op = self.intend(Change::DeleteUser { user });
        let node = Arc::clone(&self.node);
        let user = node.manager.user(user as i64);
        let outcome = self.revoke(op, user.delete()).await;
        self.answer(op, outcome);
    }

    async fn evict_user(&mut self) {
        let Some(user) = user_of(self.focus(0)) else { return };
        let op = self.intend(Change::EvictUser { user });
        let node = Arc::clone(&self.node);
        let user = node.manager.user(user as i64);
        let outcome = self.revoke(op, user.evict()).await;
        self.answer(op, outcome);
    }

    /// Waits for this node only, or for all.
    async fn revoke<T: 'static>(&mut self, op: Op, revocation: Revocation<'_, T>) -> Outcome {
        if self.rng.chance(50) {
            return revocation.await.map_or_else(of_error, |_| Outcome::Gone);
        }
        match revocation.everywhere().await {
            Ok(Everywhere { acknowledged, lapsed, took, .. }) => {
                let entry = Entry::Everywhere { op, took: nanos(took), acknowledged, lapsed };
                self.node.journal.write(&entry);
                Outcome::Gone
            }
            Err(error) => of_error(error),
        }
    }

    async fn unelevate(&mut self) {
        let Some(user) = user_of(self.focus(0)) else { return };
        let op = self.intend(Change::Unelevate { user });
        let removed = self.node.manager.user(user as i64).remove_attribute("elevated").await;
        self.answer(op, removed.map_or_else(of_error, |_| Outcome::Gone));
    }

    /// A new session for the slot, in the place of `old`.
    async fn begin(&mut self, slot: usize, old: Uuid) -> Option<Uuid> {
        let user = user_of(slot);
        let op = self.intend(Change::Create { user });
        let create = match user {
            Some(user) => self.node.manager.create(user as i64),
            None => self.node.manager.create_anonymous(),
        };
        let (a, b) = (Padded::new(op, &mut self.rng), Padded::new(op, &mut self.rng));
        let mut create = create.set("a", &a).set("b", &b);
        if self.rng.chance(10) {
            create = create.expires_in(self.rng.millis(500, 5_000));
        }
        let outcome = self.outcome_of(create.await.map_err(UpdateError::Failed));
        let Outcome::Made { session, .. } = self.answer(op, outcome) else { return None };
        // Only now may other clients find the session. If the write fails, the slot keeps an ended session and gets another.
        self.node.slots.replace(slot, old, session).ok()?;
        Some(session)
    }

    // --- what was intended, and what came of it ----------------------------------------------------------------------

    fn intend(&self, change: Change) -> Op {
        let op = self.node.next_op();
        self.node.journal.write(&Entry::Intent(Intent { op, at: now(), change }));
        op
    }

    fn answer(&self, op: Op, outcome: Outcome) -> Outcome {
        let at = now();
        self.node.journal.write(&Entry::Answer(Answer { op, at, outcome: outcome.clone() }));
        outcome
    }

    fn outcome_of(&mut self, outcome: Result<Session, UpdateError>) -> Outcome {
        match outcome {
            Ok(session) => {
                self.carried = Some((session.id().expose(), session.version()));
                Outcome::Made { session: session.id().expose(), seen: self.look(&session) }
            }
            Err(UpdateError::NotFound) => Outcome::Gone,
            Err(UpdateError::Conflict { .. }) => Outcome::Refused("Conflict".to_owned()),
            Err(UpdateError::Rotated) => Outcome::Refused("Rotated".to_owned()),
            Err(UpdateError::Failed(error)) => of_error(error),
            Err(other) => Outcome::Refused(other.to_string()),
        }
    }

    /// Everything that is checked of a session. An attribute that is missing or does not decode is a 0, which no
    /// operation ever writes.
    fn look(&self, session: &Session) -> Seen {
        let number = |key| session.get(key).ok().flatten().map_or(0, |padded: Padded<u64>| padded.0);
        let version = |key| session.attribute_version(key).map_or(0, Version::get);
        Seen {
            version: session.version().get(),
            ends: since_epoch(session.expires_at()),
            rotated: session.is_retired(),
            a: number("a"),
            b: number("b"),
            a_version: version("a"),
            b_version: version("b"),
            n: session.get("n").ok().flatten().map_or(0, |padded: Padded<i64>| padded.0),
            elevated: number("elevated"),
            elevated_version: version("elevated"),
            elevated_until: session.attribute_expires_at("elevated").map(since_epoch),
        }
    }

    // --- where to look ------------------------------------------------------------------------------------------------

    fn focus(&mut self, ago: u64) -> usize {
        focus(&self.node.plan, ago, &mut self.rng)
    }

    pub(super) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Pins a session that others write to, or are about to end.
    pub(super) async fn pin_some(&mut self) -> Option<(Uuid, Pin)> {
        let slot = if self.rng.chance(70) { self.focus(0) } else { self.rng.index(CLIENT_PLACES) };
        let session = self.node.slots.read(slot).ok()?.now;
        if session.is_nil() {
            return None;
        }
        let read = self.read(session, false, None).await??;
        let pin = self.node.manager.pin(&read).await.ok()?;
        Some((session, pin))
    }

    /// The session of a place, read to have it in memory; none if it is gone, and then made anew by the caller that `begins`.
    pub(super) async fn on_place(&mut self, place: usize, begins: bool) -> Option<Uuid> {
        let session = self.node.slots.read(place).ok()?.now;
        if !session.is_nil() && self.read(session, false, None).await?.is_some() {
            return Some(session);
        }
        if begins { self.begin(place, session).await } else { None }
    }

    async fn current_session(&mut self, slot: usize) -> Option<Uuid> {
        let session = self.node.slots.read(slot).ok()?.now;
        if session.is_nil() { self.begin(slot, session).await } else { Some(session) }
    }
}

/// A slot that is in the focus now, or was so `ago` epochs ago: the same ones in every process.
pub fn focus(plan: &NodePlan, ago: u64, rng: &mut Rng) -> usize {
    let epoch = (now() / EPOCH).saturating_sub(ago);
    let which = rng.index(FOCUS);
    let mut places = Rng::new(plan.seed).fork(epoch);
    (0..=which).map(|_| places.index(CLIENT_PLACES)).last().unwrap_or(0)
}

fn sign(session: &mut Session, op: Op, rng: &mut Rng) -> Result<(), pg_session::Error> {
    session.set("a", &Padded::new(op, rng))?;
    session.set("b", &Padded::new(op, rng))
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn of_error(error: pg_session::Error) -> Outcome {
    match error.kind() {
        ErrorKind::OutcomeUnknown => Outcome::Unknown,
        kind => Outcome::Refused(format!("{kind:?}")),
    }
}

fn since_epoch(time: std::time::SystemTime) -> Nanos {
    time.duration_since(UNIX_EPOCH).map_or(0, |since: Duration| nanos(since))
}

const _: () = assert!(SLOTS_PER_USER <= crate::plan::SESSIONS_PER_USER_MAX as usize);
