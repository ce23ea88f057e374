//! The invalidation lane: `pg-listen`'s connection and barriers, and `crates/pg-session/src/invalidation`.
//!
//! ```text
//! Up ── disconnect: what was read so far is kept, the rest is lost ──▶ Broken ── lost ──▶ Down ── listen ──▶ Up
//! ```
//!
//! Everything on its way from a commit to the invalidation task is one queue: the server's, the socket's and the
//! subscription's. Only its head has been read when the connection breaks, and how much that is, is any number.

use arrayvec::ArrayVec;

use crate::cache::{Cache, Ticket};
use crate::database::Database;
use crate::guard::Guard;
use crate::policy::{Ending, Policy};
use crate::tally::Seen;
use crate::version::Version;

/// Events on their way; the bounds of a model see to it that there is room.
const EVENTS_MAX: usize = 10;

/// The events of the invalidation task, in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    Changed(Version),
    Ended(Ending),
    Listening,
    /// A barrier is back that was begun this many ticks ago.
    InSync {
        age: u8,
    },
    Lost,
}

impl Ending {
    pub(crate) fn apply(self, policy: &Policy, cache: &mut Cache) {
        match self {
            Self::Session => cache.remove(policy),
            Self::Owner => cache.remove_owner(policy),
            Self::NewGroup => cache.remove_new_group(policy),
            Self::All => cache.remove_all(policy),
            Self::Expiry => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Link {
    Up,
    /// The server sends nothing any more, and the node does not know it.
    Broken,
    Down,
}

/// The task of `invalidation::resync`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Resync {
    Idle,
    Wanted,
    Asked { ticket: Ticket },
    Found { ticket: Ticket, version: Version },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Listening {
    link: Link,
    pub(crate) events: ArrayVec<Event, EVENTS_MAX>,
    /// `Trust::until`, as ticks from now; none if it has passed.
    pub(crate) trust: u8,
    /// Whether that trust is older than a loss that was handled. Not in the library: a promise is judged by it.
    pub(crate) outlived_loss: bool,
    pub(crate) resync: Resync,
    /// Listening has started again while the resync was at work.
    wanted_again: bool,
    /// Whether the silence of a node that has ended was noticed.
    pub(crate) noticed_silence: bool,
}

impl Listening {
    /// LISTEN is in force, and nothing was proved yet.
    pub(crate) fn new() -> Self {
        Self {
            link: Link::Up,
            events: ArrayVec::new(),
            trust: 0,
            outlived_loss: false,
            resync: Resync::Idle,
            wanted_again: false,
            noticed_silence: false,
        }
    }

    /// A commit notifies every listener.
    pub(crate) fn notify(&mut self, event: Event) {
        if self.link == Link::Up {
            self.events.push(event);
        }
    }

    pub(crate) fn may_disconnect(&self) -> bool {
        self.link == Link::Up
    }

    /// The first `kept` events had been read.
    pub(crate) fn disconnect(&mut self, kept: usize) {
        self.link = Link::Broken;
        self.events.truncate(kept);
    }

    pub(crate) fn may_notice_loss(&self) -> bool {
        self.link == Link::Broken
    }

    pub(crate) fn lost(&mut self) {
        self.link = Link::Down;
        self.events.push(Event::Lost);
    }

    pub(crate) fn may_listen(&self, policy: &Policy) -> bool {
        self.link == Link::Down && policy.holds(Guard::Relisten)
    }

    pub(crate) fn listen(&mut self) {
        self.link = Link::Up;
        self.events.push(Event::Listening);
    }

    /// One at a time; and while there is trust, in a window of one tick, another would prove nothing that matters.
    pub(crate) fn may_send_barrier(&self) -> bool {
        let under_way = self.events.iter().any(|event| matches!(event, Event::InSync { .. }));
        self.link == Link::Up && !under_way
    }

    /// `Barriers::begin` reads the clock, and the server commits the NOTIFY at once. Later would only be worth less.
    pub(crate) fn send_barrier(&mut self, policy: &Policy) {
        let returned = Event::InSync { age: 0 };
        if policy.holds(Guard::Barrier) {
            self.events.push(returned);
        } else {
            // A ping's answer proves that the server is there, and has nothing to do with notifications.
            self.events.insert(0, returned);
        }
    }

    /// `Listening::run` handles one event.
    pub(crate) fn receive(&mut self, policy: &Policy, cache: &mut Cache) {
        match self.events.remove(0) {
            Event::Changed(version) => cache.invalidate(policy, version),
            Event::Ended(ending) => ending.apply(policy, cache),
            Event::Listening => {
                cache.start_listening();
                self.want_resync();
            }
            Event::InSync { age } => {
                let age = if policy.holds(Guard::AsOfBeforeSending) { age } else { 0 };
                self.trust = policy.bounds.window - age;
                self.outlived_loss = false;
                policy.tally.add(if cache.epoch() == 1 { Seen::Trusted } else { Seen::TrustedAgain });
            }
            Event::Lost => self.on_lost(policy, cache),
        }
    }

    fn want_resync(&mut self) {
        match self.resync {
            Resync::Idle => self.resync = Resync::Wanted,
            _ => self.wanted_again = true,
        }
    }

    /// A node has ended that may owe notifications. Nothing in memory is served before it was verified.
    pub(crate) fn notice_silence(&mut self, policy: &Policy, cache: &mut Cache) {
        policy.tally.add(Seen::Silence);
        self.noticed_silence = true;
        // While the node is disconnected, the next connection does the same.
        if cache.is_listening() {
            cache.stop_listening();
            cache.start_listening();
            self.want_resync();
        }
    }

    fn on_lost(&mut self, policy: &Policy, cache: &mut Cache) {
        if policy.holds(Guard::LossRevokes) {
            self.trust = 0;
        }
        if policy.holds(Guard::LossBeginsEpoch) {
            cache.stop_listening();
        }
        self.outlived_loss = self.trust > 0;
    }

    /// `Resync::verify`, step by step: ticket, query, verdict.
    pub(crate) fn resync(&mut self, policy: &Policy, cache: &mut Cache, database: &Database) {
        self.resync = match self.resync {
            Resync::Wanted if cache.is_unverified() => Resync::Asked { ticket: cache.ticket() },
            Resync::Asked { ticket } => Resync::Found { ticket, version: database.row },
            Resync::Found { ticket, version } => {
                cache.verify(policy, ticket, version);
                self.rested()
            }
            Resync::Wanted | Resync::Idle => self.rested(),
        };
    }

    fn rested(&mut self) -> Resync {
        if std::mem::take(&mut self.wanted_again) { Resync::Wanted } else { Resync::Idle }
    }

    pub(crate) fn ticket(&mut self) -> Option<&mut Ticket> {
        match &mut self.resync {
            Resync::Asked { ticket } | Resync::Found { ticket, .. } => Some(ticket),
            Resync::Idle | Resync::Wanted => None,
        }
    }

    /// A barrier that is as old as the window proves nothing any more, and is as good as lost.
    pub(crate) fn tick(&mut self, policy: &Policy) {
        self.trust = self.trust.saturating_sub(1);
        self.outlived_loss &= self.trust > 0;
        for event in &mut self.events {
            if let Event::InSync { age } = event {
                *age = policy.bounds.window.min(*age + 1);
            }
        }
        if policy.holds(Guard::AsOfBeforeSending) {
            let worthless = Event::InSync { age: policy.bounds.window };
            self.events.retain(|event| *event != worthless);
        }
    }
}
