//! Makes the connections of our own pool. Each attempt is a task that no caller's timeout ends.
//!
//! A request waits for a connection for at most `query_timeout`. The attempt has other limits: `provider_timeout` and
//! `connect_timeout`. If the request gives up first, the attempt continues and serves the next request:
//!
//! ```text
//! request 1   waits ───── gives up
//! attempt     provider ──────────── host 1 ── host 2 ── connected
//! request 2                         waits ──────────────── served
//! ```
//!
//! After a provider fails, or the server refuses its settings, the next attempt waits. The pause doubles each time.
//! Requests fail at once meanwhile, with the cause.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use pg_listen::{Connector, ErrorKind as ListenError, Server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::{debug, warn};

use super::failure;
use super::source::{self, Source};
use crate::config::Config;
use crate::error::{Error, ErrorKind, chain};

/// The pause after the first failure of a provider; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a finished connection without a waiting request is kept. At most one is kept.
const SPARE_LIFETIME: Duration = Duration::from_secs(10);

/// A connection, and the task that reads and writes for it.
type Connected = (Client, JoinHandle<()>);
type Made = Result<Connected, Arc<ConnectFailure>>;

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) struct ConnectFailure {
    error: Error,
    pub(super) is_full: bool,
    pub(super) names_a_pooler: bool,
    /// Whether the next attempt waits. This spares the provider, and a server that refuses its settings.
    is_paused: bool,
}

impl ConnectFailure {
    pub(super) fn error(&self) -> Error {
        self.error.duplicate()
    }

    fn of(error: &pg_listen::Error, is_provided: bool) -> Self {
        let source = std::error::Error::source(error);
        let driver = source.and_then(|source| source.downcast_ref::<tokio_postgres::Error>());
        let is_provider = error.kind() == ListenError::Provider;
        let cause = match (driver, source.and_then(|source| source.downcast_ref::<Error>())) {
            // A file that cannot be read, for example.
            (_, Some(own)) if is_provider && !is_provided => own.duplicate(),
            _ if is_provider => {
                Error::new(ErrorKind::Unavailable, "there are no settings to connect to PostgreSQL with")
                    .with_source(chain(error))
            }
            (Some(driver), _) if has_several_hosts(error) => {
                failure::of_connect(driver).with_source(chain(error))
            }
            (Some(driver), _) => failure::of_connect(driver),
            _ if error.kind() == ListenError::Config => Error::new(ErrorKind::Config, error.to_string()),
            _ if source.is_some_and(|source| source.is::<io::Error>()) => {
                failure::unresolved().with_source(chain(error))
            }
            _ => failure::unreachable().with_source(chain(error)),
        };
        let is_refused = matches!(cause.kind(), ErrorKind::Config | ErrorKind::Permission);
        let error = if is_refused && is_provided {
            let message = "the settings that the provider returned do not work; it is asked again";
            Error::new(ErrorKind::Unavailable, message).with_source(cause)
        } else {
            cause
        };
        Self {
            error,
            is_full: driver.is_some_and(failure::is_full),
            names_a_pooler: driver.is_some_and(failure::names_a_pooler),
            is_paused: is_provided && (is_provider || is_refused),
        }
    }

    fn aborted() -> Self {
        let message = "the attempt to connect was aborted; try again";
        let error = Error::new(ErrorKind::Unavailable, message);
        Self { error, is_full: false, names_a_pooler: false, is_paused: false }
    }

    /// Wraps the failure in an error of the driver, the only type that the pool returns.
    async fn into_driver_error(self: Arc<Self>) -> tokio_postgres::Error {
        let mut config = tokio_postgres::Config::new();
        config.user("nobody").ssl_mode(tokio_postgres::config::SslMode::Disable);
        match config.connect_raw(Broken(self), NoTls).await {
            Err(error) => error,
            // Every write to `Broken` fails.
            Ok(_) => tokio_postgres::Error::__private_api_timeout(),
        }
    }

    /// The failure in an error of our own pool. An application's pool has the driver's errors.
    pub(super) fn in_driver_error(error: &tokio_postgres::Error) -> Option<&Self> {
        let source = std::error::Error::source(error)?.downcast_ref::<io::Error>()?.get_ref()?;
        source.downcast_ref::<Carried>().map(|carried| carried.0.as_ref())
    }
}

/// Whether the message lists the outcome of each host.
fn has_several_hosts(error: &pg_listen::Error) -> bool {
    error.to_string().starts_with("host ")
}

#[derive(Debug)]
struct Carried(Arc<ConnectFailure>);

impl std::fmt::Display for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&chain(&self.0.error))
    }
}

impl std::error::Error for Carried {}

/// A stream that returns the failure for each operation.
struct Broken(Arc<ConnectFailure>);

impl Broken {
    fn error(&self) -> io::Error {
        io::Error::other(Carried(Arc::clone(&self.0)))
    }
}

