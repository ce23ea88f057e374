//! The invalidation lane. Notifications drop what they name and wake waiters of locks. Proofs renew
//! the trust, a lost connection ends it.
//!
//! States of a node, as its subscription reports them:
//!
//! ```text
//! disconnected ──Listening──▶ listening, unproved ──proof───▶ trusted ⟲ proof
//!   ▲                         │                          │
//!   └──────────Lost───────────┴───────────Lost───────────┘      (trusted also ends by time, without an event)
//! ```
//!
//! Disconnected: hits bypass the cache, what is read is not kept. Listening: it is kept. Trusted: hits are served, if they
//! were loaded, published or verified since `Listening`. Entries of an earlier connection are verified by version: by
//! [`resync`] in chunks, and by the first read of each.

pub(crate) mod proof;
pub(crate) mod resync;
pub(crate) mod trust;

use std::sync::Arc;
use std::time::Duration;

use pg_listen::{Event as ListenerEvent, Listener, Subscription};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::proof::Prover;
use self::trust::{Ended, Trust};
use crate::cause::Cause;
use crate::config::ListenerPath;
use crate::core::{Core, Tasks};
use crate::events::Event;
use crate::failpoints::{Guard, Point};
use crate::id::{Scope, SessionId};
use crate::lock::waiters::Waiters;
use crate::notification::{EndedBy, Notification};
use crate::pins::Named;
use crate::version::Version;

/// What the invalidation task works on.
pub(crate) struct InvalidationTask {
    core: Arc<Core>,
    trust: Arc<Trust>,
    waiters: Arc<Waiters>,
    /// Verifies the memory.
    resync: Arc<Notify>,
    prover: Arc<Prover>,
}

impl InvalidationTask {
    /// Starts to handle the events, and to verify the memory after a reconnect.
    pub(crate) fn spawn(
        core: &Arc<Core>,
        tasks: &Tasks,
        events: Subscription,
        trust: &Arc<Trust>,
        waiters: &Arc<Waiters>,
        prover: &Arc<Prover>,
        resync: Arc<Notify>,
    ) {
        let task = Self {
            core: Arc::clone(core),
            trust: Arc::clone(trust),
            waiters: Arc::clone(waiters),
            resync,
            prover: Arc::clone(prover),
        };
        tasks.serving.spawn(|stop| task.run(events, stop));
        tasks.serving.spawn(|stop| report_trust(Arc::clone(core), Arc::clone(trust), stop));
    }

