//! The world: a database, nodes, and everything that may happen next.

use arrayvec::ArrayVec;
use stateright::{Model, Property};

use crate::database::Database;
use crate::gap::{Caller, Gaps};
use crate::guard::Guard;
use crate::listening::{Event, Resync};
use crate::node::Node;
use crate::policy::{Apart, Ending, Policy};
use crate::promise::Broken;
use crate::reading::Reader;
use crate::tally::Seen;
use crate::version::Version;
use crate::writing::{Delete, Update};

/// Everything at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    pub database: Database,
    pub nodes: ArrayVec<Node, 2>,
    pub gaps: Gaps,
    pub disconnects: u8,
}

/// One step of one part of the world, named after the function that takes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    Tick,
    Get(usize),
    Lookup(usize),
    Judge(usize),
    IsTrusted(usize),
    Enqueue(usize),
    Depart(usize),
    Select(usize),
    Arrive(usize),
    BeginWrite(usize),
    CommitUpdate(usize),
    Reread(usize),
    CatchUp(usize),
    Publish(usize),
    OutcomeUnknown(usize),
    /// The process with this place among those that have not notified.
    Notify(usize),
    /// It ends instead.
    EndProcess(usize),
    GiveUp(usize),
    NotifyAgain(usize),
    /// A statement whose caller has given up.
    CommitStuck,
    EndStuck,
    GiveUpElsewhere,
    NotifyAgainElsewhere,
    DieElsewhere,
    /// The node has received nothing from the other one for long enough.
    NoticeSilence(usize),
    DeleteAgain,
    CommitDelete(usize),
    Forget(usize),
    Evict(usize),
    Receive(usize),
    SendBarrier(usize),
    Resync(usize),
    Disconnect(usize, usize),
    Lost(usize),
    Listen(usize),
    UpdateElsewhere,
    DeleteElsewhere,
    Expire,
}

impl Model for Policy {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            database: Database::new(self.bounds.window),
            nodes: (0..self.bounds.nodes).map(|_| Node::new()).collect(),
            gaps: Gaps::default(),
            disconnects: 0,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken().is_some() {
            return;
        }
        actions.push(Action::Tick);
        if self.bounds.ending == Some(Ending::Expiry) && world.database.row.is_live() {
            actions.push(Action::Expire);
        }
        for node in 0..world.nodes.len() {
            world.read(node, actions);
            world.write(self, node, actions);
            world.receive(self, node, actions);
        }
        if self.bounds.elsewhere {
            // One process for elsewhere: the others are those that were given up.
            if world.may_update(self) && !world.gaps.is_elsewhere() {
                actions.push(Action::UpdateElsewhere);
            }
            if world.may_delete(self) {
                actions.push(Action::DeleteElsewhere);
            }
        }
        if self.bounds.again && world.database.row == Version::DELETED {
            actions.push(Action::DeleteAgain);
        }
        world.settle(self, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        world.step(self, action);
        if self.bounds.coarse {
            while let Some(next) = world.goes_on(action) {
                world.step(self, next);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "I1 nothing in memory is older than a handled invalidation",
                |_, world: &World| {
                    world.nodes.iter().all(|node| {
                        let handled = node.cache.handled.min(world.database.row);
                        node.cache.slot.is_none_or(|slot| slot.record.version >= handled)
                    })
                },
            ),
            Property::always("I2 a node never goes backwards", |_, world: &World| {
                world.broken() != Some(Broken::Backwards)
            }),
            Property::always("I3 what was acknowledged before the window is seen", |_, world: &World| {
                world.broken() != Some(Broken::Late)
            }),
            Property::always("I4 what has ended is not seen again", |_, world: &World| {
                world.broken() != Some(Broken::Revived)
            }),
            Property::always("I6 row and attributes belong together", |_, world: &World| {
                world.broken() != Some(Broken::Torn)
            }),
            Property::always("only what was committed is seen", |_, world: &World| {
                world.broken() != Some(Broken::Uncommitted)
            }),
            Property::always(
                "after a loss nothing comes from memory before a barrier is back",
                |_, world: &World| world.broken() != Some(Broken::FromMemory),
            ),
            Property::always("a disconnected node keeps nothing", |_, world: &World| {
                world.nodes.iter().all(|node| !node.cache.kept_without_listener)
            }),
            Property::always("every node learns what was committed", |policy: &Policy, world: &World| {
                policy.bounds.apart == Apart::Nothing
                    || world.nodes.iter().all(|node| world.informs(policy, node))
            }),
            Property::always("every node can be trusted again", |policy: &Policy, world: &World| {
                world
                    .nodes
                    .iter()
                    .all(|node| policy.bounds.disconnects == 0 || node.recovers(policy, &world.database))
            }),
        ]
    }
}

