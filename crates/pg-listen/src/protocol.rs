//! What is done on one connection: LISTEN and barriers, one statement at a time, each with a deadline.
//!
//! ```text
//! open ── Listens(all channels) ──→ Idle ──→ Listens(what changed) ──→ Idle
//!                                    ├────→ Awaits(a barrier: its answer and its return) ──→ Idle
//!                                    └────→ Pings ──→ Idle
//! ```
//!
//! One at a time, because LISTEN and UNLISTEN of one channel must not overtake each other. Also,
//! one deadline then finds a half-open connection, whatever is in flight. This file never decides
//! what to send: the task does.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};
use tokio_postgres::Notification;

use crate::channel::Channel;
use crate::connection::{Answer, Connection, ConnectionEvent, Sender};
use crate::notify_query::NotifyQuery;
use crate::pooler_check::Mark;
use crate::registry::Changes;

/// Users' notifications on their way at once; more wait in the handle's channel.
const NOTIFIES_IN_FLIGHT_MAX: usize = 64;

/// After a deadline, the socket is read this long before the connection is given up. A process that
/// was paused or starved finds its answer there.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// A notification that arrives so soon after the end of a statement may have come with its answer.
const QUIET_MIN: Duration = Duration::from_millis(20);

/// PostgreSQL (15, at least) removes what every listener has read when a client notifies or asks for the queue's
/// usage. Once the queue is full no client can notify. So it stays full when the reader that held it up has long
/// gone. The first statement of each connection asks: a barrier that fails, as all do then, leads here.
const CLEAR_QUEUE: &str = "SELECT pg_catalog.pg_notification_queue_usage()";

/// A listening connection is idle for as long as no client notifies, and `idle_session_timeout` would end it. PostgreSQL 13
/// lacks the setting.
const NEVER_IDLE: &str =
    "SELECT CASE WHEN pg_catalog.current_setting('idle_session_timeout', true) IS NOT NULL
     THEN pg_catalog.set_config('idle_session_timeout', '0', false) END";

/// Has an answer and no row.
const PING: &str = "SELECT WHERE false";

#[derive(Debug)]
pub(crate) struct Protocol {
    connection: Connection,
    doing: Doing,
    /// Channels whose LISTEN is in force, and no UNLISTEN sent.
    listened: BTreeSet<Channel>,
    last_was_listen: bool,
    notifies_in_flight: usize,
    timing: Timing,
    deadline: Pin<Box<Sleep>>,
    last_look: bool,
    barrier_due: Pin<Box<Sleep>>,
    /// When the last statement ended, if none runs.
    quiet_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// A barrier is sent this often.
    pub(crate) barrier_interval: Duration,
    /// Every statement, and every barrier's return, within this.
    pub(crate) barrier_timeout: Duration,
    /// Whether a ping is sent instead, unless a barrier is asked for.
    pub(crate) pings: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Doing {
    Idle,
    Listens(Vec<Channel>),
    Awaits { answered: bool, returned: bool },
    Pings,
}

/// What [`Protocol::next`] comes back with.
#[derive(Debug)]
pub(crate) enum ProtocolEvent {
    Notification(Notification),
    /// LISTEN is in force for these channels.
    Listening(Vec<Channel>),
    BarrierDue,
    /// What is in flight did not come back in time.
    Overdue,
    Ended(Option<tokio_postgres::Error>),
    /// Nothing to report, but there may be room now to send what could not be sent before.
    Progress,
}

impl Protocol {
    /// Starts on a fresh connection: makes sure that it has the mark of PostgreSQL's own, and listens on `private` and
    /// `channels`.
    pub(crate) fn open(
        connection: Connection,
        mark: Option<&Mark>,
        private: &Channel,
        mut channels: Changes,
        timing: Timing,
    ) -> Self {
        let mut protocol = Self {
            connection,
            doing: Doing::Idle,
            listened: BTreeSet::new(),
            last_was_listen: false,
            notifies_in_flight: 0,
            timing,
            deadline: Box::pin(sleep(timing.barrier_timeout)),
            last_look: false,
            barrier_due: Box::pin(sleep(timing.barrier_interval)),
            quiet_since: None,
        };
        channels.listen.push(private.clone());
        let check = mark.map(|mark| format!("{}; {NEVER_IDLE}; ", mark.check())).unwrap_or_default();
        protocol.listen_after(Some(format!("{check}{CLEAR_QUEUE}")), channels);
        // Not a subscriber's channel, so it must never look like one to be given up.
        if let Doing::Listens(channels) = &mut protocol.doing {
            channels.pop();
        }
        protocol
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.doing == Doing::Idle
    }

    /// Whether no statement runs, and none has just ended. Behind its answer, a pooler may still pass on what the server sent
    /// before it lends the connection on.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet_since.is_some_and(|since| since.elapsed() >= QUIET_MIN)
    }

    /// Whether LISTEN had the last turn, so that a barrier has the next.
    pub(crate) fn last_was_listen(&self) -> bool {
        self.last_was_listen
    }

    pub(crate) fn listened(&self) -> &BTreeSet<Channel> {
        &self.listened
    }

