//! Two servers, a pooler that leads to one or the other, and the identity beside the cache.
//!
//! B is a copy of A. Both have the session's row, and their histories diverge. The pool and the listener may lead to
//! different servers. A proof goes through the pool and comes back only from the listener's server.
//!
//! A restore into a running server replaces the tables and notifies no node. Then the server has another identity.
//!
//! This is a model of its own: the searches of the other one would multiply with it. Time is left out. Trust does not
//! lapse here, so what is shown holds for any trust window.

use std::fmt;

use arrayvec::ArrayVec;
use stateright::{Model, Property};

/// Notifications on their way.
const EVENTS_MAX: usize = 6;
/// More than a node needs to be trusted again.
const RECOVERY_STEPS_MAX: usize = 2 * EVENTS_MAX;

/// What a search explores.
#[derive(Clone, Debug)]
pub struct Servers {
    /// Commits by other nodes and by this one.
    pub commits: u8,
    /// Times that the pooler or the listener changes its server.
    pub moves: u8,
    /// Restores into running servers.
    pub restores: u8,
    /// Whether the node revokes sessions.
    pub revokes: bool,
    pub removed: Option<ServerGuard>,
}

/// A check of `crates/pg-session/src` that a test takes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerGuard {
    /// `loader.rs`, `complete_batch`: a load of another server enters nothing.
    Load,
    /// `writer/commit.rs`, `commit`: a write to another server enters nothing.
    Write,
    /// `invalidation/resync.rs`, `verify`: another server verifies nothing.
    Verify,
    /// `invalidation/proof.rs`, `ticked`: a proof of another server begins an epoch.
    Proof,
    /// `core.rs`, `is_proved`: an answer of another server begins an epoch.
    Answer,
    /// `core.rs`, `is_proved`: after it, nothing enters the cache before the next proof.
    Unproved,
    /// `postgres/mod.rs`, `server`: restored tables change the identity.
    Tables,
    /// `core.rs`, `check_revocation`: a revocation on another server than the listener's is not acknowledged.
    Revocation,
}

impl ServerGuard {
    pub const ALL: [Self; 8] = [
        Self::Load,
        Self::Write,
        Self::Verify,
        Self::Proof,
        Self::Answer,
        Self::Unproved,
        Self::Tables,
        Self::Revocation,
    ];
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Server {
    A,
    B,
}

impl Server {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// `ServerId`: a server, and how often its tables were restored.
type Identity = (Server, u8);

/// A row. Two histories give one version number to different contents.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Row {
    version: u8,
    /// The commit that wrote it, numbered over both servers.
    content: u8,
}

/// `cache/fill.rs`, with an epoch as whether it is the present one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Ticket {
    listening: bool,
    current: bool,
    /// The highest version that was invalidated since.
    invalidated: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Slot {
    row: Row,
    /// Of the present epoch: it is served while there is trust.
    current: bool,
}

/// A statement on its way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Statement {
    ticket: Ticket,
    /// What the server has answered, and which server.
    answer: Option<(Identity, Row)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Event {
    Changed(u8),
    Proof(Identity),
}

/// Everything at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Network {
    rows: [Row; 2],
    restored: [u8; 2],
    commits: u8,
    moves: u8,
    pool: Server,
    /// `None` after a loss.
    listener: Option<Server>,
    events: ArrayVec<Event, EVENTS_MAX>,
    slot: Option<Slot>,
    trusted: bool,
    /// `Core::server`.
    proved: Option<Identity>,
    /// `Core::listening_to`.
    listening_to: Option<Identity>,
    /// The server that has carried out a revocation, before its caller is answered.
    revoked_on: Option<Identity>,
    /// A revocation was acknowledged that was not made on the listener's server. Not in the library: a promise is judged by it.
    misled: bool,
    /// The listener's server was restored, and no proof has named its new identity. Not in the library, either.
    unseen: bool,
    /// `Core::another_server` was notified.
    another_server: bool,
    /// `Prover::unverified`.
    unverified: bool,
    resync: bool,
    load: Option<Statement>,
    write: Option<Statement>,
    verification: Option<Statement>,
    /// What a caller holds, to base an update on.
    held: Option<Row>,
    /// Another server has answered since the last proof. Not in the library: a promise is judged by it.
    answered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    Redirect,
    Restore(Server),
    Revoke,
    Acknowledge,
    Lose,
    Listen(Server),
    CommitElsewhere(Server),
    Depart,
    Select,
    Arrive,
    BeginWrite,
    Commit,
    Publish,
    SendProof,
    Receive,
    EndTrust,
    AskVersions,
    TellVersions,
    Verify,
}

