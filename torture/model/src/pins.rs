//! A pinned session, the doubts about it, and the lookups that settle them.
//!
//! One session, and one node that holds a pin of it. Other nodes change and end the session. Any role may forge a notification. Time
//! counts in ticks: an age of the trust window or more is one age. So the model has an end.
//!
//! This is a model of its own: the searches of the other one would multiply with it.

use arrayvec::ArrayVec;
use stateright::{Model, Property};

/// Notifications on their way.
const EVENTS_MAX: usize = 6;
/// As `DOUBTS_MAX` of the library.
const DOUBTS_MAX: usize = 4;
/// Lookups in flight: of the task, and of the call that pins.
const LOOKUPS: usize = 2;
/// The trust window, in ticks.
const WINDOW: u8 = 2;
/// More than a node needs to find out what has become of the session.
const RECOVERY_STEPS_MAX: usize = 24;

/// What a search explores.
#[derive(Clone, Debug)]
pub struct Pins {
    pub updates: u8,
    pub forgeries: u8,
    pub losses: u8,
    pub removed: Option<PinGuard>,
}

/// A check of `crates/pg-session/src` that a test takes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinGuard {
    /// `invalidation/mod.rs`, `doubt`: what is received raises a doubt.
    Doubt,
    /// `invalidation/mod.rs`, `doubt`: it ends no pin.
    Lookup,
    /// `invalidation/proof.rs`, `set_listening`: after a gap, all pins are doubted.
    Gap,
    /// The same: and so before a proof counts. Without: after the first one.
    GapOrder,
    /// `pins/mod.rs`, `alive`: an answer settles the doubts that are older than its question.
    Number,
    /// `pins/mod.rs`, `add_doubt`: later proofs do not count for a doubted session.
    Deadline,
    /// `pins/mod.rs`, `add_doubt`: of several doubts, the oldest deadline counts.
    Oldest,
    /// `pins/mod.rs`, `register`: a pin is not proved before the session was found alive.
    FirstDoubt,
    /// `manager/pin.rs`, `pin`: the session is registered before it is looked at.
    RegisterFirst,
    /// `pins/mod.rs`, `alive`: a session that was found alive has no cause.
    ClearCause,
}

impl PinGuard {
    pub const ALL: [Self; 10] = [
        Self::Doubt,
        Self::Lookup,
        Self::Gap,
        Self::GapOrder,
        Self::Number,
        Self::Deadline,
        Self::Oldest,
        Self::FirstDoubt,
        Self::RegisterFirst,
        Self::ClearCause,
    ];

    /// What breaks without it.
    pub fn promise(self) -> &'static str {
        match self {
            Self::Lookup => NO_EARLIER,
            Self::ClearCause => REFUTED,
            _ => NO_LATER,
        }
    }
}

const NO_LATER: &str = "no pin outlives its session by the window";
const NO_EARLIER: &str = "no pin ends while its session lives";
const REFUTED: &str = "a cause that was refuted is not reported";

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    Logout,
    Rotated,
    /// What a role has named that only sends notifications.
    Forged,
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Event {
    /// An update, a rotation, or a forgery.
    Changed,
    Cause(Cause),
    Deleted,
    /// A tick with the beat that was sent so many ticks of time ago.
    Proof(u8),
}

/// A doubt, with the age of the last proof before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Doubt {
    proof: u8,
    /// The lookups whose questions are younger.
    asked: [bool; LOOKUPS],
}

/// A question on its way, and its answer: why the session has ended, if it has.
type Lookup = Option<Option<Answer>>;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Answer {
    Alive,
    Ended(Cause),
}

