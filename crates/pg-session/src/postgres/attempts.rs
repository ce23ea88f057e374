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
//! A pooler refuses settings in the startup packet. The attempt then connects again without them. Later attempts begin
//! without them for [`POOLER_MEMORY`].
//!
//! After a provider fails, or the server refuses its settings, the next attempt waits. The pause doubles each time.
//! Requests fail at once meanwhile, with the cause.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pg_listen::{Connector, ErrorKind as ListenError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use super::failure;
use super::handover::{Handover, Running};
use super::source::{self, Source};
use crate::config::Config;
use crate::error::{Error, ErrorKind, chain};

/// The pause after the first failure of a provider; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a finished connection without a waiting request is kept. At most one is kept.
const SPARE_LIFETIME: Duration = Duration::from_secs(10);

/// How long a pooler that refused the settings of a connection is not asked again.
const POOLER_MEMORY: Duration = Duration::from_secs(600);

/// A connection, and the task that reads and writes for it.
type Connected = (Client, JoinHandle<()>);
type Made = Result<Connected, Arc<ConnectFailure>>;

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) struct ConnectFailure {
    error: Error,
    pub(super) is_full: bool,
    names_a_pooler: bool,
    is_cut: bool,
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
            _ if is_provider => Error::new(
                ErrorKind::Unavailable,
                "the provider of the connection settings failed; look at the cause",
            )
            .with_source(chain(error)),
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
            is_cut: driver.is_some_and(failure::is_cut),
            is_paused: is_provided && (is_provider || is_refused),
        }
    }

    fn aborted() -> Arc<Self> {
        let message = "the attempt to connect was aborted; try again";
        let error = Error::new(ErrorKind::Unavailable, message);
        Arc::new(Self { error, is_full: false, names_a_pooler: false, is_cut: false, is_paused: false })
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

/// The attempts of one pool.
pub(crate) struct Attempts {
    /// With the settings that statements rely on.
    pinned: Connector,
    /// For a pooler, which refuses them.
    plain: Connector,
    /// When a pooler last refused them.
    refused: Mutex<Option<Instant>>,
    is_provided: bool,
    /// The TLS settings of the last attempt.
    tls: Arc<Mutex<Option<MakeRustlsConnect>>>,
    handover: Arc<Handover<Connected, Arc<ConnectFailure>>>,
    failures: Mutex<Failures>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Failures {
    /// The cause of the last failure; none after a success.
    last: Option<Arc<ConnectFailure>>,
    /// Failures in a row that have a pause.
    count: u32,
    pause: Option<Pause>,
}

#[derive(Clone, Copy)]
struct Pause {
    begin: Instant,
    end: Instant,
}

impl Failures {
    /// Returns the pause that a failure begins.
    fn record(&mut self, began: Instant, failure: &Arc<ConnectFailure>) -> Option<Duration> {
        self.last = Some(Arc::clone(failure));
        if !failure.is_paused {
            self.pause = None;
            return None;
        }
        // Of attempts that ran at the same time, one counts.
        if self.pause.is_some_and(|pause| began < pause.begin) {
            return None;
        }
        let pause = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(self.count)).min(PAUSE_MAX);
        self.count = self.count.saturating_add(1);
        let begin = Instant::now();
        self.pause = Some(Pause { begin, end: begin + pause });
        Some(pause)
    }

    /// The failure whose pause lasts.
    fn in_pause(&self) -> Option<Arc<ConnectFailure>> {
        self.pause.filter(|pause| Instant::now() < pause.end).and(self.last.clone())
    }
}

impl Attempts {
    /// Connects with the settings of `source`. `amend` changes them, and pins what statements rely on if it is asked to.
    pub(crate) fn new(
        source: &Source,
        amend: impl Fn(&mut tokio_postgres::Config, bool) + Send + Sync + 'static,
        config: &Config,
    ) -> Arc<Self> {
        let is_provided = source.is_provider();
        let tls = Arc::new(Mutex::new(None));
        let (latest, amend) = (Arc::clone(&tls), Arc::new(amend));
        let connector = |is_pinned| {
            let (source, latest, amend) = (source.clone(), Arc::clone(&latest), Arc::clone(&amend));
            let provider = move || {
                let (source, latest, amend) = (source.clone(), Arc::clone(&latest), Arc::clone(&amend));
                async move {
                    let mut settings = source::read_files(source.get().await?).await?;
                    amend(&mut settings.config, is_pinned);
                    *lock(&latest) = Some(settings.tls.clone());
                    Ok(settings.into())
                }
            };
            Connector::with_provider(provider)
                .provider_timeout(config.provider_timeout)
                .connect_timeout(config.connect_timeout)
        };
        Arc::new(Self {
            pinned: connector(true),
            plain: connector(false),
            refused: Mutex::default(),
            is_provided,
            tls,
            handover: Handover::new(),
            failures: Mutex::default(),
            stop: CancellationToken::new(),
        })
    }

    /// The TLS settings for a cancel request: those of the last attempt.
    pub(super) fn tls(&self) -> Option<MakeRustlsConnect> {
        lock(&self.tls).clone()
    }

    /// The cause, if the last attempt failed.
    pub(crate) fn last_error(&self) -> Option<String> {
        let last = lock(&self.failures).last.clone();
        last.map(|failure| chain(&failure.error))
    }

    /// Ends all attempts.
    pub(super) fn close(&self) {
        self.stop.cancel();
        self.handover.close();
    }

    async fn make(self: &Arc<Self>) -> Made {
        let spare = self.handover.take_spare();
        if let Some(connected) = spare.filter(|(client, _)| !client.is_closed()) {
            return Ok(connected);
        }
        if let Some(failure) = lock(&self.failures).in_pause() {
            return Err(failure);
        }
        let Some((mut waiting, running)) = self.handover.ask() else {
            return Err(ConnectFailure::aborted());
        };
        if let Some(running) = running {
            tokio::spawn(Arc::clone(self).attempt(running));
        }
        waiting.outcome().await.unwrap_or_else(|| Err(ConnectFailure::aborted()))
    }

    async fn attempt(self: Arc<Self>, running: Running<Connected, Arc<ConnectFailure>>) {
        let began = Instant::now();
        let made = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            made = self.connect() => made,
        };
        self.record(began, &made);
        if running.end(made) {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(SPARE_LIFETIME) => {}
            }
            drop(self.handover.take_spare());
        }
    }

    /// Connects. A connection that is cut meanwhile is made once more.
    async fn connect(&self) -> Made {
        match self.connect_once().await {
            Err(failure) if failure.is_cut => self.connect_once().await,
            made => made,
        }
    }

    async fn connect_once(&self) -> Made {
        let refused = *lock(&self.refused);
        if refused.is_none_or(|refused| Instant::now() > refused + POOLER_MEMORY) {
            match self.connect_by(&self.pinned).await {
                Err(failure) if failure.names_a_pooler => *lock(&self.refused) = Some(Instant::now()),
                made => return made,
            }
            info!("the pool leads through a connection pooler, which refuses the settings of a connection");
        }
        self.connect_by(&self.plain).await
    }

    async fn connect_by(&self, connector: &Connector) -> Made {
        match connector.connect().await {
            Ok((client, connection)) => {
                let task = tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        debug!(%error, "a connection of the pool ended");
                    }
                });
                Ok((client, task))
            }
            Err(error) => Err(Arc::new(ConnectFailure::of(&error, self.is_provided))),
        }
    }

    fn record(&self, began: Instant, made: &Made) {
        match made {
            Ok(_) => *lock(&self.failures) = Failures::default(),
            Err(failure) => {
                let pause = lock(&self.failures).record(began, failure);
                if let Some(pause) = pause {
                    warn!(error = chain(&failure.error), retry_in = ?pause, "the pool cannot connect");
                }
            }
        }
    }
}