impl Model for Servers {
    type State = Network;
    type Action = Step;

    fn init_states(&self) -> Vec<Network> {
        vec![Network {
            rows: [Row { version: 1, content: 0 }; 2],
            restored: [0; 2],
            commits: 0,
            moves: 0,
            pool: Server::A,
            listener: Some(Server::A),
            events: ArrayVec::new(),
            slot: None,
            trusted: false,
            proved: None,
            listening_to: None,
            revoked_on: None,
            misled: false,
            unseen: false,
            another_server: false,
            unverified: true,
            resync: false,
            load: None,
            write: None,
            verification: None,
            held: None,
            answered: false,
        }]
    }

    fn actions(&self, network: &Network, steps: &mut Vec<Step>) {
        let Network { pool, listener, load, write, verification, .. } = network;
        if network.moves < self.moves {
            steps.push(Step::Redirect);
            if listener.is_some() {
                steps.push(Step::Lose);
            }
        }
        if listener.is_none() {
            steps.extend([Server::A, Server::B].map(Step::Listen));
        }
        if network.restored.iter().sum::<u8>() < self.restores {
            steps.extend([Server::A, Server::B].map(Step::Restore));
        }
        if self.revokes {
            steps.push(if network.revoked_on.is_none() { Step::Revoke } else { Step::Acknowledge });
        }
        if network.commits < self.commits && !network.events.is_full() {
            steps.extend([Server::A, Server::B].map(Step::CommitElsewhere));
            if write.is_some_and(|write| write.answer.is_none()) {
                steps.push(Step::Commit);
            }
        }
        steps.push(match load {
            None => Step::Depart,
            Some(Statement { answer: None, .. }) => Step::Select,
            Some(_) => Step::Arrive,
        });
        match write {
            None if network.held.is_some() => steps.push(Step::BeginWrite),
            Some(Statement { answer: Some(_), .. }) => steps.push(Step::Publish),
            _ => {}
        }
        match verification {
            None if network.resync => steps.push(Step::AskVersions),
            None => {}
            Some(Statement { answer: None, .. }) => steps.push(Step::TellVersions),
            Some(_) => steps.push(Step::Verify),
        }
        // Elsewhere it is lost, and nothing changes.
        let awaited = network.events.iter().any(|event| matches!(event, Event::Proof(_)));
        if *listener == Some(*pool) && !awaited && !network.events.is_full() {
            steps.push(Step::SendProof);
        }
        if !network.events.is_empty() {
            steps.push(Step::Receive);
        }
        if network.another_server {
            steps.push(Step::EndTrust);
        }
    }

    fn next_state(&self, network: &Network, step: Step) -> Option<Network> {
        let mut network = network.clone();
        network.step(self, step);
        Some(network)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a hit shows what the listener's server holds", |_, network: &Network| {
                match (network.served(), network.listener) {
                    (Some(row), Some(server)) if network.events.is_empty() && !network.unseen => {
                        row.content == network.rows[server as usize].content
                    }
                    _ => true,
                }
            }),
            Property::always(
                "nothing is served between another server's answer and a proof",
                |_, network: &Network| !network.answered || network.served().is_none(),
            ),
            Property::always(
                "an acknowledged revocation was made on the listener's server",
                |_, network: &Network| !network.misled,
            ),
            Property::always(
                "the node serves again when both lead to one server",
                |policy: &Self, network: &Network| network.recovers(policy),
            ),
            // A model in which nothing happens keeps every promise.
            Property::sometimes("a hit after the pooler came back", |policy: &Self, network: &Network| {
                network.moves == policy.moves && network.pool == Server::A && network.served().is_some()
            }),
            Property::sometimes("a write to another server", |policy: &Self, network: &Network| {
                let answer = network.write.and_then(|write| write.answer);
                policy.commits == 0
                    || answer.is_some_and(|((server, _), _)| {
                        network.proved.is_some_and(|(proved, _)| proved == server.other())
                    })
            }),
            Property::sometimes("a hit after a restore", |policy: &Self, network: &Network| {
                network.restored.iter().sum::<u8>() == policy.restores
                    && network.served().is_some()
                    && !network.unseen
            }),
        ]
    }
}

