//! From settings to a running node, or to an error that says what to do, with nothing left running.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use pg_listen::{Listener, Server, Subscription};
use tokio_postgres::config::TargetSessionAttrs;
use tracing::warn;

use super::listening::{Begun, Way, from_listener_error, prove_path};
use super::modify::KeyedQueue;
use super::{Node, SessionManager};
use crate::cleanup::Cleaner;
use crate::clock::Clock;
use crate::config::{Config, ListenerPath, Migrations};
use crate::contention::NotifyPolicy;
use crate::core::{Core, Tasks};
use crate::error::{Error, chain};
use crate::invalidation::InvalidationTask;
use crate::invalidation::proof::Prover;
use crate::invalidation::resync::Resync;
use crate::invalidation::trust::Trust;
use crate::loader::Loader;
use crate::lock::Locks;
use crate::lock::waiters::Waiters;
use crate::observer::Observer;
use crate::pinning;
use crate::postgres::connect_options::ConnectOptions;
use crate::postgres::connection::no_connection;
use crate::postgres::doctor::{CONNECT_MAX, Finding, Severity, servers};
use crate::postgres::failure::is_without_primary;
use crate::postgres::names::Names;
use crate::postgres::pooler::{own_pool, sending, start_timeout};
use crate::postgres::source::{ListenOn, ListenerSettings, Source, no_server, read_files};
use crate::postgres::{DATABASE_CLOCK, Database, Pooled};
use crate::writer::Writer;
use crate::writer::touch::TouchBuffer;

/// Pings of the node's own listener in each trust window, or barriers of an application's. They find a
/// half-open connection within a window. They prove no trust.
pub(super) const BARRIERS_PER_WINDOW: u32 = 2;

/// The least time that `connect` waits for a notification through the pool to reach the listener.
const START_WAIT_MIN: Duration = Duration::from_secs(2);

/// How much longer than an attempt of the listener.
const START_MARGIN: Duration = Duration::from_millis(250);

/// Collects what a [`SessionManager`] is to be connected with.
#[derive(Debug)]
#[must_use = "a builder does nothing until `connect` is called"]
pub struct Builder {
    config: Config,
    server: Option<Source>,
    listen_on: Option<ListenOn>,
    listener: Option<Listener>,
    pool: Option<Pool>,
    clock: Clock,
    database_clock: String,
    notify_policy: NotifyPolicy,
    adopts_settings: bool,
}

