//! Makes connections: asks for the settings, resolves names, and tries each host for its share of the time.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, Config};

use crate::connection::{Messages, Opened};
use crate::error::{Error, chain};
use crate::error_kind::ErrorKind;
use crate::hosts::{self, ADDRESSES_MAX, Health, Host};
use crate::server::{ProviderError, Server, Source};

pub(crate) const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes connections as a [`Listener`](crate::Listener) does, for a pool that wants the same.
///
/// Each attempt has settings of its own, from a provider or fixed. It resolves names again. It tries each host for its
/// share of the time, the last good one first.
pub struct Connector {
    source: Source,
    provider_timeout: Duration,
    connect_timeout: Duration,
    health: Mutex<Health>,
}

impl Connector {
    /// Connects to one server, or to one of several hosts.
    #[must_use]
    pub fn new(server: impl Into<Server>) -> Self {
        Self::of(Source::Fixed(Box::new(server.into())))
    }

    /// Asks `provider` for the settings of each attempt.
    ///
    /// The provider runs in a task of its own. An error, a panic and no answer within
    /// [`provider_timeout`](Self::provider_timeout) are [`ErrorKind::Provider`]. The text of its error is logged, so **it
    /// must not contain a secret**.
    #[must_use]
    pub fn with_provider<P, F>(provider: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<Server, ProviderError>> + Send + 'static,
    {
        Self::of(Source::provider(provider))
    }

    pub(crate) fn of(source: Source) -> Self {
        Self {
            source,
            provider_timeout: PROVIDER_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            health: Mutex::default(),
        }
    }

    /// How long the provider may take. Default 10 s.
    #[must_use]
    pub fn provider_timeout(mut self, limit: Duration) -> Self {
        self.provider_timeout = limit;
        self
    }

    /// How long connecting may take after that, over all hosts and addresses, from name resolution to authentication.
    /// Default 5 s. `connect_timeout` in the configuration limits each host further.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Makes a connection. The client works only while the task is polled: spawn it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Provider`] if there are no settings; [`ErrorKind::Config`] if they name no host. Otherwise the error
    /// of the host that says most about the cause; the driver's error is its `source()`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future ends the attempt, and the provider's task.
    pub async fn connect(&self) -> Result<(Client, ConnectionTask), Error> {
        let Opened { client, connection } = self.open(|_| {}).await?;
        Ok((client, ConnectionTask(connection)))
    }

    /// As [`connect`](Self::connect), with settings that `amend` has changed.
    pub(crate) async fn open(&self, amend: impl FnOnce(&mut Config)) -> Result<Opened, Error> {
        let mut server = self.source.get(self.provider_timeout).await?;
        amend(&mut server.config);
        let hosts = hosts::list(&server.config)?;
        let hosts = self.health().order(hosts, server.config.get_load_balance_hosts());
        let deadline = Instant::now() + self.connect_timeout;
        let mut failures = Vec::new();
        for (tried, host) in hosts.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = hosts::share(left, hosts.len() - tried);
            let limit = server.config.get_connect_timeout().map_or(limit, |own| limit.min(*own));
            match self.open_host(&server, host, limit).await {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    tracing::debug!(host = host.number, error = chain(&error), "no connection to a host");
                    self.health().failed(host);
                    failures.push((host.number, error));
                }
            }
        }
        let error = most_telling(failures);
        Err(if server.is_fixed { error } else { error.may_pass() })
    }

    async fn open_host(&self, server: &Server, host: &Host, limit: Duration) -> Result<Opened, Error> {
        let deadline = Instant::now() + limit;
        let Some(name) = host.unresolved() else { return self.open_address(server, host, None, limit).await };
        let mut addresses = resolve(name, host.port, limit).await?;
        self.health().order_addresses(host, &mut addresses);
        let mut last = None;
        for (tried, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = hosts::share(left, addresses.len() - tried);
            match self.open_address(server, host, Some(*address), limit).await {
                Ok(opened) => return Ok(opened),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| unresolved(None)))
    }

    async fn open_address(
        &self,
        server: &Server,
        host: &Host,
        address: Option<IpAddr>,
        limit: Duration,
    ) -> Result<Opened, Error> {
        let opening = server.connector.connect(server.config_of(host, address));
        let opened = timeout(limit, opening).await.map_err(|_| no_answer(limit))?;
        let opened = opened.map_err(Error::connecting)?;
        self.health().answered(host, address);
        Ok(opened)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Each change of it is one assignment, so a panic leaves it whole.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("provider_timeout", &self.provider_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

async fn resolve(name: &str, port: u16, limit: Duration) -> Result<Vec<IpAddr>, Error> {
    let found = timeout(limit, tokio::net::lookup_host((name, port))).await.map_err(|_| no_answer(limit))?;
    let mut addresses = Vec::new();
    for address in found.map_err(|error| unresolved(Some(error)))?.map(|address| address.ip()) {
        if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn unresolved(cause: Option<std::io::Error>) -> Error {
    let error = Error::new(
        ErrorKind::Unreachable,
        "the host's name cannot be resolved; correct the host, or look at DNS",
    );
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

fn no_answer(limit: Duration) -> Error {
    // A share is what is left of the time, to the nanosecond.
    let limit = Duration::from_millis(u64::try_from(limit.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX));
    Error::new(ErrorKind::Unreachable, format!("no connection to postgres within {limit:?}"))
}

/// The error of the attempt: a server's answer says more than silence, and the last host's more than the first's. With
/// several hosts, its message has what became of each.
fn most_telling(failures: Vec<(usize, Error)>) -> Error {
    let list: Vec<String> =
        failures.iter().map(|(number, error)| format!("host {number}: {}", chain(error))).collect();
    let is_single = failures.len() == 1;
    let chosen = failures.into_iter().map(|(_, error)| error).max_by_key(Error::weight);
    // There is at least one host.
    let chosen = chosen.unwrap_or_else(|| no_answer(Duration::ZERO));
    if is_single { chosen } else { chosen.with_message(list.join("; ")) }
}

/// Reads and writes for one [`Client`]; ends with the connection.
#[must_use = "the client works only while this is polled"]
pub struct ConnectionTask(Box<dyn Messages>);

impl Future for ConnectionTask {
    type Output = Result<(), tokio_postgres::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while let Some(message) = ready!(self.0.poll_message(cx)) {
            message?;
        }
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for ConnectionTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionTask").finish_non_exhaustive()
    }
}