impl Network {
    /// What a read gets from memory.
    fn served(&self) -> Option<Row> {
        self.slot.filter(|slot| self.trusted && slot.current).map(|slot| slot.row)
    }

    fn step(&mut self, policy: &Servers, step: Step) {
        match step {
            Step::Redirect => {
                self.pool = self.pool.other();
                self.moves += 1;
            }
            Step::Restore(server) => {
                let content = 100 + self.restored.iter().sum::<u8>();
                self.rows[server as usize].content = content;
                self.restored[server as usize] += 1;
                self.unseen |= self.listener == Some(server);
            }
            Step::Revoke => self.revoked_on = Some(self.identity(policy, self.pool)),
            Step::Acknowledge => self.acknowledge(policy),
            Step::Lose => {
                self.moves += 1;
                self.listening_to = None;
                self.unseen = false;
                self.listener = None;
                self.events.clear();
                self.trusted = false;
                self.begin_epoch();
            }
            Step::Listen(server) => {
                self.listener = Some(server);
                self.begin_epoch();
                self.unverified = true;
            }
            Step::CommitElsewhere(server) => {
                self.commit(server);
            }
            Step::Depart => self.load = Some(self.statement()),
            Step::Select => self.load = self.load.map(|load| self.answered_by_pool(policy, load)),
            Step::Arrive => {
                if let Some((ticket, row)) =
                    self.answer(policy, |network| &mut network.load, ServerGuard::Load)
                {
                    self.install(ticket, row);
                    self.held = Some(row);
                }
            }
            Step::BeginWrite => self.write = Some(self.statement()),
            Step::Commit => {
                let moved = self.held.is_none_or(|held| held != self.rows[self.pool as usize]);
                self.write = self.write.filter(|_| !moved).map(|write| {
                    let row = self.commit(self.pool);
                    Statement { answer: Some((self.identity(policy, self.pool), row)), ..write }
                });
            }
            Step::Publish => {
                if let Some((ticket, row)) =
                    self.answer(policy, |network| &mut network.write, ServerGuard::Write)
                {
                    self.note(row.version);
                    self.install(ticket, row);
                    self.held = Some(row);
                }
            }
            Step::SendProof => self.events.push(Event::Proof(self.identity(policy, self.pool))),
            Step::Receive => match self.events.remove(0) {
                Event::Changed(version) => self.invalidate(version),
                Event::Proof(identity) => self.proved(policy, identity),
            },
            Step::EndTrust => {
                self.another_server = false;
                self.trusted = false;
            }
            Step::AskVersions => {
                self.resync = false;
                self.verification = Some(self.statement());
            }
            Step::TellVersions => {
                self.verification = self.verification.map(|asked| self.answered_by_pool(policy, asked));
            }
            Step::Verify => self.verify(policy),
        }
    }

    fn statement(&self) -> Statement {
        let ticket = Ticket { listening: self.listener.is_some(), current: true, invalidated: 0 };
        Statement { ticket, answer: None }
    }

    fn answered_by_pool(&self, policy: &Servers, statement: Statement) -> Statement {
        let identity = self.identity(policy, self.pool);
        Statement { answer: Some((identity, self.rows[self.pool as usize])), ..statement }
    }

    /// `Dialect::server`.
    fn identity(&self, policy: &Servers, server: Server) -> Identity {
        match policy.removed {
            Some(ServerGuard::Tables) => (server, 0),
            _ => (server, self.restored[server as usize]),
        }
    }

    /// `Core::check_revocation`, and the caller's answer.
    fn acknowledge(&mut self, policy: &Servers) {
        let Some(identity @ (server, _)) = self.revoked_on.take() else { return };
        let counts = self.is_proved(policy, identity)
            || self.listening_to.is_none_or(|(listening_to, _)| listening_to == server)
            || policy.removed == Some(ServerGuard::Revocation);
        // Before the first proof of a connection the node cannot know.
        self.misled |= counts && self.listening_to.is_some() && self.listener != Some(server);
    }