impl Builder {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            server: None,
            listen_on: None,
            listener: None,
            pool: None,
            clock: Clock::monotonic(),
            database_clock: DATABASE_CLOCK.to_owned(),
            notify_policy: NotifyPolicy::WhenBusy,
            adopts_settings: false,
        }
    }

    /// The server, as a connection string that `psql` accepts: a URL, or `host=… user=…`.
    ///
    /// **`sslmode=prefer` (the default) and `require` encrypt without verifying the server.** Over a network that is
    /// not your own, use `sslmode=verify-full`, which verifies with the machine's authorities or the PEM file in
    /// `sslrootcert`. As in libpq, `require` with `sslrootcert` verifies as `verify-ca` does, and `sslrootcert=system`
    /// means `verify-full`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it does not parse or asks for what is not supported. The message names the option, and
    /// repeats no value.
    pub fn url(self, url: &str) -> Result<Self, Error> {
        Ok(self.connect_options(ConnectOptions::parse(url)?))
    }

    /// The server, from `DATABASE_URL` and libpq's variables; see [`ConnectOptions::from_env`].
    ///
    /// # Errors
    /// As [`ConnectOptions::from_env`].
    pub fn from_env(self) -> Result<Self, Error> {
        Ok(self.connect_options(ConnectOptions::from_env()?))
    }

    /// The server, as options that were read before.
    pub fn connect_options(mut self, options: ConnectOptions) -> Self {
        self.server = Some(Source::Fixed(Box::new(options)));
        self
    }

    /// The server, as a provider that returns the options of each attempt to connect. It is for
    /// passwords that are valid for a short time (RDS IAM, Vault), and for servers that move.
    ///
    /// The pool and the listener ask it, up to `pool_connections_max` + 1 times at once. It runs in a task of its own. If it
    /// returns an error, panics, or takes longer than `provider_timeout`, the attempt fails with
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), and so it does if PostgreSQL refuses its options. The next attempt waits for a pause that
    /// doubles, up to 5 s. [`Status::connect_error`](crate::Status::connect_error) and
    /// [`Status::trust_error`](crate::Status::trust_error) have the cause.
    ///
    /// The text of its error is logged, so **it must not contain a secret**.
    ///
    /// ```no_run
    /// use pg_session::{Config, ConnectOptions, SessionManager};
    ///
    /// # async fn token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # async fn example() -> Result<(), pg_session::Error> {
    /// let server = ConnectOptions::parse("postgres://app@db.example/app?sslmode=verify-full")?;
    /// let sessions = SessionManager::builder(Config::default())
    ///     .connect_with(move || {
    ///         let server = server.clone();
    ///         async move { Ok(server.password(&token().await?)) }
    ///     })
    ///     .connect()
    ///     .await?;
    /// # drop(sessions); Ok(()) }
    /// ```
    pub fn connect_with<P, F>(mut self, provider: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<ConnectOptions, Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        self.server = Some(Source::provider(provider));
        self
    }

    /// The server, as the driver's configuration, which cannot ask for verification; [`url`](Builder::url) can.
    pub fn postgres(self, postgres: tokio_postgres::Config) -> Self {
        self.connect_options(postgres.into())
    }

    /// Another way to the same database for the listener, which needs a connection of its own.
    /// Where the pool goes through pgbouncer, this leads directly to PostgreSQL. A listener that
    /// meets a pooler is an error of [`connect`](Builder::connect). If it meets one later, the node
    /// is not trusted and reads from the database.
    ///
    /// The driver's configuration cannot ask for verification: the connection is encrypted and verified as the pool's
    /// is. `sslmode=disable` beside a pool that is encrypted is an error of [`connect`](Builder::connect).
    pub fn listen_on(mut self, postgres: tokio_postgres::Config) -> Self {
        self.listen_on = Some(ListenOn::Driver(Box::new(postgres)));
        self
    }

    /// As [`listen_on`](Builder::listen_on), with a connection string. Its `sslmode` must protect the connection at
    /// least as well as the pool's is; a weaker one is an error of [`connect`](Builder::connect).
    ///
    /// # Errors
    /// As [`url`](Builder::url).
    pub fn listen_on_url(mut self, url: &str) -> Result<Self, Error> {
        self.listen_on = Some(ListenOn::Source(Source::Fixed(Box::new(ConnectOptions::parse(url)?))));
        Ok(self)
    }

    /// As [`listen_on`](Builder::listen_on), with a provider as for [`connect_with`](Builder::connect_with). A provider whose
    /// options protect the connection less than the pool's is an error in
    /// [`Status::trust_error`](crate::Status::trust_error), and the node is not trusted.
    pub fn listen_with<P, F>(mut self, provider: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<ConnectOptions, Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        self.listen_on = Some(ListenOn::Source(Source::provider(provider)));
        self
    }

    /// The application's own listener on the same database, instead of one more connection. The node
    /// subscribes to its channel there. It sends barriers beside the listener's own, so that a half-open
    /// connection is found within a trust window. At shutdown it leaves the listener running.
    #[cfg(feature = "shared-listener")]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// The application's own pool, instead of one made here. If its connections are encrypted, the listener's must be, too:
    /// `sslmode=require` or better. **Whether the pool verifies the server cannot be seen.** Give
    /// [`listen_on_url`](Builder::listen_on_url) the `sslmode` and `sslrootcert` that the pool has. The listener still needs [`url`](Builder::url),
    /// [`postgres`](Builder::postgres) or [`listen_on`](Builder::listen_on), unless [`listener`](Builder::listener) gives one.
    #[cfg(feature = "deadpool")]
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// For a program that operates on an application's sessions and is none of its nodes, such as a console.
    ///
    /// The tables have the settings of the application's node that started last: timeouts, the cap
    /// of sessions, and limits of attributes. They also have the longest `trust_window` of the
    /// nodes that run. They replace those of the [`Config`]. Otherwise the program would take other
    /// sessions for ended than the application does. It does not replace the settings in the
    /// tables, and does not clean up by itself. Default: the settings are those of the [`Config`],
    /// and are written to the tables.
    pub fn adopt_settings(mut self) -> Self {
        self.adopts_settings = true;
        self
    }

    /// Commits each update before it notifies, also one that would wait for no other. Not part of the API: see
    /// `docs/decisions/018-commit-then-notify.md`.
    #[doc(hidden)]
    pub fn notify_after_updates(mut self) -> Self {
        self.notify_policy = NotifyPolicy::AfterCommit;
        self
    }

    /// Notifies inside the transaction of each update. Not part of the API: the baseline of the benchmark.
    #[doc(hidden)]
    pub fn notify_inside_updates(mut self) -> Self {
        self.notify_policy = NotifyPolicy::Inside;
        self
    }

    /// A clock that the test moves, instead of the machine's.
    #[cfg(feature = "testing")]
    pub fn manual_clock(mut self, nanos: Arc<std::sync::atomic::AtomicU64>) -> Self {
        self.clock = Clock::manual(nanos);
        self
    }

    /// A SQL expression that represents the database's clock in every statement.
    #[cfg(feature = "testing")]
    pub fn database_clock(mut self, expression: &str) -> Self {
        expression.clone_into(&mut self.database_clock);
        self
    }

    /// Checks everything, connects, and starts the node's tasks.
    ///
    /// # Errors
    /// As [`SessionManager::connect`].
    ///
    /// # Cancel safety
    /// Nothing is left running if the future is dropped; tables that were created stay.
    pub async fn connect(self) -> Result<SessionManager, Error> {
        // Boxed, so that the caller's future is small.
        Box::pin(self.start_node()).await
    }

    async fn start_node(mut self) -> Result<SessionManager, Error> {
        self.config.validate()?;
        let way = match (&self.listener, &self.listen_on) {
            (Some(_), _) => Way::Application,
            (None, Some(ListenOn::Driver(_))) => Way::ListenOn,
            (None, Some(ListenOn::Source(_))) => Way::ListenOnUrl,
            (None, None) => Way::Pool,
        };
        // A missing server is an error before anything is connected.
        let mut listener_source = match &self.listener {
            Some(listener) => ListenerSource::Application(listener.clone()),
            None => ListenerSource::Own(Box::new(self.listener_settings().await?)),
        };
        // Boxed, so that the caller's future is small.
        let database = Box::pin(self.open_adopting()).await?;
        // First, because it needs a primary: the tables of a standby may be old.
        Box::pin(database.learn_clock()).await?;
        if let (Some(_), ListenerSource::Own(settings)) = (&self.pool, &mut listener_source)
            && database.is_encrypted().await?
        {
            settings.require_encryption().await?;
        }
        let (listener, owns_listener) = match listener_source {
            ListenerSource::Application(listener) => (listener, false),
            ListenerSource::Own(settings) => (make_listener(*settings, &self.config)?, true),
        };
        let Config { query_timeout, connect_timeout, listener_path, migrations, .. } = self.config;
        // An attempt that takes all of its time has a cause at the end.
        let wait_max = query_timeout.max(connect_timeout + START_MARGIN).max(START_WAIT_MIN);
        // A mistake in an address leaves no tables behind. The listener at the pool's own address reaches the pool's database.
        let is_shared = way == Way::Pool && self.pool.is_none();
        if !is_shared && Box::pin(database.needs_migrations(migrations)).await? {
            Box::pin(prove_path(&listener, &database, way, listener_path, wait_max)).await?;
        }
        Box::pin(database.prepare_tables(migrations)).await?;
        if !self.adopts_settings {
            Box::pin(database.publish_settings()).await?;
        }
        let events = listener.subscribe(database.names().channel()).await.map_err(from_listener_error)?;
        let core = Core::new(self.config, database, self.notify_policy);
        let manager = SessionManager(Arc::new(start(core, (listener, owns_listener), events)));
        if !owns_listener {
            manager.0.send_barriers();
        }
        match manager.0.begin_listening(way, wait_max).await {
            Ok(Begun::Trusted) => {}
            Ok(Begun::Untrusted(cause)) => {
                warn!(
                    cause,
                    "the listener is not in sync yet, sessions are read from the database until it is"
                );
            }
            Err(error) => {
                // The row in the registry would look like that of a node that has lost its listener.
                let _ = manager.shutdown(query_timeout).await;
                return Err(error);
            }
        }
        Ok(manager)
    }

    /// Checks server, role and tables, and changes no table. The findings are in the order in which they are to
    /// be fixed; none means that a node can start and keep its promises. If no check finds a fault, a node is started
    /// and stopped, and its error is a finding.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for settings and connection strings. Everything else is a finding.
    ///
    /// # Cancel safety
    /// Nothing is left running if the future is dropped.
    pub async fn diagnose(self) -> Result<Vec<Finding>, Error> {
        // In a box: the future of all checks is large.
        Box::pin(self.examine()).await
    }

    async fn examine(mut self) -> Result<Vec<Finding>, Error> {
        self.config.validate()?;
        self.config.migrations = Migrations::Check;
        self.config.pool_connections_max = 1;
        Names::new(&self.config)?;
        if self.pool.is_none() && self.server.is_none() {
            return Err(no_server());
        }
        self.config.connect_timeout = self.config.connect_timeout.min(CONNECT_MAX);
        let mut servers = self.examine_servers(false).await;
        // The node that is started at the end is none of the application's.
        self.adopts_settings = true;
        let opened = match self.open().await {
            Ok(database) => {
                let mut findings = database.diagnose(&self.config).await;
                if let Ok(findings) = &mut findings
                    && self.pool.is_none()
                    && self.listen_on.is_none()
                    && self.listener.is_none()
                    && self.config.listener_path == ListenerPath::Direct
                    // An error is that of the connection, which the findings have.
                    && database.is_pooled().await.unwrap_or_default()
                {
                    findings.insert(0, Finding::pooler());
                }
                database.close();
                findings
            }
            Err(error) => Err(error),
        };
        if servers.is_empty() && opened.as_ref().is_err_and(is_without_primary) {
            servers = self.examine_servers(true).await;
        }
        let mut findings = servers;
        match opened {
            Ok(found) => findings.extend(found),
            Err(error) => {
                findings.push(Finding::of_connection(&error));
                return Ok(findings);
            }
        }
        if findings.iter().all(|finding| finding.severity != Severity::Fault) {
            let timeout = self.config.query_timeout;
            if self.listen_on.is_some() {
                // It waits as long for its listener, which may reach another database.
                self.config.query_timeout = timeout.min(CONNECT_MAX);
            }
            match Box::pin(self.connect()).await {
                Ok(node) => {
                    if node.status().trusted_for.is_none() {
                        let cause =
                            node.status().trust_error.map_or_else(String::new, |cause| format!(": {cause}"));
                        findings.push(Finding::at_start(&format!(
                            "the listener received no notification{cause}"
                        )));
                    }
                    let _ = node.shutdown(timeout).await;
                }
                Err(error) => findings.push(Finding::at_start(&chain(&error))),
            }
        }
        Ok(findings)
    }

    /// Asks each host that the pool and the listener may reach. A single address of both has nothing to compare with,
    /// and is asked only `if_single`.
    async fn examine_servers(&self, if_single: bool) -> Vec<Finding> {
        // An error of a provider is that of the connection.
        let pool = match &self.server {
            Some(server) if self.pool.is_none() => server.get().await.ok(),
            _ => None,
        };
        let listener = match (&self.listener, &self.listen_on) {
            (None, Some(_)) => match self.listener_settings().await {
                Ok(settings) => settings.get().await.ok(),
                Err(_) => None,
            },
            _ => None,
        };
        if !if_single
            && listener.is_none()
            && pool.as_ref().is_none_or(|pool| pool.config.get_hosts().len() < 2)
        {
            return Vec::new();
        }
        servers::examine(pool, listener).await
    }

    /// As [`open`](Self::open). The settings are part of the statements, so these are made again for other settings.
    async fn open_adopting(&mut self) -> Result<Database, Error> {
        let database = self.open().await?;
        if !self.adopts_settings {
            return Ok(database);
        }
        let adopted = database.with_published_settings(&self.config).await?;
        database.close();
        self.config = adopted;
        self.config.cleanup_interval = Duration::ZERO;
        self.open().await
    }

    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with what is wrong.
    pub(super) fn validate(&self) -> Result<(), Error> {
        self.config.validate()
    }

    /// Makes the pool, and learns how to send statements. Sends none to the tables.
    pub(super) async fn open(&mut self) -> Result<Database, Error> {
        let names = Names::new(&self.config)?;
        let pool = match &self.pool {
            Some(pool) => Pooled::Application(pool.clone(), ConnectOptions::unverified()?, Arc::default()),
            None => {
                let server = self.server.as_ref().ok_or_else(no_server)?;
                let (pool, attempts, reaches) = own_pool(server, &self.config)?;
                Pooled::Own(pool, attempts, reaches)
            }
        };
        let (pooled, reaches, wait_max) = match &pool {
            Pooled::Own(pool, _, reaches) => (pool, reaches, start_timeout(&self.config)),
            Pooled::Application(pool, _, reaches) => (pool, reaches, self.config.query_timeout),
        };
        let mode = sending(pooled, reaches, self.config.statement_mode);
        let mode = tokio::time::timeout(wait_max, mode).await;
        let mode = mode.map_err(|_| no_connection(wait_max))??;
        let policy = self.config.policy(std::mem::replace(&mut self.clock, Clock::monotonic()));
        Ok(Database::new(pool, mode, policy, names, &self.config, &self.database_clock))
    }

    /// The listener's settings. A mistake in fixed settings is an error at once.
    async fn listener_settings(&self) -> Result<ListenerSettings, Error> {
        let settings =
            ListenerSettings { pool: self.server.clone(), own: self.listen_on.clone(), is_encrypted: false };
        if settings.is_missing() {
            return Err(no_server());
        }
        if !settings.is_provided() {
            read_files(settings.get_fixed().await?).await?;
        }
        Ok(settings)
    }
}

