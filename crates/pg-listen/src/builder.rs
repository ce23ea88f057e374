//! The settings of a listener, each with its meaning, unit and default; checked before anything is done.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Socket};

use crate::backoff::Backoff;
use crate::connector::{CONNECT_TIMEOUT, Connector, PROVIDER_TIMEOUT};
use crate::error::Error;
use crate::error_kind::ErrorKind;
use crate::hosts;
use crate::listener::Listener;
use crate::protocol::Timing;
use crate::queue::{QUEUE_EVENTS_CEILING, QUEUE_EVENTS_MIN};
use crate::server::{Server, Source};
use crate::status::Status;
use crate::task::{Inbox, Route, Task};

/// No duration below this: a barrier is a commit on the server, and a retry a new process there.
const DURATION_MIN: Duration = Duration::from_millis(1);
/// No duration above this: a bound that never comes is none.
const DURATION_MAX: Duration = Duration::from_secs(3_600);
/// Requests of handles in flight to the task; more wait in their callers.
const REQUESTS_MAX: usize = 256;

/// Settings of a [`Listener`]; from [`Listener::builder`]. The defaults are good ones.
#[must_use = "nothing runs before `start`"]
pub struct Builder {
    source: Source,
    /// Whether `tls` was called beside a provider.
    has_stray_tls: bool,
    provider_timeout: Duration,
    timing: Timing,
    connect_timeout: Duration,
    backoff: Backoff,
    queue_events_max: usize,
    accepts_pooler: bool,
}

impl Listener {
    /// Begins the settings of a listener that connects as `config` says. The connection must reach
    /// PostgreSQL itself. A pooler such as pgbouncer is recognised. Behind it the listener is never
    /// in sync, and reports [`ErrorKind::Pooler`](crate::ErrorKind::Pooler).
    pub fn builder(config: Config) -> Builder {
        Builder::new(Source::Fixed(Box::new(config.into())))
    }

    /// As [`builder`](Self::builder), with a provider that returns the settings of each attempt to
    /// connect. It is for passwords that are valid for a short time, and for servers that move.
    ///
    /// [`Status::last_error`](crate::Status::last_error) shows an error, a panic, and an answer
    /// that does not come within [`provider_timeout`](Builder::provider_timeout). The provider is
    /// asked again after the [`backoff`](Builder::backoff). The text of its error is logged, so
    /// **it must not contain a secret**.
    ///
    /// ```no_run
    /// use pg_listen::{Listener, Server};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = Listener::builder_with(|| async {
    ///     let mut config: tokio_postgres::Config = "host=db user=app".parse()?;
    ///     config.password(std::fs::read_to_string("/run/secrets/db")?.trim());
    ///     Ok(Server::new(config))
    /// })
    /// .start()?;
    /// # drop(listener); Ok(()) }
    /// ```
    pub fn builder_with<P, F>(provider: P) -> Builder
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<Server, Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        Builder::new(Source::provider(provider))
    }
}

