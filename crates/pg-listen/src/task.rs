//! The one task of a listener: it owns the connection, the registry and the barriers, and never runs a user's
//! code.
//!
//! ```text
//!        ┌────────────── the wait is over ───────────────┐
//!        ↓                                               │
//!   Connecting ── connected ──→ Up ── lost, or overdue ──→ Backoff
//!        └───────────────── failed ─────────────────────→┘
//! ```
//!
//! One select loop; every wait in it is cancel safe and kept in a field. Order is kept by construction. A message is
//! read and queued in one step, so events reach every queue in the order of the wire. `Lost` goes to the queues in
//! the same step that drops the connection. Nothing of the next connection can come before.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Sleep, sleep};

use crate::backoff::Backoff;
use crate::barrier::{Barriers, Caller};
use crate::channel::Channel;
use crate::connection::{Connection, Sender};
use crate::connector::Connector;
use crate::error::{Error, chain};
use crate::error_kind::ErrorKind;
use crate::event::{LostReason, Notification};
use crate::notify_query::NotifyQuery;
use crate::pooler_check::Mark;
use crate::protocol::{Protocol, ProtocolEvent, Timing};
use crate::queue::Queue;
use crate::registry::{Delivered, Registry};
use crate::status::{Phase, Status};

/// How the task reaches the server.
pub(crate) struct Route {
    pub(crate) connector: Arc<Connector>,
    pub(crate) backoff: Backoff,
    pub(crate) timing: Timing,
    /// Whether a connection need not be PostgreSQL's own.
    pub(crate) accepts_pooler: bool,
}

/// The task's ends of the channels to the handles and subscriptions.
pub(crate) struct Inbox {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) notifies: mpsc::Receiver<NotifyRequest>,
    pub(crate) dropped: Arc<Notify>,
    pub(crate) stop: Arc<Notify>,
}

/// What a handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Subscribe { channel: Channel, queue: Arc<Queue>, reply: oneshot::Sender<Result<(), Error>> },
    Barrier(Caller),
}

/// A notification to be sent for a handle. Apart from the commands: these wait for their turn, commands never
/// do.
#[derive(Debug)]
pub(crate) struct NotifyRequest {
    pub(crate) query: NotifyQuery,
    pub(crate) sender: Sender,
}

pub(crate) struct Task {
    route: Route,
    inbox: Inbox,
    state: State,
    registry: Registry,
    barriers: Barriers,
    /// Attempts in a row that did not lead to a connection in sync.
    failures: u32,
    status: Published,
}

/// The status. Says `Closed` when the task is gone, also if its runtime ended under it.
struct Published(watch::Sender<Status>);

impl Drop for Published {
    fn drop(&mut self) {
        self.0.send_modify(|status| status.phase = Phase::Closed);
    }
}

type Connecting = Pin<Box<dyn Future<Output = Result<(Connection, Option<Mark>), Error>> + Send>>;

enum State {
    Connecting(Connecting),
    Up(Box<Protocol>),
    Backoff(Pin<Box<Sleep>>),
}

enum Step {
    Stop,
    Command(Command),
    Notify(NotifyRequest),
    Sweep,
    Connected(Result<(Connection, Option<Mark>), Error>),
    Protocol(ProtocolEvent),
    Retry,
}

impl Task {
    pub(crate) fn new(route: Route, inbox: Inbox, status: watch::Sender<Status>) -> Self {
        let state = State::connecting(&route);
        Self {
            route,
            inbox,
            state,
            registry: Registry::default(),
            barriers: Barriers::new(),
            failures: 0,
            status: Published(status),
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            self.send_next();
            match self.step().await {
                Step::Stop => break,
                Step::Command(command) => self.command(command),
                Step::Notify(request) => self.notify(request),
                Step::Sweep => self.registry.sweep(),
                Step::Connected(Ok((connection, mark))) => self.open(connection, mark.as_ref()),
                Step::Connected(Err(error)) => self.back_off(&error),
                Step::Protocol(event) => self.protocol_event(event),
                Step::Retry => {
                    self.state = State::connecting(&self.route);
                    self.status.0.send_modify(|status| status.phase = Phase::Connecting);
                }
            }
        }
        self.close().await;
    }

