//! The registry of nodes, shared ticks and `everywhere()`: a model of its own.
//!
//! ```text
//! node     s(k) ── beat k commits (row) ─────────────┐                    handle … tick ──▶ trusted until s(k) + window
//! any node                          read the rows ── tick with each row's beat ──┘
//! caller   revocation commits ── request r ── poll: every row has heard r, or the window has passed ──▶ return
//! node                            … revocation … r ── heard = r in its row
//! ```
//!
//! In the library: `invalidation/proof.rs`, `manager/everywhere.rs` and `postgres/nodes.rs`.
//!
//! The requests are ordered numbers, and a row has the highest one. The library compares random numbers for equality, which
//! acknowledges less. Without order, `RequestAfterCommit`, `HeardOfConnection` and `BeatOfConnection` are not needed.
//!
//! One session is revoked once. A node either has its old state in memory or not. How it came there and how a fill is
//! refused is the business of the other model. A node that has it also has a pin. A lookup of the pin is one step here; the
//! pins' model looks at its parts. Time is counted in ticks. A node's clock may lose one of them.

mod node;
mod steps;

use arrayvec::ArrayVec;

/// The trust window, in ticks.
const WINDOW: u8 = 1;
/// What is added to the window when another clock measures it.
const ALLOWANCE: u8 = 1;
const NODES_MAX: usize = 2;
const EVENTS_MAX: usize = 12;
const BEATS_MAX: usize = 8;
/// More than the longest queue, a reconnect, a beat and a tick take.
const RECOVERY_STEPS_MAX: usize = 30;