impl World {
    fn broken(&self) -> Option<Broken> {
        self.nodes.iter().find_map(|node| node.reading.broken)
    }

    /// What the same lane does next without waiting.
    fn goes_on(&self, action: Action) -> Option<Action> {
        let (Action::Get(at)
        | Action::Lookup(at)
        | Action::Judge(at)
        | Action::IsTrusted(at)
        | Action::Enqueue(at)
        | Action::Reread(at)
        | Action::Publish(at)) = action
        else {
            return None;
        };
        let node = &self.nodes[at];
        let reads = !matches!(action, Action::Reread(_) | Action::Publish(_));
        match (node.reading.reader, node.writing.update) {
            (Reader::Trusting { .. }, _) if reads => Some(Action::Lookup(at)),
            (Reader::Found { .. }, _) if reads => Some(Action::Judge(at)),
            (Reader::Missed { .. }, _) if reads => Some(Action::IsTrusted(at)),
            (Reader::MayJoin { .. }, _) if reads => Some(Action::Enqueue(at)),
            (_, Update::Reread { .. }) if !reads => Some(Action::CatchUp(at)),
            (_, Update::Noted { .. }) if !reads => Some(Action::Publish(at)),
            _ => None,
        }
    }

    /// Whether `node` comes to serve nothing older than the database holds, by itself, if nothing else happens.
    fn informs(&self, policy: &Policy, node: &Node) -> bool {
        let owed = self.nodes.iter().filter_map(|node| node.writing.owed).chain(self.gaps.owed);
        let owed = owed.filter(|_| policy.holds(Guard::NotifyAgain));
        let notified = self.gaps.open.iter().map(|gap| gap.version).chain(owed).max();
        let event = notified.map(|version| Self::event(policy, version));
        let mut node = node.clone();
        if self.gaps.died && !node.listening.noticed_silence && policy.holds(Guard::Silence) {
            node.listening.notice_silence(policy, &mut node.cache);
        }
        node.learns(policy, event, &self.database)
    }

    fn event(policy: &Policy, version: Version) -> Event {
        match policy.bounds.ending {
            Some(ending) if version == Version::DELETED => Event::Ended(ending),
            _ => Event::Changed(version),
        }
    }

    /// What may follow a commit that did not notify.
    fn settle(&self, policy: &Policy, actions: &mut Vec<Action>) {
        let gaps = &self.gaps;
        for at in 0..gaps.open.len() {
            actions.push(Action::Notify(at));
            if policy.bounds.unknown {
                actions.push(Action::EndProcess(at));
            }
        }
        if gaps.stuck.is_some() {
            actions.extend([Action::CommitStuck, Action::EndStuck]);
        }
        if gaps.may_settle(policy) {
            let owing = self.nodes.iter().enumerate().filter(|(_, node)| node.writing.owed.is_some());
            actions.extend(owing.map(|(at, _)| Action::NotifyAgain(at)));
            actions.extend(gaps.owed.map(|_| Action::NotifyAgainElsewhere));
        }
        if policy.bounds.death && !gaps.died && (gaps.owed.is_some() || gaps.is_elsewhere()) {
            actions.push(Action::DieElsewhere);
        }
        if gaps.died && gaps.stuck.is_none() && policy.holds(Guard::Silence) {
            let unaware = self.nodes.iter().enumerate().filter(|(_, node)| !node.listening.noticed_silence);
            actions.extend(unaware.map(|(at, _)| Action::NoticeSilence(at)));
        }
        let may_give_up = policy.bounds.gives_up && policy.bounds.apart == Apart::Updates;
        if may_give_up && policy.bounds.elsewhere && !gaps.given_up && self.may_update(policy) {
            actions.push(Action::GiveUpElsewhere);
        }
    }

