//! Barriers: the proof of what has been received.
//!
//! A barrier is a NOTIFY with a nonce, sent on the listening connection to a channel private to this
//! listener. PostgreSQL delivers notifications in the order of commits, and the barrier is a commit like any
//! other. So when it comes back, everything committed before it has been read from the socket before. `as_of`
//! is read before the barrier is written, and is therefore never later than the barrier's commit.
//!
//! A ping (`SELECT 1`) proves less. It shows that the server process answers, not that earlier
//! notifications were delivered. They may still wait in the server's queue, while the listening
//! process is inside a transaction. Or LISTEN may not be in force at all, as behind a pooler that
//! gives each transaction another connection. Then pings are answered for ever, and barriers are
//! not.
//!
//! A nonce is a counter and 122 random bits, and only the one that is awaited now counts. Any role
//! may notify any channel, and what it sends here is ignored.
//!
//! At most one barrier is in flight. Callers that ask meanwhile share the next one.

use std::time::Instant;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::channel::Channel;
use crate::clock;
use crate::error::Error;
use crate::error_kind::ErrorKind;
use crate::notify_query::NotifyQuery;

/// Callers of `barrier()` that may wait at once, per listener.
pub(crate) const BARRIER_CALLERS_MAX: usize = 4_096;

/// One who asked for a barrier and waits for its `as_of`.
pub(crate) type Caller = oneshot::Sender<Result<Instant, Error>>;

/// The running number of a barrier in a listener's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BarrierNumber(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct Barriers {
    channel: Channel,
    next: u64,
    wanted: bool,
    waiting: Vec<Caller>,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    number: BarrierNumber,
    nonce: String,
    as_of: Instant,
    callers: Vec<Caller>,
}

/// A barrier that came back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Returned {
    pub(crate) number: BarrierNumber,
    pub(crate) as_of: Instant,
    callers: Vec<Caller>,
}

impl Barriers {
    pub(crate) fn new() -> Self {
        let name = format!("pg_listen_{}_{}", std::process::id(), Uuid::new_v4().simple());
        #[allow(clippy::expect_used, reason = "10 + at most 10 + 1 + 32 bytes of ASCII are a valid name")]
        let channel = Channel::new(&name).expect("the private channel's name is valid");
        Self { channel, next: 0, wanted: false, waiting: Vec::new(), pending: None }
    }

    /// The channel private to this listener.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(crate) fn next_number(&self) -> BarrierNumber {
        BarrierNumber(self.next)
    }

    /// Asks for a barrier, to be sent as soon as none is in flight.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// The same, and `caller` receives its `as_of`.
    pub(crate) fn want_for(&mut self, caller: Caller) {
        if self.waiting.len() >= BARRIER_CALLERS_MAX {
            self.waiting.retain(|caller| !caller.is_closed());
        }
        if self.waiting.len() >= BARRIER_CALLERS_MAX {
            let message =
                format!("{BARRIER_CALLERS_MAX} callers wait for a barrier already; ask again later");
            answer(caller, Err(Error::new(ErrorKind::Overloaded, message)));
            return;
        }
        self.waiting.push(caller);
        self.wanted = true;
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Begins the next barrier and returns the notification to be sent.
    pub(crate) fn begin(&mut self) -> NotifyQuery {
        // A barrier that is forgotten would fail its callers.
        assert!(self.pending.is_none(), "one barrier at a time");
        let nonce = format!("{:x}-{}", self.next, Uuid::new_v4().simple());
        let query = NotifyQuery::ours(self.channel.clone(), nonce.clone());
        self.pending = Some(Pending {
            number: self.next_number(),
            nonce,
            as_of: clock::now(),
            callers: std::mem::take(&mut self.waiting),
        });
        self.next += 1;
        self.wanted = false;
        query
    }

    /// A notification came on the private channel. `None` if it is not the barrier in flight: forged, or left
    /// over.
    pub(crate) fn returned(&mut self, nonce: &str) -> Option<Returned> {
        let pending = self.pending.take_if(|pending| pending.nonce == nonce)?;
        Some(Returned { number: pending.number, as_of: pending.as_of, callers: pending.callers })
    }

    /// The connection is lost: whatever is in flight will not come back, and nothing new can be sent.
    pub(crate) fn fail(&mut self, error: impl Fn() -> Error) {
        let pending = self.pending.take().map(|pending| pending.callers).unwrap_or_default();
        for caller in pending.into_iter().chain(self.waiting.drain(..)) {
            answer(caller, Err(error()));
        }
        self.wanted = false;
    }
}

impl Returned {
    /// Answers the callers. Call it after the subscriptions have received the event.
    pub(crate) fn resolve(self) {
        for caller in self.callers {
            answer(caller, Ok(self.as_of));
        }
    }
}

/// A caller that has gone away does not want the answer, and that is all right.
fn answer(caller: Caller, answer: Result<Instant, Error>) {
    drop(caller.send(answer));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce_of(barrier: &NotifyQuery) -> String {
        barrier.payload().to_owned()
    }

    #[test]
    fn only_the_nonce_under_way_counts() {
        let mut barriers = Barriers::new();
        let first = nonce_of(&barriers.begin());
        assert!(barriers.returned("").is_none());
        assert!(barriers.returned(&first.replace('0', "1")).is_none());
        assert!(barriers.returned(&first).is_some());
        assert!(barriers.returned(&first).is_none(), "a replay does not count");

        let second = nonce_of(&barriers.begin());
        assert!(barriers.returned(&first).is_none(), "nor does it count for the next barrier");
        assert!(barriers.returned(&second).is_some());
    }

    #[test]
    fn callers_share_the_barrier_that_is_sent_after_they_asked() {
        let mut barriers = Barriers::new();
        let (early, mut early_answer) = oneshot::channel();
        barriers.want_for(early);
        let first = nonce_of(&barriers.begin());
        let (late, mut late_answer) = oneshot::channel();
        barriers.want_for(late);

        let returned = barriers.returned(&first).unwrap();
        let as_of = returned.as_of;
        returned.resolve();
        assert_eq!(early_answer.try_recv().unwrap().unwrap(), as_of);
        assert!(late_answer.try_recv().is_err(), "the late caller waits for a barrier of its own");
        assert!(barriers.is_wanted());

        barriers.fail(Error::connection_lost);
        assert_eq!(late_answer.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Connection);
        assert!(!barriers.is_wanted());
    }

    #[test]
    fn callers_are_bounded_and_those_who_left_do_not_count() {
        let mut barriers = Barriers::new();
        let answers: Vec<_> = (0..BARRIER_CALLERS_MAX)
            .map(|_| {
                let (caller, answer) = oneshot::channel();
                barriers.want_for(caller);
                answer
            })
            .collect();
        let (caller, mut refused) = oneshot::channel();
        barriers.want_for(caller);
        assert_eq!(refused.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Overloaded);

        drop(answers);
        let (caller, mut accepted) = oneshot::channel();
        barriers.want_for(caller);
        assert!(accepted.try_recv().is_err(), "not answered yet, so it waits");
    }
}