impl Builder {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            has_stray_tls: false,
            provider_timeout: PROVIDER_TIMEOUT,
            timing: Timing {
                barrier_interval: Duration::from_secs(2),
                barrier_timeout: Duration::from_secs(2),
                pings: false,
            },
            connect_timeout: CONNECT_TIMEOUT,
            backoff: Backoff { min: Duration::from_millis(50), max: Duration::from_secs(5) },
            queue_events_max: 8_192,
            accepts_pooler: false,
        }
    }

    /// Accepts a pooler in front of PostgreSQL. **It must be in session mode**, in which it keeps a
    /// server connection for each client. The listener does not recognise another mode. Its own
    /// barrier comes back while its statement runs. So [`Event::InSync`](crate::Event::InSync)
    /// proves nothing about the time between statements.
    ///
    /// So send notifications over another connection, too, and trust only those with
    /// [`Notification::arrived_between_statements`](crate::Notification::arrived_between_statements). In another mode a
    /// pooler delivers none of them.
    pub fn accept_session_pooler(mut self) -> Self {
        self.accepts_pooler = true;
        self
    }

    /// How to do TLS, as for `tokio_postgres::connect`. Whether it is done is `sslmode` in the configuration.
    /// Default: `NoTls`, with which `sslmode=require` fails to connect. A provider sets it in the [`Server`] that it
    /// returns.
    pub fn tls<T>(mut self, connector: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        match &mut self.source {
            Source::Fixed(server) => **server = Server::clone(server).tls(connector),
            Source::Provider(_) => self.has_stray_tls = true,
        }
        self
    }

    /// How often a barrier is sent without being asked for. Default 2 s; 1 ms to 1 h. Every barrier wakes
    /// every listener of the database (about 4 µs each, up to PostgreSQL 18): with many nodes, choose it
    /// longer.
    pub fn barrier_interval(mut self, interval: Duration) -> Self {
        self.timing.barrier_interval = interval;
        self
    }

    /// How long a barrier, or a LISTEN, may take before the connection counts as dead. Default 2 s; 1 ms to 1
    /// h. What has arrived by then is still read for 100 ms. **A half-open connection is thus found after at
    /// most interval + timeout + 100 ms.**
    pub fn barrier_timeout(mut self, timeout: Duration) -> Self {
        self.timing.barrier_timeout = timeout;
        self
    }

    /// Sends a ping at each [`barrier_interval`](Self::barrier_interval) instead of a barrier. The server answers a
    /// ping without waking other listeners. So N listeners cost N pings, not N² wakes. **It finds a dead connection,
    /// but proves nothing about notifications.** After the first [`InSync`](crate::Event::InSync) of a connection,
    /// there is another only when [`barrier`](Listener::barrier) asks for one. For programs with a proof of their
    /// own.
    pub fn pings(mut self) -> Self {
        self.timing.pings = true;
        self
    }

    /// How long the provider may take to return the settings of an attempt. Default 10 s; 1 ms to 1 h.
    pub fn provider_timeout(mut self, timeout: Duration) -> Self {
        self.provider_timeout = timeout;
        self
    }

    /// How long connecting may take, from name resolution to authentication, over all hosts and addresses. Each has its
    /// share: one that does not answer does not keep the listener from the next. Default 5 s; 1 ms to 1 h.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The wait before connecting again: a random time between zero and a ceiling. The ceiling is
    /// `min` at first, and doubles with every failure up to `max`. It starts over after a
    /// connection that was in sync. Default 50 ms, 5 s; 1 ms to 1 h.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Backoff { min, max };
        self
    }

    /// How many events a subscription may leave unread before they are thrown away for a `Lost(Overflow)`.
    /// Default 8 192; 8 to 1 048 576. A payload has up to 8 kB, shared by the subscriptions of a channel.
    pub fn queue_events_max(mut self, events: usize) -> Self {
        self.queue_events_max = events;
        self
    }

    /// Checks the settings and starts the listener's task. Does not wait for the connection, and does not
    /// fail when there is none: a server that is down is waited for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a setting out of its range, a configuration without a host, or outside of a
    /// tokio runtime.
    ///
    /// # Panics
    ///
    /// The task panics in a runtime built without `enable_io` and `enable_time`.
    pub fn start(self) -> Result<Listener, Error> {
        self.validate()?;
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| config_error("there is no tokio runtime here; call `start` inside one"))?;
        let (commands_in, commands) = mpsc::channel(REQUESTS_MAX);
        let (notifies_in, notifies) = mpsc::channel(REQUESTS_MAX);
        let (status_in, status) = watch::channel(Status::default());
        let inbox =
            Inbox { commands, notifies, dropped: Arc::new(Notify::new()), stop: Arc::new(Notify::new()) };
        let listener = Listener::new(commands_in, notifies_in, status, &inbox, self.queue_events_max);
        let connector = Connector::of(self.source)
            .provider_timeout(self.provider_timeout)
            .connect_timeout(self.connect_timeout);
        let route = Route {
            connector: Arc::new(connector),
            backoff: self.backoff,
            timing: self.timing,
            accepts_pooler: self.accepts_pooler,
        };
        runtime.spawn(Task::new(route, inbox, status_in).run());
        Ok(listener)
    }

    fn validate(&self) -> Result<(), Error> {
        let durations = [
            ("barrier_interval", self.timing.barrier_interval),
            ("barrier_timeout", self.timing.barrier_timeout),
            ("provider_timeout", self.provider_timeout),
            ("connect_timeout", self.connect_timeout),
            ("backoff min", self.backoff.min),
            ("backoff max", self.backoff.max),
        ];
        for (name, duration) in durations {
            if !(DURATION_MIN..=DURATION_MAX).contains(&duration) {
                return Err(config_error(format!(
                    "{name} is {duration:?}; choose between {DURATION_MIN:?} and {DURATION_MAX:?}"
                )));
            }
        }
        if self.backoff.min > self.backoff.max {
            return Err(config_error(format!(
                "backoff min {:?} must not exceed backoff max {:?}",
                self.backoff.min, self.backoff.max
            )));
        }
        if !(QUEUE_EVENTS_MIN..=QUEUE_EVENTS_CEILING).contains(&self.queue_events_max) {
            return Err(config_error(format!(
                "queue_events_max is {}; choose between {QUEUE_EVENTS_MIN} and {QUEUE_EVENTS_CEILING}",
                self.queue_events_max
            )));
        }
        match &self.source {
            Source::Fixed(server) => hosts::list(&server.config).map(|_| ()),
            Source::Provider(_) if self.has_stray_tls => Err(config_error(
                "`tls` has no effect beside a provider; set it in the `Server` that it returns",
            )),
            Source::Provider(_) => Ok(()),
        }
    }
}