    fn may_update(&self, policy: &Policy) -> bool {
        self.database.row.is_live() && self.database.row.updates() < policy.bounds.updates
    }

    fn may_delete(&self, policy: &Policy) -> bool {
        let row = self.database.row;
        row.is_live()
            && match policy.bounds.ending {
                Some(Ending::NewGroup) => row > Version::FIRST,
                Some(Ending::Session | Ending::Owner | Ending::All) => true,
                Some(Ending::Expiry) | None => false,
            }
    }

    fn read(&self, at: usize, actions: &mut Vec<Action>) {
        let reading = &self.nodes[at].reading;
        match reading.reader {
            Reader::Idle => actions.push(Action::Get(at)),
            Reader::Trusting { .. } => actions.push(Action::Lookup(at)),
            Reader::Found { .. } => actions.push(Action::Judge(at)),
            Reader::Missed { .. } => actions.push(Action::IsTrusted(at)),
            Reader::MayJoin { .. } => actions.push(Action::Enqueue(at)),
            Reader::Queued { .. } | Reader::Aboard { .. } => {}
        }
        match reading.flight {
            None => actions.push(Action::Depart(at)),
            Some(flight) if flight.read.is_none() => actions.push(Action::Select(at)),
            Some(_) => actions.push(Action::Arrive(at)),
        }
        if self.nodes[at].cache.slot.is_some() {
            actions.push(Action::Evict(at));
        }
    }

    fn write(&self, policy: &Policy, at: usize, actions: &mut Vec<Action>) {
        let node = &self.nodes[at];
        match node.writing.update {
            Update::Idle if node.holds_session() && policy.bounds.updates > 0 => {
                actions.push(Action::BeginWrite(at));
            }
            Update::Idle => {}
            Update::Overtaken { .. } => actions.push(Action::Reread(at)),
            Update::Reread { .. } => actions.push(Action::CatchUp(at)),
            Update::Begun { .. } if self.may_update(policy) || !self.database.row.is_live() => {
                actions.push(Action::CommitUpdate(at));
            }
            Update::Begun { .. } | Update::Unnotified { .. } => {}
            Update::Committed { .. } => {
                actions.push(Action::Publish(at));
                if policy.bounds.unknown && policy.bounds.apart == Apart::Nothing {
                    actions.push(Action::OutcomeUnknown(at));
                }
            }
            Update::Noted { .. } | Update::NotFound => actions.push(Action::Publish(at)),
        }
        let gives_up = policy.bounds.gives_up && policy.bounds.apart == Apart::Updates;
        if gives_up && !self.gaps.given_up && node.writing.goal().is_some() {
            actions.push(Action::GiveUp(at));
        }
        match node.writing.delete {
            Delete::Idle if self.may_delete(policy) => actions.push(Action::CommitDelete(at)),
            Delete::Idle => {}
            Delete::Committed => actions.push(Action::Forget(at)),
        }
    }