    /// Handles events in the order in which they come, until stopped.
    async fn run(self, mut events: Subscription, stop: CancellationToken) {
        // Dropped half-way only with its runtime.
        let mut end = TrustEnd { trust: Arc::clone(&self.trust), ended: Ended::RuntimeGone };
        let mut malformed = 0_u64;
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = self.core.another_server.notified() => {
                    warn!(
                        "the pool has reached another server than the last proof; the node reads from the database until \
                         the listener receives what the pool commits"
                    );
                    // Until the next proof, which verifies the memory.
                    self.trust.revoke();
                    self.prover.forget_beats();
                    continue;
                }
                () = stop.cancelled() => None,
            };
            match event {
                Some(ListenerEvent::Notification(notification)) => {
                    match Notification::parse(notification.payload()) {
                        Ok(Notification::Tick(_, tokens)) if !self.proves(&notification) => {
                            self.prover.unproved(&tokens);
                        }
                        Ok(message) => self.apply(message).await,
                        Err(_) => {
                            malformed += 1;
                            // Any role can send these: a flood must not fill the log.
                            if malformed.is_power_of_two() {
                                warn!(
                                    malformed,
                                    sender = notification.process_id(),
                                    "ignored malformed notifications on the session channel; another client sends on it"
                                );
                            }
                        }
                    }
                }
                Some(ListenerEvent::Listening) => {
                    self.core.cache.start_listening();
                    self.core.contention.restart();
                    self.waiters.connect();
                    // The memory is verified after the first proof, by the server that it names.
                    self.prover.set_listening(true);
                }
                // The listener's own barrier says nothing about the server that the pool writes to.
                Some(ListenerEvent::InSync { .. }) => {}
                Some(ListenerEvent::Lost(reason)) => {
                    self.disconnect();
                    info!(%reason, "notifications may have been missed, sessions are read from the database until in sync again");
                }
                Some(_) => debug!("unknown event of the listener"),
                None => break,
            }
        }
        self.disconnect();
        end.ended = if stop.is_cancelled() { Ended::Stopped } else { Ended::ListenerClosed };
    }

    /// Whether a notification shows that the listener receives what is committed at any time. A pooler in transaction mode
    /// delivers only what comes while a statement of the listener runs.
    fn proves(&self, notification: &pg_listen::Notification) -> bool {
        self.core.config.listener_path == ListenerPath::Direct || notification.arrived_between_statements()
    }

    /// Trust first: no reader may be served under it once the epoch has moved on.
    fn disconnect(&self) {
        self.trust.revoke();
        self.prover.set_listening(false);
        self.core.stop_listening();
        self.waiters.disconnect();
    }

    async fn apply(&self, message: Notification) {
        match message {
            Notification::Changed(list) => {
                self.core.contention.received();
                list.iter().for_each(|&(id, version)| self.core.cache.invalidate(id, version));
                self.doubt_changed(&list);
            }
            Notification::Deleted(ids) => {
                ids.iter().for_each(|&id| self.core.cache.remove(id));
                self.doubt(Named::Sessions(&ids), None);
            }
            Notification::Drop(scope) => {
                // Later events wait: a proof must not be handled before the last step.
                self.core.drop_sessions(scope).await;
                if scope == Scope::All {
                    // Frees the memory.
                    self.resync.notify_one();
                }
                self.doubt(Named::Scope(scope), None);
            }
            Notification::Cause(cause, ended) => {
                debug!(%cause, ?ended, "sessions have ended");
                // With the cause comes the end, in the same commit.
                match &ended {
                    EndedBy::Sessions(ids) => {
                        let ends = self.ends(ids, cause).await;
                        self.doubt(Named::Sessions(ids), Some(cause));
                        ends.into_iter().for_each(|end| self.core.events.send(|| end));
                    }
                    EndedBy::Scope(scope) => {
                        self.doubt(Named::Scope(*scope), Some(cause));
                        self.core.events.scope_ended(*scope, cause);
                    }
                }
            }
            Notification::Released(wake) => self.waiters.wake(wake),
            Notification::Tick(server, tokens) => self.prover.ticked(server, &tokens),
            Notification::Verify => self.verify(),
            Notification::Request(request) => self.prover.request(request),
            Notification::Unknown => debug!("ignored a notification of a newer version"),
        }
    }

    /// The events of these ends, if a reader exists. To be called before the pins are doubted.
    /// The lookup that follows may end a pin, which knows its user, before the event is made.
    async fn ends(&self, ids: &[SessionId], cause: Cause) -> Vec<Event> {
        let Core { events, failpoints, .. } = &*self.core;
        if !events.has_readers() {
            return Vec::new();
        }
        // The memory first, then the notes. A login notes the user of the session that it ends, then drops the session from
        // memory. In the other order, this task could find no note and an empty memory, if the login does both in between.
        let in_memory: Vec<_> = ids.iter().map(|&id| self.core.known_user(id)).collect();
        failpoints.reach(Point::Ending).await;
        let user = |id, in_memory| events.take_ending(id).or(in_memory);
        let end = |(&id, in_memory): (&SessionId, _)| Event::Ended {
            session: id.handle(),
            user: user(id, in_memory),
            cause,
        };
        ids.iter().zip(in_memory).map(end).collect()
    }

    /// A node has ended. It may have committed an update and not have notified the others.
    fn verify(&self) {
        if !self.core.failpoints.holds(Guard::Silence) {
            return;
        }
        self.core.cache.begin_epoch();
        self.core.pins.doubt_all();
        self.resync.notify_one();
    }

    /// A pinned session that was changed may have been rotated. What the memory holds at this version, as after an update of this
    /// node, needs no lookup.
    fn doubt_changed(&self, changed: &[(SessionId, Version)]) {
        let unknown = self.core.inform_pins(changed);
        if !unknown.is_empty() {
            self.doubt(Named::Sessions(&unknown), None);
        }
    }

    /// A notification ends no pin. It leads to a lookup.
    fn doubt(&self, named: Named<'_>, cause: Option<Cause>) {
        let Core { pins, failpoints, .. } = &*self.core;
        if !failpoints.holds(Guard::PinDoubt) {
            return;
        }
        if failpoints.holds(Guard::PinLookup) {
            return pins.doubt(named, cause);
        }
        match named {
            Named::Sessions(ids) => ids.iter().for_each(|&id| pins.end(id, cause, None)),
            Named::Scope(scope) => {
                pins.for_each_of(scope, |some| some.iter().for_each(|&id| pins.end(id, cause, None)));
            }
        }
    }
}

/// Sends an event when the node becomes trusted, and when its trust has ended: by a lost connection or by time.
async fn report_trust(core: Arc<Core>, trust: Arc<Trust>, stop: CancellationToken) {
    let mut changes = trust.watch();
    let mut was_trusted = false;
    loop {
        let left = changes.borrow_and_update().until.since(core.policy.clock.now());
        let is_trusted = !left.is_zero();
        if is_trusted != was_trusted {
            core.events.trust_changed(is_trusted);
            was_trusted = is_trusted;
        }
        tokio::select! {
            // An error means that the sender is gone, which `trust` keeps.
            _ = changes.changed() => {}
            () = tokio::time::sleep(left), if is_trusted => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Ends trust for good when it is dropped.
struct TrustEnd {
    trust: Arc<Trust>,
    ended: Ended,
}

impl Drop for TrustEnd {
    fn drop(&mut self) {
        self.trust.end(self.ended);
    }
}

/// Sends a barrier at each interval over an application's listener, until stopped, so that a half-open connection is found.
pub(crate) async fn pulse(listener: Listener, interval: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stop.cancelled() => return,
        }
        // A listener that is not connected has said so to the subscription.
        if let Err(error) = listener.barrier().await {
            debug!(%error, "no barrier could be sent");
        }
    }
}