impl AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(self.error()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(self.error()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(self.error()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The attempts of one pool. An attempt starts only if fewer attempts run than requests wait.
pub(crate) struct Attempts {
    connector: Arc<Connector>,
    is_provided: bool,
    /// The TLS settings of the last attempt.
    tls: Arc<Mutex<Option<MakeRustlsConnect>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiters: Vec<oneshot::Sender<Made>>,
    running: usize,
    spare: Option<Connected>,
    /// The cause of the last failure; none after a success.
    failure: Option<Arc<ConnectFailure>>,
    /// Failures in a row that have a pause.
    failures: u32,
    pause: Option<Pause>,
    is_closed: bool,
    /// Aborted with the pool.
    tasks: JoinSet<()>,
}

#[derive(Clone, Copy)]
struct Pause {
    begin: Instant,
    end: Instant,
}

impl Attempts {
    /// Connects with the settings of `source`, as `amend` changes them.
    pub(crate) fn new(
        source: Source,
        amend: impl Fn(&mut tokio_postgres::Config) + Send + Sync + 'static,
        config: &Config,
    ) -> Arc<Self> {
        let is_provided = source.is_provider();
        let tls = Arc::new(Mutex::new(None));
        let (latest, amend) = (Arc::clone(&tls), Arc::new(amend));
        let connector = Connector::with_provider(move || {
            let (source, latest, amend) = (source.clone(), Arc::clone(&latest), Arc::clone(&amend));
            async move {
                let (mut config, tls) = source::read_files(source.get().await?).await?;
                amend(&mut config);
                *lock(&latest) = Some(tls.clone());
                Ok(Server::new(config).tls(tls))
            }
        });
        let connector =
            connector.provider_timeout(config.provider_timeout).connect_timeout(config.connect_timeout);
        Arc::new(Self { connector: Arc::new(connector), is_provided, tls, state: Mutex::default() })
    }

    /// The TLS settings for a cancel request: those of the last attempt.
    pub(super) fn tls(&self) -> Option<MakeRustlsConnect> {
        lock(&self.tls).clone()
    }

    /// The cause, if the last attempt failed.
    pub(crate) fn last_error(&self) -> Option<String> {
        lock(&self.state).failure.as_ref().map(|failure| chain(&failure.error))
    }

    /// Ends all attempts.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        let ended =
            (std::mem::take(&mut state.tasks), state.spare.take(), std::mem::take(&mut state.waiters));
        drop(state);
        drop(ended);
    }

    async fn make(self: &Arc<Self>) -> Made {
        let made = {
            let mut state = lock(&self.state);
            match state.spare.take() {
                Some((client, task)) if !client.is_closed() => return Ok((client, task)),
                _ => {}
            }
            if let (Some(failure), Some(pause)) = (&state.failure, state.pause)
                && Instant::now() < pause.end
            {
                return Err(Arc::clone(failure));
            }
            if state.is_closed {
                return Err(Arc::new(ConnectFailure::aborted()));
            }
            let (waiter, made) = oneshot::channel();
            state.waiters.retain(|waiter| !waiter.is_closed());
            state.waiters.push(waiter);
            if state.running < state.waiters.len() {
                state.running += 1;
                while state.tasks.try_join_next().is_some() {}
                let running = Running { attempts: Arc::downgrade(self), is_done: false };
                let attempt = attempt(Arc::clone(&self.connector), self.is_provided, running);
                state.tasks.spawn(attempt);
            }
            made
        };
        made.await.unwrap_or_else(|_| Err(Arc::new(ConnectFailure::aborted())))
    }

    /// Gives the outcome of an attempt to the first caller that still waits. Returns whether the connection is kept.
    fn deliver(&self, began: Instant, mut made: Made) -> bool {
        let mut state = lock(&self.state);
        state.running -= 1;
        match &made {
            Ok(_) => (state.failure, state.failures, state.pause) = (None, 0, None),
            Err(failure) => {
                state.failure = Some(Arc::clone(failure));
                // Of attempts that ran at the same time, one counts.
                let counts = state.pause.is_none_or(|pause| began >= pause.begin);
                if failure.is_paused && counts {
                    let pause = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(state.failures)).min(PAUSE_MAX);
                    state.failures = state.failures.saturating_add(1);
                    let begin = Instant::now();
                    state.pause = Some(Pause { begin, end: begin + pause });
                    warn!(error = chain(&failure.error), retry_in = ?pause, "the pool cannot connect");
                } else if !failure.is_paused {
                    state.pause = None;
                }
            }
        }
        while !state.waiters.is_empty() {
            match state.waiters.remove(0).send(made) {
                Ok(()) => return false,
                Err(unsent) => made = unsent,
            }
        }
        match made {
            Ok(connected) if !state.is_closed && state.spare.is_none() => {
                state.spare = Some(connected);
                true
            }
            _ => false,
        }
    }
}

impl std::fmt::Debug for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempts").field("connector", &self.connector).finish_non_exhaustive()
    }
}

/// An attempt that has not delivered its outcome. An attempt that panics or is aborted delivers an error.
struct Running {
    attempts: Weak<Attempts>,
    is_done: bool,
}

impl Running {
    fn deliver(&mut self, began: Instant, made: Made) -> bool {
        self.is_done = true;
        self.attempts.upgrade().is_some_and(|attempts| attempts.deliver(began, made))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_done {
            self.deliver(Instant::now(), Err(Arc::new(ConnectFailure::aborted())));
        }
    }
}

async fn attempt(connector: Arc<Connector>, is_provided: bool, mut running: Running) {
    let began = Instant::now();
    let made = match connector.connect().await {
        Ok((client, connection)) => {
            let task = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    debug!(%error, "a connection of the pool ended");
                }
            });
            Ok((client, task))
        }
        Err(error) => Err(Arc::new(ConnectFailure::of(&error, is_provided))),
    };
    if running.deliver(began, made) {
        tokio::time::sleep(SPARE_LIFETIME).await;
        let spare = running.attempts.upgrade().and_then(|attempts| lock(&attempts.state).spare.take());
        drop(spare);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only the allocator can panic while a lock is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects for the pool.
pub(super) struct Connect(pub(super) Arc<Attempts>);

impl deadpool_postgres::Connect for Connect {
    fn connect(
        &self,
        _: &tokio_postgres::Config,
    ) -> Pin<Box<dyn Future<Output = Result<Connected, tokio_postgres::Error>> + Send + '_>> {
        Box::pin(async move {
            match self.0.make().await {
                Ok(connected) => Ok(connected),
                Err(failure) => Err(failure.into_driver_error().await),
            }
        })
    }
}