/// Everything at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Holder {
    /// What the database knows, and how long ago the end was acknowledged.
    ended: Option<(Cause, u8)>,
    updates: u8,
    forgeries: u8,
    losses: u8,
    listening: bool,
    events: ArrayVec<Event, EVENTS_MAX>,
    /// `Pins::proved_until`: the age of the last proof.
    proved: u8,
    /// The first proof of the connection is awaited; only without [`PinGuard::GapOrder`].
    unverified: bool,
    /// What the node has in memory may be served, by what it has received.
    remembered: bool,
    registered: bool,
    doubts: ArrayVec<Doubt, DOUBTS_MAX>,
    /// `Shared::doubted_until`.
    deadline: Option<u8>,
    lookups: [Lookup; LOOKUPS],
    /// `Slot::cause`.
    cause: Option<Cause>,
    /// `Shared::ended`.
    pin_ended: Option<Cause>,
    /// The database has answered since the forgery that the session lives. Not in the library: a promise is judged by it.
    refuted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    Pass,
    Update,
    Logout,
    Rotate,
    Forge,
    Lose,
    Listen,
    Beat,
    Receive,
    Register,
    Ask(usize),
    Select(usize),
    LookIntoMemory(usize),
    Arrive(usize),
}

impl Model for Pins {
    type State = Holder;
    type Action = Step;

    fn init_states(&self) -> Vec<Holder> {
        vec![Holder {
            ended: None,
            updates: 0,
            forgeries: 0,
            losses: 0,
            listening: true,
            events: ArrayVec::new(),
            proved: 0,
            unverified: false,
            remembered: true,
            registered: false,
            doubts: ArrayVec::new(),
            deadline: None,
            lookups: [None; LOOKUPS],
            cause: None,
            pin_ended: None,
            refuted: false,
        }]
    }

    fn actions(&self, holder: &Holder, steps: &mut Vec<Step>) {
        let room = EVENTS_MAX - holder.events.len();
        steps.push(Step::Pass);
        if holder.ended.is_none() && room >= 2 {
            steps.extend([Step::Logout, Step::Rotate]);
            if holder.updates < self.updates {
                steps.push(Step::Update);
            }
        }
        if holder.forgeries < self.forgeries && holder.listening && room >= 1 {
            steps.push(Step::Forge);
        }
        if holder.listening && holder.losses < self.losses {
            steps.push(Step::Lose);
        }
        if !holder.listening {
            steps.push(Step::Listen);
        }
        let awaited = holder.events.iter().any(|event| matches!(event, Event::Proof(_)));
        if holder.listening && !awaited && room >= 1 {
            steps.push(Step::Beat);
        }
        if !holder.events.is_empty() {
            steps.push(Step::Receive);
        }
        let looks_first = self.removed == Some(PinGuard::RegisterFirst);
        if !holder.registered && (!looks_first || holder.lookups[1] == Some(Some(Answer::Alive))) {
            steps.push(Step::Register);
        }
        for number in 0..LOOKUPS {
            match holder.lookups[number] {
                None if holder.pin_ended.is_none() => {
                    let is_pinning = number == 1;
                    let may_ask = if is_pinning && looks_first {
                        !holder.registered
                    } else {
                        holder.registered && !holder.doubts.is_empty()
                    };
                    if may_ask {
                        steps.push(Step::Ask(number));
                    }
                }
                Some(None) => {
                    steps.push(Step::Select(number));
                    if number == 1 && holder.remembered && holder.listening && holder.proved < WINDOW {
                        steps.push(Step::LookIntoMemory(number));
                    }
                }
                Some(Some(_)) if holder.registered => steps.push(Step::Arrive(number)),
                _ => {}
            }
        }
    }