/// Whose listener it is. At shutdown the node closes only its own.
enum ListenerSource {
    Own(Box<ListenerSettings>),
    Application(Listener),
}

fn start(core: Arc<Core>, (listener, owns_listener): (Listener, bool), events: Subscription) -> Node {
    let trust = Arc::new(Trust::new(core.config.trust_window, Arc::clone(&core.pins)));
    let tasks = Tasks::new();
    let waiters = Arc::<Waiters>::default();
    let resync = Resync::spawn(&core, &tasks);
    let prover = Prover::spawn(&core, &tasks, &trust, &listener, &resync);
    InvalidationTask::spawn(&core, &tasks, events, &trust, &waiters, &prover, resync);
    pinning::spawn(&core, &tasks, &prover);
    Node {
        loader: Loader::spawn(&core, &tasks),
        touches: TouchBuffer::spawn(&core, &tasks),
        cleaner: Cleaner::spawn(&core, &tasks),
        writer: Writer::spawn(&core, &tasks),
        locks: Locks::new(&core, &tasks, waiters),
        observer: Observer::spawn(&core, &tasks, &trust),
        turns: KeyedQueue::new(),
        core,
        trust,
        prover,
        listener,
        owns_listener,
        tasks,
    }
}

fn make_listener(settings: ListenerSettings, config: &Config) -> Result<Listener, Error> {
    let interval = config.trust_window / BARRIERS_PER_WINDOW;
    let provider = move || {
        let settings = settings.clone();
        async move {
            let mut found = read_files(settings.get().await?).await?;
            // A standby sends no notifications.
            found.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
            let server = Server::from(found);
            Ok(if settings.is_provided() { server } else { server.fixed() })
        }
    };
    let builder = match config.listener_path {
        ListenerPath::Direct => Listener::builder_with(provider),
        ListenerPath::SessionPooler => Listener::builder_with(provider).accept_session_pooler(),
    };
    builder
        .provider_timeout(config.provider_timeout)
        .connect_timeout(config.connect_timeout)
        .barrier_interval(interval)
        // Ticks prove what barriers would.
        .pings()
        .barrier_timeout((config.trust_window - interval).max(Duration::from_millis(100)))
        .start()
        .map_err(from_listener_error)
}