    async fn step(&mut self) -> Step {
        let may_notify = match &self.state {
            State::Up(protocol) => protocol.may_notify(),
            State::Connecting(_) | State::Backoff(_) => true, // to be refused at once
        };
        tokio::select! {
            () = self.inbox.stop.notified() => Step::Stop,
            command = self.inbox.commands.recv() => command.map_or(Step::Stop, Step::Command),
            Some(request) = self.inbox.notifies.recv(), if may_notify => Step::Notify(request),
            () = self.inbox.dropped.notified() => Step::Sweep,
            step = self.state.next() => step,
        }
    }

    /// Sends what is to be sent next on the connection, if it is free.
    fn send_next(&mut self) {
        let State::Up(protocol) = &mut self.state else { return };
        if !protocol.is_idle() {
            return;
        }
        // By turns: neither a churn of subscriptions nor a crowd at `barrier()` keeps the other waiting.
        let barrier_first = self.barriers.is_wanted() && protocol.last_was_listen();
        if !barrier_first && let Some(changes) = self.registry.changes(protocol.listened()) {
            protocol.listen(changes);
        } else if self.barriers.is_wanted() {
            protocol.barrier(self.barriers.begin());
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Subscribe { channel, queue, reply } => self.subscribe(&channel, queue, reply),
            Command::Barrier(caller) => match self.state {
                State::Up(_) => self.barriers.want_for(caller),
                State::Connecting(_) | State::Backoff(_) => drop(caller.send(Err(Error::not_connected()))),
            },
        }
    }

    fn subscribe(&mut self, channel: &Channel, queue: Arc<Queue>, reply: oneshot::Sender<Result<(), Error>>) {
        // The race: the subscriber goes away while its command waits, and the sweep for it runs before the command.
        // What is not abandoned now will be swept after it was added.
        if queue.is_abandoned() {
            return;
        }
        let added = self.registry.add(channel.clone(), queue);
        if added.is_ok()
            && let State::Up(protocol) = &self.state
            && protocol.listened().contains(channel)
            && self.registry.listening(channel, self.barriers.next_number())
        {
            self.barriers.want();
        }
        drop(reply.send(added)); // a subscriber that has just gone is removed later
    }

    fn notify(&mut self, NotifyRequest { query, sender }: NotifyRequest) {
        match &mut self.state {
            State::Up(protocol) => protocol.notify(query, sender),
            State::Connecting(_) | State::Backoff(_) => drop(sender.send(Err(Error::not_connected()))),
        }
    }

    fn open(&mut self, connection: Connection, mark: Option<&Mark>) {
        // A barrier of the connection before proves nothing about this one.
        assert!(!self.barriers.is_pending(), "a barrier ends with its connection");
        self.registry.sweep();
        let channels = self.registry.all();
        let protocol = Protocol::open(connection, mark, self.barriers.channel(), channels, self.route.timing);
        self.state = State::Up(Box::new(protocol));
    }

    fn protocol_event(&mut self, event: ProtocolEvent) {
        match event {
            ProtocolEvent::Notification(notification) => self.notification(notification),
            ProtocolEvent::Progress => {}
            ProtocolEvent::Listening(channels) => self.listening(&channels),
            ProtocolEvent::BarrierDue => self.barriers.want(),
            ProtocolEvent::Overdue => {
                let message = "no answer within the barrier's timeout; the connection is closed";
                self.lost(LostReason::BarrierTimeout, &Error::new(ErrorKind::Connection, message));
            }
            ProtocolEvent::Ended(error) => {
                let error = error.map_or_else(Error::connection_lost, Error::driver);
                self.lost(LostReason::Connection, &error);
            }
        }
    }