fn config_error(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, message)
}

impl std::fmt::Debug for Builder {
    /// Without the connection's configuration: it is not ours to show.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("timing", &self.timing)
            .field("provider_timeout", &self.provider_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("backoff", &self.backoff)
            .field("queue_events_max", &self.queue_events_max)
            .field("accepts_pooler", &self.accepts_pooler)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::Config;

    use super::*;

    fn refused(change: impl FnOnce(Builder) -> Builder) -> String {
        let config: Config = "host=localhost user=nobody".parse().unwrap();
        let error = change(Listener::builder(config)).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn every_setting_out_of_range_is_refused_by_name() {
        let zero = Duration::ZERO;
        let second = Duration::from_secs(1);
        assert!(refused(|b| b.barrier_interval(zero)).contains("barrier_interval"));
        assert!(refused(|b| b.barrier_timeout(zero)).contains("barrier_timeout"));
        assert!(refused(|b| b.connect_timeout(Duration::MAX)).contains("connect_timeout"));
        assert!(refused(|b| b.provider_timeout(zero)).contains("provider_timeout"));
        assert!(refused(|b| b.backoff(zero, second)).contains("backoff min"));
        assert!(refused(|b| b.backoff(second, Duration::MAX)).contains("backoff max"));
        assert!(refused(|b| b.backoff(second * 2, second)).contains("must not exceed"));
        assert!(refused(|b| b.queue_events_max(7)).contains("queue_events_max"));
        assert!(refused(|b| b.queue_events_max(usize::MAX)).contains("queue_events_max"));
    }

    #[test]
    fn without_a_host_or_a_runtime_nothing_starts() {
        let error = Listener::builder(Config::new()).start().unwrap_err();
        assert!(error.to_string().contains("no host"), "{error}");
        assert!(refused(|b| b).contains("runtime"));
        let provided = Listener::builder_with(|| async { Err("not asked".into()) });
        let error = provided.tls(tokio_postgres::NoTls).start().unwrap_err();
        assert!(error.to_string().contains("`tls` has no effect"), "{error}");
    }
}