    fn commit(&mut self, server: Server) -> Row {
        self.commits += 1;
        let row = &mut self.rows[server as usize];
        *row = Row { version: row.version + 1, content: self.commits };
        let row = *row;
        if self.listener == Some(server) {
            self.events.push(Event::Changed(row.version));
        }
        row
    }

    fn tickets(&mut self) -> impl Iterator<Item = &mut Ticket> {
        let statements = [&mut self.load, &mut self.write, &mut self.verification];
        statements.into_iter().flatten().map(|statement| &mut statement.ticket)
    }

    fn begin_epoch(&mut self) {
        self.tickets().for_each(|ticket| ticket.current = false);
        self.slot = self.slot.map(|slot| Slot { current: false, ..slot });
    }

    fn note(&mut self, version: u8) {
        self.tickets().for_each(|ticket| ticket.invalidated = ticket.invalidated.max(version));
    }

    fn invalidate(&mut self, version: u8) {
        self.note(version);
        self.slot = self.slot.filter(|slot| slot.row.version >= version);
    }

    /// `Core::is_proved`.
    fn is_proved(&mut self, policy: &Servers, server: Identity) -> bool {
        if self.proved == Some(server) {
            return true;
        }
        self.answered |= self.proved.is_some();
        if self.proved.is_some() {
            if policy.removed != Some(ServerGuard::Answer) {
                self.begin_epoch();
            }
            self.another_server = true;
            if policy.removed != Some(ServerGuard::Unproved) {
                self.proved = None;
            }
        }
        false
    }

    /// The end of a statement: what has answered, and `Core::checked`. If that begins an epoch, the ticket is of the one before.
    fn answer(
        &mut self,
        policy: &Servers,
        lane: impl Fn(&mut Self) -> &mut Option<Statement>,
        guard: ServerGuard,
    ) -> Option<(Ticket, Row)> {
        let (server, _) = lane(self).as_ref()?.answer?;
        let is_proved = self.is_proved(policy, server) || policy.removed == Some(guard);
        let Statement { ticket, answer } = lane(self).take()?;
        let (_, row) = answer?;
        Some((Ticket { listening: ticket.listening && is_proved, ..ticket }, row))
    }

    /// `Cache::install`.
    fn install(&mut self, ticket: Ticket, row: Row) {
        let old = self.slot;
        if old.is_some_and(|old| old.row.version > row.version && old.current >= ticket.current) {
            return;
        }
        if ticket.listening && row.version >= ticket.invalidated {
            self.slot = Some(Slot { row, current: ticket.current });
        } else if old.is_some_and(|old| {
            old.row.version < row.version || old.row.version == row.version && old.row != row
        }) {
            self.slot = None;
        }
    }

    /// `Prover::received`.
    fn proved(&mut self, policy: &Servers, server: Identity) {
        // A search without revocations need not tell these states apart.
        self.listening_to = policy.revokes.then_some(server);
        // Without the guard `Tables`, any proof claims to name it.
        self.unseen &= server != self.identity(policy, server.0);
        if self.proved.replace(server) != Some(server) && policy.removed != Some(ServerGuard::Proof) {
            self.begin_epoch();
            self.unverified = true;
        }
        self.resync |= std::mem::take(&mut self.unverified);
        self.trusted = true;
        self.answered = false;
    }

    /// `Resync::verify`.
    fn verify(&mut self, policy: &Servers) {
        let answer = self.answer(policy, |network| &mut network.verification, ServerGuard::Verify);
        let Some((ticket @ Ticket { listening: true, .. }, found)) = answer else { return };
        match self.slot {
            Some(slot) if !slot.current && ticket.current && slot.row == found => {
                self.slot = Some(Slot { current: true, ..slot });
            }
            Some(slot) if !slot.current && ticket.current => self.slot = None,
            _ => {}
        }
    }

    /// Whether the node comes to be trusted if nothing else happens and both lead to one server.
    fn recovers(&self, policy: &Servers) -> bool {
        let mut network = self.clone();
        network.listener.get_or_insert(network.pool);
        if network.listener != Some(network.pool) {
            return true;
        }
        for _ in 0..RECOVERY_STEPS_MAX {
            let step = match network {
                Self { another_server: true, .. } => Step::EndTrust,
                Self { ref events, .. } if !events.is_empty() => Step::Receive,
                Self { trusted: true, .. } => return true,
                _ => Step::SendProof,
            };
            network.step(policy, step);
        }
        false
    }
}
