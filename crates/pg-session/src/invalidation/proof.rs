//! Proves that this node receives what its pool commits: a beat through the pool, and a tick that contains it.
//!
//! The listener's own barrier proves that its connection delivers everything that was committed *on
//! its server*. It says nothing about the server that the pool writes to. After a failover, a
//! redirected pooler or a mistake in `listen_on`, these are two servers or two databases. The node
//! would trust a listener that never receives a revocation.
//!
//! So each node writes a random token into its row of the registry, on a connection of the pool: a beat. A tick is one
//! notification with the tokens of all rows. Any node sends it that beats and has not received one for a while. So N nodes
//! cost N beats and one tick, not N notifications to N listeners.
//!
//! ```text
//! this node      s ── beat: token in its row ─┐              … all earlier notifications … tick ── trusted until s + trust_window
//! any node                                    └── reads the rows ── pg_notify(tokens) ──────┘
//! ```
//!
//! The statement of a tick that contains the token began after s. PostgreSQL delivers notifications in the order of their
//! commits. So every change that was committed before s is handled before the tick. The arrival of a tick without the token
//! proves nothing: it may have waited in a queue.
//!
//! Any role can send notifications on the channel. Only tokens that this node has sent count, and they are random. A tick that is
//! sent again proves what it has proved before.
//!
//! A node is trusted only by a token in its row, so each trusted node has a row. `everywhere()` relies on that. The same
//! rows say what a node has handled: see [`Prover::request`].
//!
//! A node without a listener keeps its row, so that operators see it, and says since when. Its beats carry tokens
//! that prove nothing. It says so only when the window has passed since its last proof: until then, pins rest on it.
//! So `everywhere()` need not wait for such a row. The node serves nothing. Its next trust begins with a tick behind
//! a beat that it has not sent yet.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pg_listen::Listener;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::trust::Trust;
use crate::clock::Tick;
use crate::core::{Core, Tasks};
use crate::error::Error;
use crate::failpoints::Guard;
use crate::notification::{ServerId, Token};
use crate::postgres::nodes::{Beat, NodeBeat, Registered};

/// Beats each trust window. A beat and its tick may each be this much of the window old, and two statements may fail.
pub(crate) const BEATS_PER_WINDOW: u32 = 4;
/// A node that beats sends a tick, too, if the last one came before these quarters of the interval.
const TICK_QUARTERS: u32 = 3;
/// The shortest wait for a tick to come back.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Beats that no tick has contained. Earlier ones are forgotten: they would prove less.
const PENDING_MAX: usize = 16;
/// Requests in a node's row, and as many that wait for lookups of pins. A caller looks for its own 30 times a second. One that
/// finds it pushed out waits for the window.
const HEARD_MAX: usize = 64;
/// How long the end of the node waits for a beat in flight. One that is not waited for may be committed after the node has removed its
/// row, and insert it again.
const LAST_BEAT_WAIT: Duration = Duration::from_secs(1);
/// The clocks of two machines differ by at most one in so many. NTP slews both at its limit of 500
/// ppm.
const CLOCK_DRIFT_PART: u32 = 1_000;

/// The pause before a beat that replaces one whose tick proved nothing.
const REPEAT_PAUSE: Duration = Duration::from_millis(50);

/// Sends the beats, and recognises them in the ticks.
pub(crate) struct Prover {
    core: Arc<Core>,
    trust: Arc<Trust>,
    listener: Listener,
    /// The name of this node in the registry.
    node: Uuid,
    /// The settings that all nodes must share, as JSON.
    settings: Arc<str>,
    interval: Duration,
    wait: Duration,
    /// Asks for a proof now.
    wanted: Notify,
    /// Asks for a beat that says what was handled.
    acknowledge: Notify,
    /// A tick with a beat of this node came, and proves nothing.
    unproved: Notify,
    /// Whether LISTEN is in force. Each change ends the wait for a tick: it may have been committed before.
    listening: watch::Sender<bool>,
    state: Mutex<State>,
    /// Whether the memory is to be verified after the next proof.
    unverified: AtomicBool,
    /// Asks for that.
    resync: Arc<Notify>,
    attempts: watch::Sender<Attempts>,
}