macro_rules! guards {
    ($($(#[$comment:meta])+ $guard:ident,)+) => {
        /// A check or an order of steps of the registry, which can be taken away.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum RegistryGuard {
            $($(#[$comment])+ $guard,)+
        }

        impl RegistryGuard {
            pub const ALL: &[Self] = &[$(Self::$guard),+];
        }
    };
}

guards! {
    /// A tick proves a node only if it contains a beat of that node. Without: by its mere arrival.
    OwnBeat,
    /// It proves it as of the time before that beat was sent. Without: as of the answer.
    AsOfBeforeSending,
    /// Nothing is served before the first beat is committed. Without: a private barrier proves a node that has no row.
    FirstBeat,
    /// A beat that comes late does not replace a newer one.
    NewestBeat,
    /// The request is numbered after the revocation is committed. Without: before.
    RequestAfterCommit,
    /// The rows are read after the revocation is committed. Without: at the start, when there were none.
    RowsAfterCommit,
    /// A request is acknowledged when all notifications before it were handled. Without: when it arrives.
    HeardInOrder,
    /// What was heard on one connection is not acknowledged on the next, where numbers may occur again.
    HeardOfConnection,
    /// A beat that was sent before the connection proves nothing on it: its row says what was heard before.
    BeatOfConnection,
    /// A row is removed when its beat has not moved for the window and the allowance. Without: for the window.
    RemovalAllowance,
    /// Only if the beat still has not moved.
    RemovalOfSeenBeat,
    /// `everywhere()` lapses after the window and the allowance. Without: after the window.
    LapseAllowance,
    /// It does so whatever the rows show. Without: it waits for rows that move and never hear.
    Lapse,
    /// It returns early only if the caller's own row is older than that. A crash empties the registry, but nodes that have
    /// not noticed are trusted.
    CompleteRegistry,
    /// A node that leaves removes its row after its trust.
    TrustEndsFirst,
    /// A row says that its node has lost the listener only when the window has passed since the last proof: pins rest on it.
    /// `everywhere()` does not wait for such a row. Without: as soon as the memory is not trusted.
    LossAfterWindow,
    /// A request is acknowledged when the pins that were doubted before it were looked up. Without: at once.
    HeardWhenSettled,
    /// Pins are doubted when LISTEN is in force after a gap. Without: before the first proof, which may be behind a request.
    DoubtWhenListening,
    /// A beat that says so proves nothing, because `everywhere()` has not waited for its node. Without: it is awaited.
    LossProvesNothing,
}

/// The bounds of a search.
#[derive(Clone, Copy, Debug)]
pub struct Registry {
    pub nodes: usize,
    /// Beats of each node.
    pub beats: u8,
    pub ticks: u8,
    /// Crashes of the server: the registry is emptied, request numbers begin again.
    pub crashes: u8,
    /// Connections of listeners that break.
    pub losses: u8,
    /// Ticks that a node's clock may lose.
    pub slow: u8,
    /// Whether there is a request of another caller.
    pub other: bool,
    /// Whether a beat may be sent twice, and commit once more later.
    pub late: bool,
    /// Whether silent rows are removed.
    pub removes: bool,
    /// Whether a node may leave.
    pub leaves: bool,
    /// Whether a node that has lost its listener says so.
    pub tells: bool,
    pub removed: Option<RegistryGuard>,
}

/// A row of `session_nodes`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Row {
    beat: u8,
    heard: u8,
    /// The node has no listener.
    lost: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Event {
    Revoked,
    /// With the beat of this node that the tick contains, if any.
    Tick(Option<u8>),
    Request(u8),
    /// Only without [`RegistryGuard::FirstBeat`].
    Barrier {
        age: u8,
    },
    Lost,
    Listening,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Link {
    Up,
    /// The server sends nothing any more, and the node does not know it.
    Broken,
    Down,
}

/// A beat whose tick has not come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Beat {
    number: u8,
    /// Since it was sent, by the node's clock.
    age: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Node {
    link: Link,
    events: ArrayVec<Event, EVENTS_MAX>,
    /// As far as the node knows.
    listening: bool,
    /// Whether the old state is in memory.
    holds: bool,
    /// By the node's clock.
    trust: u8,
    /// For how long the last proof holds for pins. Unlike trust, it is not lost with the connection.
    proved: u8,
    pin: Pin,
    /// Whether the first proof of the connection doubts the pin; only without [`RegistryGuard::DoubtWhenListening`].
    unverified: bool,
    beats: u8,
    pending: ArrayVec<Beat, BEATS_MAX>,
    /// The statement of a beat.
    sending: Option<Row>,
    /// One that was sent twice.
    late: Option<Row>,
    /// A beat whose answer is on its way; only without [`RegistryGuard::AsOfBeforeSending`].
    answer: Option<u8>,
    heard: u8,
    /// The last request that was received while the pin was doubted.
    unsettled: u8,
    left: bool,
}

/// A pin of the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Pin {
    Nothing,
    Proved,
    /// It counts as alive until the end of the proof before.
    Doubted(u8),
}

/// What the remover of silent rows knows of one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Sight {
    Nothing,
    Seen { beat: u8, age: u8 },
    Doomed { beat: u8 },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Caller {
    Idle,
    /// Only without [`RegistryGuard::RequestAfterCommit`].
    Numbered(u8),
    Committed {
        request: Option<u8>,
    },
    Waiting(u8),
    Returned,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Other {
    Idle,
    Numbered(u8),
    Notified,
}

/// Everything at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cluster {
    nodes: ArrayVec<Node, NODES_MAX>,
    rows: [Option<Row>; NODES_MAX],
    sights: [Sight; NODES_MAX],
    revoked: bool,
    next_request: u8,
    ticks: u8,
    /// The statement of a tick, with what it has read.
    tick: Option<[Option<u8>; NODES_MAX]>,
    caller: Caller,
    /// Since the revocation was acknowledged, by the caller's clock.
    since: u8,
    /// How long the caller's own row has been there.
    registered: u8,
    other: Other,
    crashes: u8,
    losses: u8,
    slow: u8,
    removals: u8,
    /// `everywhere()` has not waited for a node that has lost its listener.
    passed_over: bool,
    /// How `everywhere()` has returned. Not in the library: the searches are judged by it.
    early: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Time { lost_by: Option<usize> },
    Load(usize),
    SendBeat(usize),
    SendLoss(usize),
    CommitBeat(usize),
    AnswerBeat(usize),
    RepeatBeat(usize),
    CommitLate(usize),
    Barrier(usize),
    ReadRows,
    SendTick,
    Receive(usize),
    LookUp(usize),
    Break(usize, usize),
    NoticeLoss(usize),
    Listen(usize),
    Leave(usize),
    Look(usize),
    Remove(usize),
    Crash { kept: bool },
    NumberFirst,
    Revoke,
    Request,
    Poll,
    NumberOther,
    NotifyOther,
}

impl Registry {
    fn holds(&self, guard: RegistryGuard) -> bool {
        self.removed != Some(guard)
    }

    /// The window on another clock.
    fn window(&self, allowance: RegistryGuard) -> u8 {
        if self.holds(allowance) { WINDOW + ALLOWANCE } else { WINDOW }
    }
}

impl Cluster {
    /// Whether any node answers with the old state after its revocation.
    fn serves(&self) -> bool {
        self.revoked && self.nodes.iter().any(|node| node.holds && node.trust > 0 || node.pin_lives())
    }

    fn node_steps(&self, policy: &Registry, at: usize, steps: &mut Vec<Step>) {
        let node = &self.nodes[at];
        match self.sights[at] {
            Sight::Doomed { .. } => steps.push(Step::Remove(at)),
            _ if policy.removes && self.rows[at].is_some() => steps.push(Step::Look(at)),
            _ => {}
        }
        if node.answer.is_some() {
            steps.push(Step::AnswerBeat(at));
        }
        if node.late.is_some() {
            steps.push(Step::CommitLate(at));
        }
        if node.left {
            return;
        }
        if node.listening && !node.holds && !self.revoked {
            steps.push(Step::Load(at));
        }
        match node.sending {
            None if node.beats == policy.beats => {}
            None if node.listening => steps.push(Step::SendBeat(at)),
            None if policy.tells && (node.proved == 0 || !policy.holds(RegistryGuard::LossAfterWindow)) => {
                steps.push(Step::SendLoss(at));
            }
            None => {}
            Some(_) => {
                steps.push(Step::CommitBeat(at));
                if policy.late && node.late.is_none() {
                    steps.push(Step::RepeatBeat(at));
                }
            }
        }
        if matches!(node.pin, Pin::Doubted(_)) {
            steps.push(Step::LookUp(at));
        }
        let has_barrier = node.events.iter().any(|event| matches!(event, Event::Barrier { .. }));
        if !policy.holds(RegistryGuard::FirstBeat) && node.link == Link::Up && !has_barrier {
            steps.push(Step::Barrier(at));
        }
        if !node.events.is_empty() {
            steps.push(Step::Receive(at));
        }
        match node.link {
            Link::Up if self.losses < policy.losses => {
                steps.extend((0..=node.events.len()).map(|kept| Step::Break(at, kept)));
            }
            Link::Up => {}
            Link::Broken => steps.push(Step::NoticeLoss(at)),
            Link::Down => steps.push(Step::Listen(at)),
        }
        if policy.leaves {
            steps.push(Step::Leave(at));
        }
    }

    fn step(&mut self, policy: &Registry, step: Step) {
        match step {
            Step::Time { lost_by } => self.pass(lost_by),
            Step::Load(at) => {
                let node = &mut self.nodes[at];
                (node.holds, node.pin) = (true, Pin::Proved);
            }
            Step::SendBeat(at) => self.nodes[at].send_beat(policy, false),
            Step::SendLoss(at) => self.nodes[at].send_beat(policy, true),
            Step::CommitBeat(at) => {
                let node = &mut self.nodes[at];
                if let Some(row) = node.sending.take() {
                    node.answer = (!policy.holds(RegistryGuard::AsOfBeforeSending)).then_some(row.beat);
                    self.put(policy, at, row);
                }
            }
            Step::AnswerBeat(at) => {
                let node = &mut self.nodes[at];
                let answered = node.answer.take();
                let beats = node.pending.iter_mut().filter(|beat| Some(beat.number) == answered);
                beats.for_each(|beat| beat.age = 0);
            }
            Step::RepeatBeat(at) => {
                let node = &mut self.nodes[at];
                node.late = node.sending;
            }
            Step::CommitLate(at) => {
                if let Some(row) = self.nodes[at].late.take() {
                    self.put(policy, at, row);
                }
            }
            Step::Barrier(at) => self.nodes[at].events.push(Event::Barrier { age: 0 }),
            Step::ReadRows => {
                self.ticks += 1;
                self.tick = Some(self.rows.map(|row| row.map(|row| row.beat)));
            }
            Step::SendTick => {
                if let Some(beats) = self.tick.take() {
                    for (node, beat) in self.nodes.iter_mut().zip(beats) {
                        node.notify(policy, Event::Tick(beat));
                    }
                }
            }
            Step::Receive(at) => self.nodes[at].receive(policy),
            Step::LookUp(at) => self.nodes[at].look_up(self.revoked),
            Step::Break(at, kept) => {
                self.losses += 1;
                self.nodes[at].break_link(kept);
            }
            Step::NoticeLoss(at) => {
                let node = &mut self.nodes[at];
                node.link = Link::Down;
                node.events.push(Event::Lost);
            }
            Step::Listen(at) => {
                let node = &mut self.nodes[at];
                node.link = Link::Up;
                node.events.push(Event::Listening);
            }
            Step::Leave(at) => {
                let node = &mut self.nodes[at];
                node.left = true;
                node.late = node.late.or(node.sending.take());
                node.events.clear();
                if policy.holds(RegistryGuard::TrustEndsFirst) {
                    (node.trust, node.proved, node.holds) = (0, 0, false);
                }
                self.rows[at] = None;
            }
            Step::Look(at) => self.look(policy, at),
            Step::Remove(at) => {
                if let Sight::Doomed { beat } = self.sights[at] {
                    let is_seen = self.rows[at].is_some_and(|row| row.beat == beat);
                    if is_seen || !policy.holds(RegistryGuard::RemovalOfSeenBeat) {
                        self.rows[at] = None;
                        self.removals = 1;
                    }
                    self.sights[at] = Sight::Nothing;
                }
            }
            Step::Crash { kept } => {
                self.crashes += 1;
                self.rows = [None; NODES_MAX];
                self.tick = None;
                self.next_request = 1;
                self.registered = 0;
                // A request is one statement.
                if matches!(self.other, Other::Numbered(_)) {
                    self.other = Other::Notified;
                }
                for node in &mut self.nodes {
                    (node.sending, node.late) = (None, None);
                    if node.link == Link::Up {
                        node.break_link(if kept { node.events.len() } else { 0 });
                    }
                }
            }
            Step::NumberFirst => self.caller = Caller::Numbered(self.number()),
            Step::Revoke => {
                let request = match self.caller {
                    Caller::Numbered(request) => Some(request),
                    _ => None,
                };
                self.revoked = true;
                self.notify(policy, Event::Revoked);
                self.caller = Caller::Committed { request };
            }
            Step::Request => {
                if let Caller::Committed { request } = self.caller {
                    let request = request.unwrap_or_else(|| self.number());
                    self.notify(policy, Event::Request(request));
                    self.caller = Caller::Waiting(request);
                }
            }
            Step::Poll => self.poll(policy),
            Step::NumberOther => self.other = Other::Numbered(self.number()),
            Step::NotifyOther => {
                if let Other::Numbered(request) = self.other {
                    self.notify(policy, Event::Request(request));
                    self.other = Other::Notified;
                }
            }
        }
    }

    fn pass(&mut self, lost_by: Option<usize>) {
        self.slow += u8::from(lost_by.is_some());
        let running = self.nodes.iter_mut().enumerate().filter(|(at, _)| Some(*at) != lost_by);
        running.for_each(|(_, node)| node.pass());
        for sight in &mut self.sights {
            if let Sight::Seen { age, .. } = sight {
                *age = (WINDOW + ALLOWANCE).min(*age + 1);
            }
        }
        self.since = (WINDOW + ALLOWANCE).min(self.since + u8::from(self.revoked));
        self.registered = (WINDOW + ALLOWANCE).min(self.registered + 1);
    }

    fn number(&mut self) -> u8 {
        self.next_request += 1;
        self.next_request - 1
    }

    fn notify(&mut self, policy: &Registry, event: Event) {
        self.nodes.iter_mut().for_each(|node| node.notify(policy, event));
    }

    fn put(&mut self, policy: &Registry, at: usize, row: Row) {
        let is_newer = self.rows[at].is_none_or(|old| old.beat < row.beat);
        if is_newer || !policy.holds(RegistryGuard::NewestBeat) {
            self.rows[at] = Some(row);
        }
    }

    fn look(&mut self, policy: &Registry, at: usize) {
        let Some(row) = self.rows[at] else { return };
        self.sights[at] = match self.sights[at] {
            Sight::Seen { beat, age } if beat == row.beat => {
                if age >= policy.window(RegistryGuard::RemovalAllowance) {
                    Sight::Doomed { beat }
                } else {
                    Sight::Seen { beat, age }
                }
            }
            _ => Sight::Seen { beat: row.beat, age: 0 },
        };
    }

    fn poll(&mut self, policy: &Registry) {
        let Caller::Waiting(request) = self.caller else { return };
        let rows = self.rows.iter().flatten().filter(|_| policy.holds(RegistryGuard::RowsAfterCommit));
        let all_heard = rows.into_iter().all(|row| row.lost || row.heard >= request);
        let is_complete =
            self.registered >= WINDOW + ALLOWANCE || !policy.holds(RegistryGuard::CompleteRegistry);
        if all_heard && is_complete {
            self.early = true;
            self.passed_over = self.rows.iter().flatten().any(|row| row.lost);
            self.caller = Caller::Returned;
        } else if policy.holds(RegistryGuard::Lapse)
            && self.since >= policy.window(RegistryGuard::LapseAllowance)
        {
            self.caller = Caller::Returned;
        }
    }

    /// Whether `everywhere()` ends if nothing happens but time.
    fn ends(&self, policy: &Registry) -> bool {
        let mut cluster = self.clone();
        if !matches!(cluster.caller, Caller::Waiting(_)) {
            return true;
        }
        (0..WINDOW + ALLOWANCE).for_each(|_| cluster.pass(None));
        cluster.poll(policy);
        cluster.caller == Caller::Returned
    }

    /// Whether the node comes to be trusted if nothing else happens.
    fn recovers(&self, policy: &Registry, at: usize) -> bool {
        let mut cluster = self.clone();
        if cluster.nodes[at].left {
            return true;
        }
        cluster.tick = None;
        let mut has_beaten = false;
        for _ in 0..RECOVERY_STEPS_MAX {
            let node = &cluster.nodes[at];
            let step = match node {
                Node { events, .. } if !events.is_empty() => Step::Receive(at),
                Node { link: Link::Broken, .. } => Step::NoticeLoss(at),
                Node { link: Link::Down, .. } => Step::Listen(at),
                Node { trust: 1.., .. } => return true,
                Node { sending: Some(_), .. } => Step::CommitBeat(at),
                _ if !has_beaten => {
                    has_beaten = true;
                    Step::SendBeat(at)
                }
                _ if cluster.tick.is_none() => Step::ReadRows,
                _ => Step::SendTick,
            };
            cluster.step(policy, step);
        }
        false
    }
}