impl std::fmt::Debug for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempts").field("connector", &self.pinned).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only the allocator can panic while a lock is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects for the pool. The attempts end with it.
pub(super) struct Connect {
    attempts: Arc<Attempts>,
    _stop: DropGuard,
}

impl Connect {
    pub(super) fn new(attempts: &Arc<Attempts>) -> Self {
        Self { attempts: Arc::clone(attempts), _stop: attempts.stop.clone().drop_guard() }
    }
}

impl deadpool_postgres::Connect for Connect {
    fn connect(
        &self,
        _: &tokio_postgres::Config,
    ) -> Pin<Box<dyn Future<Output = Result<Connected, tokio_postgres::Error>> + Send + '_>> {
        Box::pin(async move {
            match self.attempts.make().await {
                Ok(connected) => Ok(connected),
                Err(failure) => Err(failure.into_driver_error().await),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::Waker;

    use super::*;
    use crate::postgres::connect_options::ConnectOptions;

    /// Asks for a connection when it is dropped, and sends whether that failed at once.
    struct AsksWhenDropped(Arc<Attempts>, mpsc::Sender<bool>);

    impl Drop for AsksWhenDropped {
        fn drop(&mut self) {
            let asked = pin!(self.0.make()).poll(&mut Context::from_waker(Waker::noop()));
            self.1.send(matches!(asked, Poll::Ready(Err(_)))).unwrap();
        }
    }

    /// A runtime that ends starts no task: it drops each new one in place.
    ///
    /// ```text
    /// runtime   ends
    /// request         asks ── starts an attempt ───────────────── served with an error
    /// attempt                                  dropped: serves it
    /// ```
    #[test]
    fn a_request_while_its_runtime_ends_is_an_error() {
        let (reply, replied) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let options = ConnectOptions::parse("host=127.0.0.1 port=1 user=nobody").unwrap();
            let attempts = Attempts::new(&Source::Fixed(Box::new(options)), |_, _| {}, &Config::default());
            let request = AsksWhenDropped(attempts, reply);
            runtime.spawn(async move {
                std::future::pending::<()>().await;
                drop(request);
            });
            drop(runtime);
        });
        let failed = replied.recv_timeout(Duration::from_secs(10)).expect("no lock is held meanwhile");
        assert!(failed, "the attempt was dropped");
    }
}