    fn next_state(&self, holder: &Holder, step: Step) -> Option<Holder> {
        let mut holder = holder.clone();
        holder.step(self, step);
        Some(holder)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NO_LATER, |_, holder: &Holder| {
                !(holder.says_alive() && holder.ended.is_some_and(|(_, ago)| ago >= WINDOW))
            }),
            Property::always(NO_EARLIER, |_, holder: &Holder| {
                holder.pin_ended.is_none() || holder.ended.is_some()
            }),
            Property::always("a cause is the one that the end had", |_, holder: &Holder| {
                match (holder.pin_ended, holder.ended) {
                    (Some(shown @ (Cause::Logout | Cause::Rotated)), Some((cause, _))) => shown == cause,
                    _ => true,
                }
            }),
            Property::always(REFUTED, |_, holder: &Holder| {
                holder.pin_ended != Some(Cause::Forged) || !holder.refuted
            }),
            Property::always("the pin comes to say what is true", |policy: &Self, holder: &Holder| {
                holder.recovers(policy)
            }),
            // A model in which nothing happens keeps every promise.
            Property::sometimes("a pin of a doubted session says alive", |_, holder: &Holder| {
                holder.says_alive() && !holder.doubts.is_empty()
            }),
            Property::sometimes("a pin outlives its session for a while", |_, holder: &Holder| {
                holder.says_alive() && holder.ended.is_some_and(|(_, ago)| ago + 1 == WINDOW)
            }),
            Property::sometimes("an end has a cause", |_, holder: &Holder| {
                holder.pin_ended == Some(Cause::Logout)
            }),
            Property::sometimes("an end in a gap is found", |policy: &Self, holder: &Holder| {
                policy.losses == 0 || holder.losses > 0 && holder.pin_ended == Some(Cause::Unknown)
            }),
            Property::sometimes("a forgery is refuted", |policy: &Self, holder: &Holder| {
                policy.forgeries == 0 || holder.refuted && holder.says_alive()
            }),
        ]
    }
}

impl Holder {
    /// `Pin::check`.
    fn says_alive(&self) -> bool {
        let age = self.deadline.map_or(self.proved, |deadline| deadline.max(self.proved));
        self.registered && self.pin_ended.is_none() && age < WINDOW
    }

    fn step(&mut self, policy: &Pins, step: Step) {
        match step {
            Step::Pass => self.pass(),
            Step::Update => {
                self.updates += 1;
                self.notify(Event::Changed);
            }
            Step::Logout => {
                self.ended = Some((Cause::Logout, 0));
                self.notify(Event::Cause(Cause::Logout));
                self.notify(Event::Deleted);
            }
            Step::Rotate => {
                self.ended = Some((Cause::Rotated, 0));
                self.notify(Event::Changed);
            }
            Step::Forge => {
                self.forgeries += 1;
                self.refuted = false;
                self.notify(Event::Cause(Cause::Forged));
            }
            Step::Lose => {
                self.losses += 1;
                self.listening = false;
                self.remembered = false;
                self.events.clear();
            }
            Step::Listen => {
                self.listening = true;
                let is_pinned = self.registered && self.pin_ended.is_none();
                match policy.removed {
                    Some(PinGuard::Gap) => {}
                    Some(PinGuard::GapOrder) => self.unverified = true,
                    _ if is_pinned => self.add_doubt(policy, self.proved),
                    _ => {}
                }
            }
            Step::Beat => self.notify(Event::Proof(0)),
            Step::Receive => match self.events.remove(0) {
                Event::Changed | Event::Deleted => {
                    self.remembered = false;
                    self.receive(policy, None);
                }
                Event::Cause(cause) => self.receive(policy, Some(cause)),
                Event::Proof(age) => self.prove(policy, age),
            },
            Step::Register => {
                self.registered = true;
                let is_known = [PinGuard::FirstDoubt, PinGuard::RegisterFirst];
                if !policy.removed.is_some_and(|removed| is_known.contains(&removed)) {
                    self.add_doubt(policy, WINDOW);
                } else if policy.removed == Some(PinGuard::RegisterFirst) {
                    self.lookups[1] = None;
                }
            }
            Step::Ask(number) => {
                self.lookups[number] = Some(None);
                self.doubts.iter_mut().for_each(|doubt| doubt.asked[number] = true);
            }
            Step::Select(number) => {
                let answer = self.ended.map_or(Answer::Alive, |(cause, _)| match cause {
                    Cause::Rotated => Answer::Ended(Cause::Rotated),
                    _ => Answer::Ended(Cause::Unknown),
                });
                self.lookups[number] = Some(Some(answer));
            }
            Step::LookIntoMemory(number) => self.lookups[number] = Some(Some(Answer::Alive)),
            Step::Arrive(number) => self.arrive(policy, number),
        }
    }