    pub(crate) fn may_notify(&self) -> bool {
        self.notifies_in_flight < NOTIFIES_IN_FLIGHT_MAX
    }

    pub(crate) fn listen(&mut self, changes: Changes) {
        self.listen_after(None, changes);
    }

    /// One transaction: nothing is listened to if `first` fails.
    fn listen_after(&mut self, first: Option<String>, changes: Changes) {
        for channel in &changes.unlisten {
            self.listened.remove(channel);
        }
        let listen = changes.listen.iter().map(|channel| format!("LISTEN {}", channel.quoted()));
        let unlisten = changes.unlisten.iter().map(|channel| format!("UNLISTEN {}", channel.quoted()));
        let statement = first.into_iter().chain(listen).chain(unlisten).collect::<Vec<_>>().join("; ");
        self.last_was_listen = true;
        self.begin(Doing::Listens(changes.listen));
        self.connection.control(statement);
    }

    pub(crate) fn barrier(&mut self, barrier: NotifyQuery) {
        self.barrier_due.as_mut().reset(Instant::now() + self.timing.barrier_interval);
        self.last_was_listen = false;
        self.begin(Doing::Awaits { answered: false, returned: false });
        self.connection.control_notify(barrier);
    }

    /// The barrier's notification came.
    pub(crate) fn barrier_returned(&mut self) {
        if let Doing::Awaits { returned, .. } = &mut self.doing {
            *returned = true;
        }
        self.settle();
    }

    pub(crate) fn notify(&mut self, query: NotifyQuery, sender: Sender) {
        self.notifies_in_flight += 1;
        self.quiet_since = None;
        self.connection.notify(query, sender);
    }

    /// Waits for the next event.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> ProtocolEvent {
        // Timers first: under a flood the connection is always ready, and barriers must still go out and run late.
        tokio::select! {
            biased;
            () = self.deadline.as_mut(), if self.doing != Doing::Idle => self.late(),
            () = self.barrier_due.as_mut() => {
                self.barrier_due.as_mut().reset(Instant::now() + self.timing.barrier_interval);
                if !self.timing.pings {
                    return ProtocolEvent::BarrierDue;
                }
                // Whatever is in flight has a deadline as well.
                if self.is_idle() {
                    self.begin(Doing::Pings);
                    self.connection.control(PING.to_owned());
                }
                ProtocolEvent::Progress
            }
            event = self.connection.next() => match event {
                ConnectionEvent::Notification(notification) => ProtocolEvent::Notification(notification),
                ConnectionEvent::Notice => ProtocolEvent::Progress,
                ConnectionEvent::Ended(error) => ProtocolEvent::Ended(error),
                ConnectionEvent::Answer(Answer::Control(Ok(()))) => self.answered(),
                ConnectionEvent::Answer(Answer::Control(Err(error))) => ProtocolEvent::Ended(Some(error)),
                ConnectionEvent::Answer(Answer::Notify) => {
                    self.notifies_in_flight -= 1;
                    self.statement_ended();
                    ProtocolEvent::Progress
                }
            },
        }
    }

    pub(crate) async fn close(self) {
        self.connection.close().await;
    }

    fn begin(&mut self, doing: Doing) {
        // Of two statements, the second would take the answer of the first.
        assert!(self.is_idle(), "one statement at a time");
        self.doing = doing;
        self.quiet_since = None;
        self.last_look = false;
        self.deadline.as_mut().reset(Instant::now() + self.timing.barrier_timeout);
    }

    /// The deadline has passed: once for a last look at what has arrived, then for good.
    fn late(&mut self) -> ProtocolEvent {
        if self.last_look {
            return ProtocolEvent::Overdue;
        }
        self.last_look = true;
        self.deadline.as_mut().reset(Instant::now() + LAST_LOOK);
        ProtocolEvent::Progress
    }

    fn statement_ended(&mut self) {
        let is_answered = matches!(self.doing, Doing::Idle | Doing::Awaits { answered: true, .. });
        if is_answered && self.notifies_in_flight == 0 {
            self.quiet_since = Some(Instant::now());
        }
    }

    /// The statement in flight succeeded.
    fn answered(&mut self) -> ProtocolEvent {
        let event = self.answered_control();
        self.statement_ended();
        event
    }

    fn answered_control(&mut self) -> ProtocolEvent {
        match &mut self.doing {
            Doing::Listens(channels) => {
                let channels = std::mem::take(channels);
                self.doing = Doing::Idle;
                self.listened.extend(channels.iter().cloned());
                ProtocolEvent::Listening(channels)
            }
            Doing::Awaits { answered, .. } => {
                *answered = true;
                self.settle();
                ProtocolEvent::Progress
            }
            Doing::Pings => {
                self.doing = Doing::Idle;
                ProtocolEvent::Progress
            }
            Doing::Idle => ProtocolEvent::Progress,
        }
    }

    fn settle(&mut self) {
        if self.doing == (Doing::Awaits { answered: true, returned: true }) {
            self.doing = Doing::Idle;
        }
    }
}