    fn receive(&self, policy: &Policy, at: usize, actions: &mut Vec<Action>) {
        let listening = &self.nodes[at].listening;
        if !listening.events.is_empty() {
            actions.push(Action::Receive(at));
        }
        if listening.may_send_barrier() && (listening.trust == 0 || policy.bounds.window > 1) {
            actions.push(Action::SendBarrier(at));
        }
        if listening.resync != Resync::Idle {
            actions.push(Action::Resync(at));
        }
        if listening.may_disconnect() && self.disconnects < policy.bounds.disconnects {
            actions.extend((0..=listening.events.len()).map(|kept| Action::Disconnect(at, kept)));
        }
        if listening.may_notice_loss() {
            actions.push(Action::Lost(at));
        }
        if listening.may_listen(policy) {
            actions.push(Action::Listen(at));
        }
    }

    fn step(&mut self, policy: &Policy, action: Action) {
        let Self { database, nodes, gaps, .. } = self;
        match action {
            Action::Tick => {
                database.tick();
                nodes.iter_mut().for_each(|node| node.tick(policy));
            }
            Action::Get(at) => {
                let node = &mut nodes[at];
                node.reading.get(&node.listening, database);
            }
            Action::Lookup(at) => {
                let node = &mut nodes[at];
                node.reading.lookup(&node.cache);
            }
            Action::Judge(at) => {
                let node = &mut nodes[at];
                node.reading.judge(policy, node.listening.trust, &node.cache, database);
            }
            Action::IsTrusted(at) => {
                let node = &mut nodes[at];
                node.reading.is_trusted(policy, node.listening.trust);
            }
            Action::Enqueue(at) => {
                let node = &mut nodes[at];
                node.reading.enqueue(policy, &node.cache);
            }
            Action::Depart(at) => {
                let node = &mut nodes[at];
                node.reading.depart(&node.cache);
            }
            Action::Select(at) => {
                nodes[at].reading.select(database);
            }
            Action::Arrive(at) => {
                let node = &mut nodes[at];
                node.reading.arrive(policy, &mut node.cache, database);
            }
            Action::BeginWrite(at) => {
                let node = &mut nodes[at];
                node.writing.begin_write(policy, node.reading.answered, &mut node.cache);
            }
            Action::Reread(at) => nodes[at].writing.reread(policy, database),
            Action::CatchUp(at) => {
                let node = &mut nodes[at];
                node.writing.catch_up(&node.cache);
            }
            Action::CommitUpdate(at) => {
                let node = &mut nodes[at];
                if let Some(version) = node.writing.commit(policy, &mut node.cache, database) {
                    self.committed(policy, version, Caller::Node(at));
                }
            }
            Action::Publish(at) => {
                let node = &mut nodes[at];
                if let Some(answered) = node.writing.publish(policy, &mut node.cache) {
                    node.reading.tell(answered);
                    if answered.is_live() {
                        database.acknowledge(answered);
                    }
                }
            }
            Action::OutcomeUnknown(at) => {
                let node = &mut nodes[at];
                node.writing.outcome_unknown(policy, &mut node.cache);
            }
            Action::Notify(at) => {
                policy.tally.add(Seen::LateNotice);
                let gap = gaps.open.remove(at);
                match gap.caller {
                    Caller::Node(at) => nodes[at].writing.notified(),
                    Caller::Elsewhere => database.acknowledge(gap.version),
                    Caller::None => {}
                }
                self.notify(Self::event(policy, gap.version));
            }
            Action::EndProcess(at) => {
                policy.tally.add(Seen::GapEnd);
                let gap = gaps.open.remove(at);
                match gap.caller {
                    Caller::Node(at) => {
                        let node = &mut nodes[at];
                        node.writing.owe(gap.version);
                        node.writing.outcome_unknown(policy, &mut node.cache);
                    }
                    Caller::Elsewhere => gaps.owe(gap.version),
                    Caller::None => {}
                }
            }
            Action::GiveUp(at) => {
                gaps.given_up = true;
                let node = &mut nodes[at];
                match node.writing.update {
                    Update::Begun { made, .. } => gaps.stuck = Some(made.base),
                    _ => gaps.abandon(Caller::Node(at)),
                }
                node.writing.give_up(policy, &mut node.cache);
            }
            Action::NotifyAgain(at) => {
                if let Some(version) = nodes[at].writing.owed.take() {
                    policy.tally.add(Seen::NoticeAgain);
                    self.notify(Self::event(policy, version));
                }
            }
            Action::NotifyAgainElsewhere => {
                if let Some(version) = gaps.owed.take() {
                    policy.tally.add(Seen::NoticeAgain);
                    self.notify(Self::event(policy, version));
                }
            }
            Action::CommitStuck => {
                if gaps.stuck.take() == Some(database.row) {
                    policy.tally.add(Seen::CommitAlone);
                    let version = database.update();
                    self.committed(policy, version, Caller::None);
                }
            }
            Action::EndStuck => gaps.stuck = None,
            Action::GiveUpElsewhere => {
                gaps.given_up = true;
                gaps.stuck = Some(database.row);
                gaps.owe(database.row.next());
            }
            Action::DieElsewhere => {
                gaps.abandon(Caller::Elsewhere);
                gaps.owed = None;
                gaps.died = true;
            }
            Action::NoticeSilence(at) => {
                let node = &mut nodes[at];
                node.listening.notice_silence(policy, &mut node.cache);
            }
            Action::DeleteAgain => database.acknowledge(Version::DELETED),
            Action::CommitDelete(at) => {
                database.delete();
                nodes[at].writing.delete = Delete::Committed;
                self.end(policy);
            }
            Action::Forget(at) => {
                let node = &mut nodes[at];
                node.writing.forget(policy, &mut node.cache);
                node.reading.tell(Version::DELETED);
                database.acknowledge(Version::DELETED);
            }
            Action::Evict(at) => nodes[at].cache.take(),
            Action::Receive(at) => {
                let node = &mut nodes[at];
                let handled = node.cache.handled;
                node.listening.receive(policy, &mut node.cache);
                if node.cache.handled != Version::DELETED {
                    // An update whose outcome is unknown may never be committed. Another one then gets its version.
                    node.cache.handled = node.cache.handled.min(handled.max(database.committed));
                }
            }
            Action::SendBarrier(at) => nodes[at].listening.send_barrier(policy),
            Action::Resync(at) => {
                let node = &mut nodes[at];
                node.listening.resync(policy, &mut node.cache, database);
            }
            Action::Disconnect(at, kept) => {
                nodes[at].listening.disconnect(kept);
                self.disconnects += 1;
            }
            Action::Lost(at) => nodes[at].listening.lost(),
            Action::Listen(at) => nodes[at].listening.listen(),
            // Answered at once: later would only ask less of the readers.
            Action::UpdateElsewhere => {
                let version = database.update();
                if !policy.commits_first(version) || !policy.holds(Guard::NotifyBeforeAnswer) {
                    database.acknowledge(version);
                }
                self.committed(policy, version, Caller::Elsewhere);
            }
            Action::DeleteElsewhere => {
                database.delete();
                if policy.bounds.apart == Apart::Deletes {
                    gaps.add(Version::DELETED, Caller::Elsewhere);
                } else {
                    database.acknowledge(Version::DELETED);
                    self.end(policy);
                }
            }
            Action::Expire => database.expire(),
        }
        self.nodes.iter_mut().for_each(|node| node.canonical(policy));
    }

    /// An update has committed.
    fn committed(&mut self, policy: &Policy, version: Version, caller: Caller) {
        if policy.commits_first(version) {
            self.gaps.add(version, caller);
        } else {
            self.notify(Event::Changed(version));
        }
    }

    fn end(&mut self, policy: &Policy) {
        if let Some(ending) = policy.bounds.ending {
            self.notify(Event::Ended(ending));
        }
    }

    fn notify(&mut self, event: Event) {
        self.nodes.iter_mut().for_each(|node| node.listening.notify(event));
    }
}