    /// Time passes. Ages at the end of the window stay there.
    fn pass(&mut self) {
        let events = self.events.iter_mut().filter_map(|event| match event {
            Event::Proof(age) => Some(age),
            _ => None,
        });
        let doubts = self.doubts.iter_mut().map(|doubt| &mut doubt.proof);
        let ended = self.ended.as_mut().map(|(_, ago)| ago);
        let others = [&mut self.proved].into_iter().chain(self.deadline.as_mut()).chain(ended);
        events.chain(doubts).chain(others).for_each(|age| *age = (*age + 1).min(WINDOW));
    }

    fn notify(&mut self, event: Event) {
        if self.listening {
            self.events.push(event);
        }
    }

    /// `InvalidationTask::doubt`.
    fn receive(&mut self, policy: &Pins, cause: Option<Cause>) {
        if !self.registered || self.pin_ended.is_some() {
            return;
        }
        match policy.removed {
            Some(PinGuard::Doubt) => {}
            Some(PinGuard::Lookup) => self.pin_ended = Some(cause.unwrap_or(Cause::Unknown)),
            _ => {
                self.add_doubt(policy, self.proved);
                self.cause = cause.or(self.cause);
            }
        }
    }

    /// `Slot::add_doubt`.
    fn add_doubt(&mut self, policy: &Pins, proof: u8) {
        let doubt = Doubt { proof, asked: [false; LOOKUPS] };
        let is_full = self.doubts.is_full();
        match self.doubts.last_mut() {
            // The earlier deadline counts for both.
            Some(last) if last.proof == proof || is_full => last.asked = doubt.asked,
            _ => self.doubts.push(doubt),
        }
        self.deadline = match policy.removed {
            Some(PinGuard::Deadline) => None,
            Some(PinGuard::Oldest) => Some(proof),
            _ => Some(self.deadline.map_or(proof, |known| known.max(proof))),
        };
    }

    /// `Prover::ticked`.
    fn prove(&mut self, policy: &Pins, age: u8) {
        self.proved = self.proved.min(age);
        if std::mem::take(&mut self.unverified) && self.registered && self.pin_ended.is_none() {
            self.add_doubt(policy, self.proved);
        }
    }

    /// `pinning::look_up`, with its answer.
    fn arrive(&mut self, policy: &Pins, number: usize) {
        let Some(Some(answer)) = self.lookups[number].take() else { return };
        if self.pin_ended.is_some() {
            return;
        }
        match answer {
            // `Pins::end`
            Answer::Ended(Cause::Rotated) => self.pin_ended = Some(Cause::Rotated),
            Answer::Ended(_) => self.pin_ended = Some(self.cause.unwrap_or(Cause::Unknown)),
            // `Pins::alive`
            Answer::Alive => {
                let keeps_number = policy.removed != Some(PinGuard::Number);
                self.doubts.retain(|doubt| keeps_number && !doubt.asked[number]);
                self.deadline = self.doubts.iter().map(|doubt| doubt.proof).max();
                if policy.removed == Some(PinGuard::Deadline) {
                    self.deadline = None;
                }
                if self.doubts.is_empty() {
                    self.refuted |= self.cause == Some(Cause::Forged);
                    if policy.removed != Some(PinGuard::ClearCause) {
                        self.cause = None;
                    }
                }
            }
        }
    }

    /// Whether the pin comes to say what is true if nothing else happens.
    fn recovers(&self, policy: &Pins) -> bool {
        let mut holder = self.clone();
        for _ in 0..RECOVERY_STEPS_MAX {
            if !holder.registered {
                return true;
            }
            let is_true =
                if holder.ended.is_some() { holder.pin_ended.is_some() } else { holder.says_alive() };
            if is_true {
                return true;
            }
            let lookup = (0..LOOKUPS).find(|&number| holder.lookups[number].is_some());
            let step = match lookup {
                Some(number) if holder.lookups[number] == Some(None) => Step::Select(number),
                Some(number) => Step::Arrive(number),
                None if !holder.listening => Step::Listen,
                None if !holder.events.is_empty() => Step::Receive,
                None if !holder.doubts.is_empty() && holder.pin_ended.is_none() => Step::Ask(0),
                None => Step::Beat,
            };
            holder.step(policy, step);
        }
        false
    }
}
