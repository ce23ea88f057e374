//! The steps of the model, and what must always hold.

use std::fmt;

use arrayvec::ArrayVec;
use stateright::{Model, Property};

use super::{
    ALLOWANCE, Caller, Cluster, Link, NODES_MAX, Node, Other, Pin, Registry, RegistryGuard, Sight, Step,
    WINDOW,
};

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Time { lost_by: None } => f.write_str("Time"),
            Self::Time { lost_by: Some(at) } => write!(f, "Time(lost by {at})"),
            Self::Load(at) => write!(f, "Load({at})"),
            Self::SendBeat(at) => write!(f, "SendBeat({at})"),
            Self::SendLoss(at) => write!(f, "SendLoss({at})"),
            Self::CommitBeat(at) => write!(f, "CommitBeat({at})"),
            Self::AnswerBeat(at) => write!(f, "AnswerBeat({at})"),
            Self::RepeatBeat(at) => write!(f, "RepeatBeat({at})"),
            Self::CommitLate(at) => write!(f, "CommitLate({at})"),
            Self::Barrier(at) => write!(f, "Barrier({at})"),
            Self::ReadRows => f.write_str("ReadRows"),
            Self::SendTick => f.write_str("SendTick"),
            Self::Receive(at) => write!(f, "Receive({at})"),
            Self::LookUp(at) => write!(f, "LookUp({at})"),
            Self::Break(at, kept) => write!(f, "Break({at}, {kept} kept)"),
            Self::NoticeLoss(at) => write!(f, "NoticeLoss({at})"),
            Self::Listen(at) => write!(f, "Listen({at})"),
            Self::Leave(at) => write!(f, "Leave({at})"),
            Self::Look(at) => write!(f, "Look({at})"),
            Self::Remove(at) => write!(f, "Remove({at})"),
            Self::Crash { .. } => f.write_str("Crash"),
            Self::NumberFirst => f.write_str("NumberFirst"),
            Self::Revoke => f.write_str("Revoke"),
            Self::Request => f.write_str("Request"),
            Self::Poll => f.write_str("Poll"),
            Self::NumberOther => f.write_str("NumberOther"),
            Self::NotifyOther => f.write_str("NotifyOther"),
        }
    }
}

impl Model for Registry {
    type State = Cluster;
    type Action = Step;

    fn init_states(&self) -> Vec<Cluster> {
        let node = Node {
            link: Link::Up,
            events: ArrayVec::new(),
            listening: true,
            holds: false,
            trust: 0,
            proved: 0,
            pin: Pin::Nothing,
            unverified: false,
            beats: 0,
            pending: ArrayVec::new(),
            sending: None,
            late: None,
            answer: None,
            heard: 0,
            unsettled: 0,
            left: false,
        };
        vec![Cluster {
            nodes: (0..self.nodes).map(|_| node.clone()).collect(),
            rows: [None; NODES_MAX],
            sights: [Sight::Nothing; NODES_MAX],
            revoked: false,
            next_request: 1,
            ticks: 0,
            tick: None,
            caller: Caller::Idle,
            since: 0,
            registered: WINDOW + ALLOWANCE,
            other: Other::Idle,
            crashes: 0,
            losses: 0,
            slow: 0,
            removals: 0,
            passed_over: false,
            early: false,
        }]
    }

    fn actions(&self, cluster: &Cluster, steps: &mut Vec<Step>) {
        steps.push(Step::Time { lost_by: None });
        for (at, node) in cluster.nodes.iter().enumerate() {
            if cluster.slow < self.slow && !node.left {
                steps.push(Step::Time { lost_by: Some(at) });
            }
            cluster.node_steps(self, at, steps);
        }
        match cluster.tick {
            None if cluster.ticks < self.ticks => steps.push(Step::ReadRows),
            None => {}
            Some(_) => steps.push(Step::SendTick),
        }
        if cluster.crashes < self.crashes {
            steps.extend([Step::Crash { kept: true }, Step::Crash { kept: false }]);
        }
        match cluster.caller {
            Caller::Idle if self.holds(RegistryGuard::RequestAfterCommit) => steps.push(Step::Revoke),
            Caller::Idle => steps.push(Step::NumberFirst),
            Caller::Numbered(_) => steps.push(Step::Revoke),
            Caller::Committed { .. } => steps.push(Step::Request),
            Caller::Waiting(_) => steps.push(Step::Poll),
            Caller::Returned => {}
        }
        match cluster.other {
            Other::Idle if self.other => steps.push(Step::NumberOther),
            Other::Numbered(_) => steps.push(Step::NotifyOther),
            Other::Idle | Other::Notified => {}
        }
    }

    fn next_state(&self, cluster: &Cluster, step: Step) -> Option<Cluster> {
        let mut next = cluster.clone();
        next.step(self, step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no node serves the old state after everywhere()", |_, cluster: &Cluster| {
                cluster.caller != Caller::Returned || !cluster.serves()
            }),
            Property::always("I3 no node serves the old state after the window", |_, cluster: &Cluster| {
                cluster.since < WINDOW + ALLOWANCE || !cluster.serves()
            }),
            Property::always("everywhere() ends after the window", |policy: &Self, cluster: &Cluster| {
                cluster.ends(policy)
            }),
            Property::always("every node is trusted again", |policy: &Self, cluster: &Cluster| {
                (0..cluster.nodes.len()).all(|at| cluster.recovers(policy, at))
            }),
            // A model in which nothing happens keeps every promise.
            Property::sometimes("a trusted node acknowledges", |_, cluster: &Cluster| {
                cluster.early
                    && cluster.rows.iter().flatten().any(|row| row.heard > 0)
                    && cluster.nodes.iter().any(|node| node.trust > 0)
            }),
            Property::sometimes("a request waits for a lookup", |_, cluster: &Cluster| {
                cluster.nodes.iter().any(|node| node.unsettled > 0)
            }),
            Property::sometimes("everywhere() lapses", |_, cluster: &Cluster| {
                cluster.caller == Caller::Returned && !cluster.early
            }),
            Property::sometimes("a silent row is removed", |policy: &Self, cluster: &Cluster| {
                !policy.removes || cluster.removals > 0
            }),
            Property::sometimes(
                "everywhere() passes over a node without a listener",
                |policy: &Self, cluster: &Cluster| !policy.tells || cluster.passed_over,
            ),
        ]
    }
}
