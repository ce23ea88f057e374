//! The read lane of a node: `manager/get.rs` and `loader.rs`, step by step.
//!
//! ```text
//! get: until ── lookup ── judge: clock, epoch ──────────────────────────────────────────▶ answer
//!                  └── miss ──┴── is_trusted ── enqueue ── depart ── select ── arrive ──▶ answer
//! ```
//!
//! One reader is followed. There are others, for whom a load may depart at any moment, and who get its result.

use crate::cache::{Cache, Record, Slot, Ticket};
use crate::database::Database;
use crate::guard::Guard;
use crate::listening::Listening;
use crate::policy::Policy;
use crate::promise::{Broken, Floor};
use crate::tally::Seen;
use crate::version::Version;

/// Where the reader is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reader {
    Idle,
    /// Has read `Trust::until`, so many ticks from now.
    Trusting {
        until: u8,
        /// Whether that is from before a loss that was handled.
        outlived_loss: bool,
        floor: Floor,
    },
    /// Has what was in memory.
    Found {
        until: u8,
        outlived_loss: bool,
        slot: Slot,
        floor: Floor,
    },
    Missed {
        floor: Floor,
    },
    /// Was trusted, and looks for a load to join.
    MayJoin {
        floor: Floor,
    },
    /// Waits for the next load to depart.
    Queued {
        floor: Floor,
    },
    /// Waits for the load in flight.
    Aboard {
        floor: Floor,
    },
}

/// A load in flight.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flight {
    pub(crate) ticket: Ticket,
    /// What the query saw.
    pub(crate) read: Option<Version>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reading {
    pub(crate) reader: Reader,
    pub(crate) flight: Option<Flight>,
    /// The highest version that this node has answered with, to a read or to a write.
    pub(crate) answered: Version,
    pub(crate) broken: Option<Broken>,
}

impl Reading {
    pub(crate) fn new() -> Self {
        Self { reader: Reader::Idle, flight: None, answered: Version::ABSENT, broken: None }
    }

    pub(crate) fn get(&mut self, listening: &Listening, database: &Database) {
        let floor = Floor::new(self.answered, database.due());
        let Listening { trust, outlived_loss, .. } = *listening;
        self.reader = Reader::Trusting { until: trust, outlived_loss, floor };
    }

    pub(crate) fn lookup(&mut self, cache: &Cache) {
        if let Reader::Trusting { until, outlived_loss, floor } = self.reader {
            self.reader = match cache.slot {
                // The epoch and the time would be judged in vain.
                None => Reader::Missed { floor },
                Some(slot) => Reader::Found { until, outlived_loss, slot, floor },
            };
        }
    }

    /// The clock is read, and the epoch.
    pub(crate) fn judge(&mut self, policy: &Policy, trust: u8, cache: &Cache, database: &Database) {
        let Reader::Found { until, outlived_loss, slot, floor } = self.reader else { return };
        let until = if policy.holds(Guard::UntilFirst) { until } else { trust };
        let trusted = until > 0 || !policy.holds(Guard::TrustWindow);
        let verified = slot.epoch == cache.epoch() || !policy.holds(Guard::Verified);
        // The node's bound of the database's clock is never behind it: it knows at once.
        let ended = database.expired && policy.holds(Guard::Expiry);
        self.reader = Reader::Missed { floor };
        if trusted && verified && ended {
            policy.tally.add(Seen::EndedInMemory);
        } else if trusted && verified {
            // The strongest form of I3: what is due now, not when the read began.
            let floor = floor.raise(database.due());
            policy.tally.add(Seen::Hit);
            if outlived_loss {
                self.broken = self.broken.or(Some(Broken::FromMemory));
            }
            self.answer(floor, Some(slot.record), database);
        }
    }

    pub(crate) fn is_trusted(&mut self, policy: &Policy, trust: u8) {
        if let Reader::Missed { floor } = self.reader {
            self.reader = if trust > 0 || !policy.holds(Guard::JoinTrusted) {
                Reader::MayJoin { floor }
            } else {
                Reader::Queued { floor }
            };
        }
    }

    pub(crate) fn enqueue(&mut self, policy: &Policy, cache: &Cache) {
        let Reader::MayJoin { floor } = self.reader else { return };
        let joins = self.flight.is_some_and(|flight| {
            cache.is_current(policy, flight.ticket) || !policy.holds(Guard::JoinCurrent)
        });
        if joins {
            policy.tally.add(Seen::Join);
        }
        self.reader = if joins { Reader::Aboard { floor } } else { Reader::Queued { floor } };
    }

    /// For the reader, or for another reader.
    pub(crate) fn depart(&mut self, cache: &Cache) {
        self.flight = Some(Flight { ticket: cache.ticket(), read: None });
        if let Reader::Queued { floor } = self.reader {
            self.reader = Reader::Aboard { floor };
        }
    }

    /// The query takes its snapshot.
    pub(crate) fn select(&mut self, database: &Database) {
        if let Some(flight) = &mut self.flight {
            flight.read = Some(database.row);
        }
    }

    pub(crate) fn arrive(&mut self, policy: &Policy, cache: &mut Cache, database: &Database) {
        let Some(Flight { ticket, read: Some(version) }) = self.flight.take() else { return };
        let ticket = if policy.holds(Guard::TicketBeforeQuery) { ticket } else { cache.ticket() };
        let found = version.is_live().then_some(Record { version, whole: true });
        match found {
            Some(record) => {
                cache.install(policy, ticket, record);
            }
            None => {
                policy.tally.add(Seen::None);
                cache.mark_absent(policy);
            }
        }
        self.tell(version);
        if let Reader::Aboard { floor } = self.reader {
            if found.is_some() && database.expired && policy.holds(Guard::JoinLive) {
                policy.tally.add(Seen::EndedAboard);
                self.reader = Reader::Queued { floor };
                return;
            }
            self.answer(floor, found, database);
        }
    }

    fn answer(&mut self, floor: Floor, answer: Option<Record>, database: &Database) {
        self.reader = Reader::Idle;
        self.broken = self.broken.or(floor.judge(answer, database));
        self.tell(answer.map_or(Version::DELETED, |record| record.version));
    }

    /// A reader on this node gets `version`, or that there is none.
    pub(crate) fn tell(&mut self, version: Version) {
        self.answered = self.answered.max(version);
    }

    pub(crate) fn tick(&mut self, policy: &Policy) {
        if let Reader::Trusting { until, .. } | Reader::Found { until, .. } = &mut self.reader
            && policy.holds(Guard::ClockLast)
        {
            *until = until.saturating_sub(1);
        }
    }

    /// A reader who cannot be served from memory any more may as well know it: it changes nothing that he sees.
    pub(crate) fn canonical(&mut self, policy: &Policy, cache: &Cache) {
        let lost = match self.reader {
            Reader::Trusting { until, floor, .. } => (until == 0).then_some(floor),
            Reader::Found { until, slot, floor, .. } => {
                (until == 0 || slot.epoch != cache.epoch() && policy.holds(Guard::Verified)).then_some(floor)
            }
            _ => None,
        };
        if let Some(floor) = lost
            && policy.holds(Guard::TrustWindow)
            && policy.holds(Guard::UntilFirst)
        {
            self.reader = Reader::Missed { floor };
        }
    }
}