    fn notification(&mut self, notification: tokio_postgres::Notification) {
        if notification.channel() == self.barriers.channel().as_str() {
            self.barrier_back(notification.payload());
            return;
        }
        let next = self.barriers.next_number();
        let between = matches!(&self.state, State::Up(protocol) if protocol.is_quiet());
        let notification = Notification::new(notification, between);
        if self.registry.deliver(&notification, next) == Delivered::SomeOverflowed {
            tracing::warn!("a subscription is read too slowly; its queue overflowed");
            self.barriers.want();
        }
    }

    fn barrier_back(&mut self, nonce: &str) {
        let Some(returned) = self.barriers.returned(nonce) else {
            tracing::debug!("foreign notification on the barrier's channel ignored");
            return;
        };
        let next = self.barriers.next_number();
        if self.registry.in_sync(returned.number, returned.as_of, next) == Delivered::SomeOverflowed {
            self.barriers.want();
        }
        let as_of = returned.as_of;
        if let State::Up(protocol) = &mut self.state {
            protocol.barrier_returned();
        }
        self.failures = 0;
        self.in_sync(as_of);
        returned.resolve();
    }

    fn in_sync(&self, as_of: Instant) {
        self.status.0.send_modify(|status| {
            status.phase = Phase::InSync;
            status.failures = self.failures;
            status.as_of = Some(as_of);
        });
    }

    fn listening(&mut self, channels: &[Channel]) {
        for channel in channels {
            self.registry.listening(channel, self.barriers.next_number());
        }
        self.barriers.want();
        if self.status.0.borrow().phase == Phase::Connecting {
            tracing::info!(channels = channels.len(), "listening");
            self.status.0.send_modify(|status| {
                status.phase = Phase::Listening;
                status.connections += 1;
            });
        }
    }

    /// The connection is no good any more: reports that to all subscriptions, and drops it without a goodbye.
    fn lost(&mut self, reason: LostReason, error: &Error) {
        self.registry.lost(reason);
        self.barriers.fail(Error::connection_lost);
        self.back_off(error);
    }

    fn back_off(&mut self, error: &Error) {
        let delay = self.route.backoff.delay(self.failures);
        self.failures = self.failures.saturating_add(1);
        let kind = error.kind();
        let error = chain(error);
        tracing::warn!(%error, failures = self.failures, retry_in = ?delay, "not listening");
        self.state = State::Backoff(Box::pin(sleep(delay)));
        self.status.0.send_modify(|status| {
            status.phase = Phase::Backoff;
            status.failures = self.failures;
            status.last_error = Some(error.into());
            status.last_error_kind = Some(kind);
        });
    }

    /// Readers and callers get the outcome first; then the connection is closed for real.
    async fn close(mut self) {
        self.status.0.send_modify(|status| status.phase = Phase::Closed);
        self.registry.end();
        self.barriers.fail(Error::closed);
        if let State::Up(protocol) = self.state {
            protocol.close().await;
        }
        tracing::debug!("listener shut down");
    }
}

impl State {
    fn connecting(route: &Route) -> Self {
        let connector = Arc::clone(&route.connector);
        let mark = (!route.accepts_pooler).then(Mark::new);
        Self::Connecting(Box::pin(async move {
            let opened = connector.open(|config| {
                if config.get_application_name().is_none() {
                    config.application_name("pg-listen");
                }
                if let Some(mark) = &mark {
                    mark.put_on(config);
                }
            });
            let connection = Connection::new(opened.await?);
            Ok((connection, mark))
        }))
    }

    /// Waits for whatever this state waits for. Cancel safe; after it, the state must change or go on.
    async fn next(&mut self) -> Step {
        match self {
            Self::Connecting(attempt) => Step::Connected(attempt.await),
            Self::Up(protocol) => Step::Protocol(protocol.next().await),
            Self::Backoff(wait) => {
                wait.await;
                Step::Retry
            }
        }
    }
}