#[derive(Default)]
struct State {
    /// Beats that no tick has contained, the oldest first.
    pending: VecDeque<Pending>,
    /// When the last tick was received.
    ticked: Option<Tick>,
    /// The last requests that were handled, the oldest first.
    heard: VecDeque<i64>,
    /// Requests that were received while pins were doubted, each with the number of the last doubt.
    unsettled: VecDeque<(u64, i64)>,
    registration: Option<Registration>,
}

#[derive(Clone, Copy)]
struct Pending {
    token: Token,
    as_of: Tick,
}

/// The node's row, as the node knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    /// The beat that inserted it.
    pub(crate) first_beat: i64,
    /// It was there at this time.
    pub(crate) since: Tick,
}

/// The attempts so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempts {
    /// When the last attempt began that failed.
    pub(crate) failed: Option<Tick>,
    /// Why, if the beat could not be sent; otherwise its tick was committed and not received.
    pub(crate) error: Option<Arc<Error>>,
    /// Ticks in a row that this node has committed and not received.
    pub(crate) unreceived: u64,
    /// Whether the last one was committed, and is not received yet.
    pub(crate) committed: bool,
}

/// Why a beat is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The interval has passed.
    Due,
    /// A proof is wanted now.
    Wanted,
    /// A request was handled.
    Acknowledgement,
}

/// What the task remembers from beat to beat.
struct Beats {
    number: i64,
    token: Token,
    /// Other rows: their beats, and when each was seen first.
    seen: HashMap<Uuid, (i64, Tick)>,
}

/// How long another node may be trusted after a time that this one has measured. It is the window,
/// by a slower clock.
pub(crate) fn window_elsewhere(trust_window: Duration) -> Duration {
    trust_window + trust_window / CLOCK_DRIFT_PART
}

/// Appends, and forgets the oldest beyond [`HEARD_MAX`].
fn push<T>(queue: &mut VecDeque<T>, last: T) {
    if queue.len() == HEARD_MAX {
        queue.pop_front();
    }
    queue.push_back(last);
}

async fn after(stop: &CancellationToken, time: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(time).await;
}

impl Prover {
    /// Starts the task.
    pub(crate) fn spawn(
        core: &Arc<Core>,
        tasks: &Tasks,
        trust: &Arc<Trust>,
        listener: &Listener,
        resync: &Arc<Notify>,
    ) -> Arc<Self> {
        let trust_window = core.config.trust_window;
        let interval = trust_window / BEATS_PER_WINDOW;
        let prover = Arc::new(Self {
            core: Arc::clone(core),
            trust: Arc::clone(trust),
            listener: listener.clone(),
            node: Uuid::new_v4(),
            settings: core.config.shared_settings().into(),
            interval,
            // One that takes longer than the rest of the window cannot renew the trust in time.
            wait: (trust_window - interval).max(WAIT_MIN),
            wanted: Notify::new(),
            acknowledge: Notify::new(),
            unproved: Notify::new(),
            listening: watch::Sender::new(false),
            state: Mutex::default(),
            unverified: AtomicBool::new(false),
            resync: Arc::clone(resync),
            attempts: watch::Sender::default(),
        });
        tasks.serving.spawn(|stop| Arc::clone(&prover).run(stop));
        prover
    }

    /// Beats until stopped.
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut listening = self.listening.subscribe();
        let mut beats = Beats { number: 0, token: Token(0), seen: HashMap::new() };
        while !stop.is_cancelled() {
            let is_listening = *listening.borrow_and_update();
            let beating = async {
                if is_listening {
                    self.beat_while_listening(&mut beats, &mut listening, &stop).await;
                } else {
                    self.beat_without_listener(&mut beats, &mut listening, &stop).await;
                }
            };
            tokio::select! {
                () = beating => {}
                () = after(&stop, LAST_BEAT_WAIT) => return,
            }
        }
    }

    /// Says at each interval that the node has no listener, until it has one, or the node ends.
    async fn beat_without_listener(
        &self,
        beats: &mut Beats,
        listening: &mut watch::Receiver<bool>,
        stop: &CancellationToken,
    ) {
        let lost = self.core.policy.clock.now();
        let mut pause = self.interval.max(self.proved_for());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // An error means that the sender is gone, which `self` keeps.
                _ = listening.changed() => return,
                () = tokio::time::sleep(pause) => {}
            }
            // The timer and the clock may differ.
            pause = self.proved_for();
            if pause.is_zero() {
                pause = self.interval;
                // Not dropped half-way, as below.
                self.beat_lost(beats, lost).await;
            }
        }
    }

    /// For how long the last proof holds, for pins.
    fn proved_for(&self) -> Duration {
        let proved = self.trust.watch().borrow().proved;
        if proved == Tick::ZERO || !self.core.failpoints.holds(Guard::LossAfterWindow) {
            return Duration::ZERO;
        }
        proved.plus(self.core.config.trust_window).since(self.core.policy.clock.now())
    }

    /// Sends a beat that proves nothing. If it fails, the next one comes soon.
    async fn beat_lost(&self, beats: &mut Beats, lost: Tick) {
        beats.number += 1;
        let listener_lost = Some(self.core.policy.clock.now().since(lost));
        let beat = Beat { listener_lost, ..self.next_beat(beats, Token::random()) };
        match self.core.database.beat(&beat, self.wait).await {
            Ok(registered) => self.registered(beats, &registered).await,
            Err(failure) => debug!(error = %failure.error, "no beat could be sent without a listener"),
        }
    }

    /// What a beat has beside its reason.
    fn next_beat(&self, beats: &Beats, token: Token) -> Beat {
        let now = self.core.policy.clock.database_now();
        Beat {
            node: self.node,
            number: beats.number,
            token,
            heard: self.state().heard.iter().copied().collect(),
            tick: false,
            listener_lost: None,
            version: env!("CARGO_PKG_VERSION"),
            settings: Arc::clone(&self.settings),
            keys: serde_json::json!(self.core.key_uses.report(now.into())).to_string(),
        }
    }

    /// Beats until the listener's connection changes, or the node ends. It does so at once, at each
    /// interval and when it is asked to.
    async fn beat_while_listening(
        &self,
        beats: &mut Beats,
        listening: &mut watch::Receiver<bool>,
        stop: &CancellationToken,
    ) {
        let mut changes = self.trust.watch();
        let mut reason = Reason::Wanted;
        let mut due = Instant::now();
        // When the first tick was sent that is to come, and until when.
        let mut awaited: Option<(Tick, Instant)> = None;
        loop {
            if reason != Reason::Acknowledgement {
                due = Instant::now() + self.interval;
            }
            // Not dropped half-way: its connection would go back to the pool with an answer that may never come.
            if let Some(as_of) = self.beat(beats, reason).await {
                awaited = awaited.or(Some((as_of, Instant::now() + self.wait)));
            }
            reason = loop {
                let (as_of, late) = awaited.unwrap_or((Tick::ZERO, due));
                tokio::select! {
                    () = tokio::time::sleep_until(due) => break Reason::Due,
                    () = self.wanted.notified() => break Reason::Wanted,
                    () = self.acknowledge.notified() => break Reason::Acknowledgement,
                    () = self.unproved_for_a_while() => break Reason::Wanted,
                    _ = listening.changed() => return,
                    () = stop.cancelled() => return,
                    _ = changes.wait_for(|state| state.proved >= as_of), if awaited.is_some() => awaited = None,
                    () = tokio::time::sleep_until(late), if awaited.is_some() => {
                        awaited = None;
                        self.failed(as_of, None);
                        self.check_connection();
                    }
                }
            };
        }
    }

    /// Ends some time after a tick that proves nothing: the listener's statement has ended by then.
    async fn unproved_for_a_while(&self) {
        self.unproved.notified().await;
        tokio::time::sleep(REPEAT_PAUSE).await;
    }

    /// Sends one beat. Returns its time if it has sent a tick, which is to come back.
    async fn beat(&self, beats: &mut Beats, reason: Reason) -> Option<Tick> {
        // Before the beat is sent, so never later than its commit.
        let as_of = self.core.policy.clock.now();
        beats.number += 1;
        if reason != Reason::Acknowledgement {
            beats.token = Token::random();
            let mut state = self.state();
            if state.pending.len() == PENDING_MAX {
                state.pending.pop_front();
            }
            state.pending.push_back(Pending { token: beats.token, as_of });
        }
        let tick = match reason {
            Reason::Wanted => true,
            Reason::Due => self.is_tick_due(as_of),
            Reason::Acknowledgement => false,
        };
        let beat = Beat { tick, ..self.next_beat(beats, beats.token) };
        let database = &self.core.database;
        let sent = match reason {
            Reason::Acknowledgement => database.acknowledge(&beat, self.wait).await,
            Reason::Due | Reason::Wanted => database.beat(&beat, self.wait).await,
        };
        match sent {
            Ok(registered) => {
                self.registered(beats, &registered).await;
                if tick {
                    self.attempts.send_modify(|attempts| attempts.committed = true);
                }
                tick.then_some(as_of)
            }
            Err(failure) => {
                self.failed(as_of, Some(Arc::new(failure.into_read_error())));
                None
            }
        }
    }

    fn is_tick_due(&self, now: Tick) -> bool {
        let quiet = self.interval / 4 * TICK_QUARTERS;
        self.state().ticked.is_none_or(|ticked| now.since(ticked) >= quiet)
    }

    /// The beat is committed.
    async fn registered(&self, beats: &mut Beats, registered: &Registered) {
        // The pool may lead to another server now: that ends trust.
        self.core.is_proved(registered.server);
        let now = self.core.policy.clock.now();
        {
            let mut state = self.state();
            let known = state.registration.map(|registration| registration.first_beat);
            if known != registered.first_beat {
                state.registration =
                    registered.first_beat.map(|first_beat| Registration { first_beat, since: now });
            }
        }
        self.remove_silent(beats, &registered.rows, now).await;
    }

    /// Removes the rows of nodes that have ended without a goodbye. If a node's beat has not moved for a window of its
    /// own clock, the node is not trusted.
    async fn remove_silent(&self, beats: &mut Beats, rows: &[NodeBeat], now: Tick) {
        if rows.is_empty() {
            return;
        }
        let seen = std::mem::take(&mut beats.seen);
        let window = window_elsewhere(self.core.config.trust_window);
        let mut silent = Vec::new();
        for &row in rows {
            let since = match seen.get(&row.node) {
                Some(&(beat, since)) if beat == row.beat => since,
                _ => now,
            };
            beats.seen.insert(row.node, (row.beat, since));
            if row.node != self.node && now.since(since) >= window {
                silent.push(row);
            }
        }
        if silent.is_empty() {
            return;
        }
        match self.core.database.remove_nodes(&silent).await {
            Ok(()) => debug!(nodes = silent.len(), "removed the rows of nodes that have ended"),
            // The next tick tries again.
            Err(failure) => debug!(error = %failure.error, "the rows of ended nodes could not be removed"),
        }
    }

    /// LISTEN is in force on a new connection, or the connection is lost.
    pub(crate) fn set_listening(&self, listening: bool) {
        if listening {
            // What was missed may have ended pinned sessions. A request for acknowledgement may come before the first proof.
            self.core.pins.doubt_all();
            self.unverified.store(true, Ordering::Relaxed);
            // The first beat of the connection proves more.
            self.forget_beats();
        }
        self.listening.send_replace(listening);
    }

    /// The pool leads to another server: beats that were sent before prove nothing about it.
    pub(crate) fn forget_beats(&self) {
        self.state().pending.clear();
    }

    /// Asks for a proof that begins after this call.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Each attempt that failed.
    pub(crate) fn watch(&self) -> watch::Receiver<Attempts> {
        self.attempts.subscribe()
    }

    /// The name of this node in the registry.
    pub(crate) fn node(&self) -> Uuid {
        self.node
    }

    /// The node's row, as far as it is known.
    pub(crate) fn registration(&self) -> Option<Registration> {
        self.state().registration
    }

    /// A tick was received that proves nothing. If it has a beat of this node, another beat is sent soon.
    pub(crate) fn unproved(&self, tokens: &[Token]) {
        if self.state().pending.iter().any(|pending| tokens.contains(&pending.token)) {
            self.unproved.notify_one();
        }
    }

    /// A tick was received. The invalidation task calls this after it has handled all earlier notifications.
    ///
    /// `server` is where the pool led to. If it is another one than at the proof before, what is in memory is verified before
    /// it is served.
    pub(crate) fn ticked(&self, server: ServerId, tokens: &[Token]) {
        let now = self.core.policy.clock.now();
        let proved = {
            let mut state = self.state();
            state.ticked = Some(now);
            let is_proved = |pending: &Pending| {
                tokens.contains(&pending.token) || !self.core.failpoints.holds(Guard::OwnBeat)
            };
            let newest = state.pending.iter().rposition(is_proved);
            newest.and_then(|newest| state.pending.drain(..=newest).next_back())
        };
        let Some(Pending { as_of, .. }) = proved else { return };
        if self.core.set_proved(server) != Some(server) {
            self.core.cache.begin_epoch();
            // Before this proof counts for the pins.
            self.core.pins.doubt_all();
            self.unverified.store(true, Ordering::Relaxed);
        }
        if self.unverified.swap(false, Ordering::Relaxed) {
            self.resync.notify_one();
        }
        self.trust.prove(as_of);
        self.core.contention.registered(as_of.plus(self.core.config.trust_window));
        self.attempts.send_modify(|attempts| {
            (attempts.unreceived, attempts.committed, attempts.error) = (0, false, None);
        });
    }

    /// A request for acknowledgement was received. The invalidation task calls this after it has handled all earlier
    /// notifications. They have doubted pins, which count as alive until they are looked up. So the request waits for that.
    pub(crate) fn request(&self, request: Token) {
        let mut state = self.state();
        // Under the lock: the lookup may be answered between.
        let last_doubt = self.core.pins.last_doubt();
        match last_doubt.filter(|_| self.core.failpoints.holds(Guard::HeardWhenSettled)) {
            Some(doubt) => push(&mut state.unsettled, (doubt, request.0)),
            None => {
                push(&mut state.heard, request.0);
                self.acknowledge.notify_one();
            }
        }
    }

    /// All pins that were doubted before the question `question` were looked up.
    pub(crate) fn settled(&self, question: u64) {
        let mut state = self.state();
        let mut any = false;
        while let Some(&(doubt, request)) = state.unsettled.front()
            && doubt <= question
        {
            state.unsettled.pop_front();
            push(&mut state.heard, request);
            any = true;
        }
        if any {
            self.acknowledge.notify_one();
        }
    }

    /// The listener answers pings, but may receive no notifications. Its barrier then ends the connection, and another one is
    /// made.
    fn check_connection(&self) {
        let listener = self.listener.clone();
        // It ends with the barrier's timeout, or with the listener.
        tokio::spawn(async move {
            if let Err(error) = listener.barrier().await {
                debug!(%error, "no barrier of the listener came back");
            }
        });
    }

    fn failed(&self, as_of: Tick, error: Option<Arc<Error>>) {
        self.attempts.send_modify(|attempts| {
            attempts.failed = Some(as_of);
            attempts.unreceived += u64::from(error.is_none());
            attempts.error = error;
        });
        let unreceived = self.attempts.borrow().unreceived;
        // A listener that is not connected is reported as lost.
        if unreceived.is_power_of_two() && self.attempts.borrow().error.is_none() {
            warn!(
                unreceived,
                "the listener did not receive what the pool committed; the node reads from the database until it does. \
                 If this lasts, `listen_on` and the pool reach different databases or servers"
            );
        } else {
            debug!(unreceived, "no proof of the listener's connection");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
