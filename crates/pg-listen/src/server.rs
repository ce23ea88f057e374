//! What one attempt to connect needs: the driver's configuration and a way to do TLS, fixed or from a provider.

use std::error::Error as StdError;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, NoTls, Socket};

use crate::connection::Connect;
use crate::error::Error;
use crate::error_kind::ErrorKind;
use crate::hosts::{self, Host};

/// Where PostgreSQL is, who connects, and how to do TLS.
///
/// `Debug` does not show the password.
#[derive(Clone)]
pub struct Server {
    pub(crate) config: Config,
    pub(crate) connector: Arc<dyn Connect>,
    /// By the order of the hosts.
    host_passwords: Vec<Option<String>>,
    /// Whether the next attempt has the same settings.
    pub(crate) is_fixed: bool,
}

impl Server {
    /// A server that is reached as `config` says, without TLS.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, connector: Arc::new(NoTls), host_passwords: Vec::new(), is_fixed: false }
    }

    /// Does TLS with this connector, as for `tokio_postgres::connect`. Whether TLS is used is `sslmode` in the
    /// configuration.
    #[must_use]
    pub fn tls<T>(mut self, connector: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        self.connector = Arc::new(connector);
        self
    }

    /// Gives hosts passwords of their own, in the order of the hosts. A host without one has the configuration's.
    #[must_use]
    pub fn host_passwords(mut self, passwords: Vec<Option<String>>) -> Self {
        self.host_passwords = passwords;
        self
    }

    /// Each host by itself, with its name and port, in the order of the configuration. For a check
    /// that asks all of them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the configuration names no host, or its lists do not fit together.
    pub fn hosts(&self) -> Result<Vec<(String, Self)>, Error> {
        let alone = |host: &Host| {
            let config = self.config_of(host, None);
            (host.to_string(), Self { config, host_passwords: Vec::new(), ..self.clone() })
        };
        Ok(hosts::list(&self.config)?.iter().map(alone).collect())
    }

    /// The configuration for one host, at this address if its name was resolved.
    pub(crate) fn config_of(&self, host: &Host, address: Option<IpAddr>) -> Config {
        let mut config = host.alone(&self.config, address);
        if let Some(Some(password)) = self.host_passwords.get(host.number - 1) {
            config.password(password);
        }
        config
    }

    /// Says that the provider always returns these settings. A server that refuses them keeps refusing them, which is
    /// [`ErrorKind::Refused`]. Otherwise a refusal is [`ErrorKind::Connection`], because the next settings may work.
    #[must_use]
    pub fn fixed(mut self) -> Self {
        self.is_fixed = true;
        self
    }
}

impl From<Config> for Server {
    fn from(config: Config) -> Self {
        Self::new(config)
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The driver hides the password.
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What a provider fails with. Its text is logged.
pub(crate) type ProviderError = Box<dyn StdError + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = Result<Server, ProviderError>> + Send>>;

/// Where the settings of an attempt come from.
#[derive(Clone)]
pub(crate) enum Source {
    Fixed(Box<Server>),
    Provider(Arc<dyn Fn() -> Answer + Send + Sync>),
}

impl Source {
    pub(crate) fn provider<P, F>(provider: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<Server, ProviderError>> + Send + 'static,
    {
        Self::Provider(Arc::new(move || Box::pin(provider())))
    }

    /// The settings of the next attempt. A provider runs in a task of its own: its panic ends only that task, and it is
    /// aborted after `limit`.
    pub(crate) async fn get(&self, limit: Duration) -> Result<Server, Error> {
        let provider = match self {
            Self::Fixed(server) => return Ok(Server::clone(server).fixed()),
            Self::Provider(provider) => Arc::clone(provider),
        };
        let mut task = AbortOnDrop(tokio::spawn(async move { provider().await }));
        match tokio::time::timeout(limit, &mut task.0).await {
            Ok(Ok(Ok(server))) => Ok(server),
            Ok(Ok(Err(cause))) => {
                Err(Error::provider("the provider of the connection settings failed", Some(cause)))
            }
            // The text of a panic is not repeated: it may show a value.
            Ok(Err(error)) if error.is_panic() => Err(Error::provider(
                "the provider of the connection settings panicked; look at the panic's own message on stderr",
                None,
            )),
            Ok(Err(_)) => Err(Error::new(
                ErrorKind::Provider,
                "the provider of the connection settings was aborted, because its tokio runtime ends",
            )),
            Err(_) => Err(Error::new(
                ErrorKind::Provider,
                format!(
                    "the provider of the connection settings gave no answer within {limit:?}; look at what it waits for, \
                     or raise `provider_timeout`"
                ),
            )),
        }
    }
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn failure(source: &Source, limit: Duration) -> String {
        let error = source.get(limit).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider);
        crate::error::chain(&error)
    }

    #[tokio::test]
    async fn a_provider_that_fails_hangs_or_panics_is_an_error() {
        let fails = Source::provider(|| async { Err("vault is sealed".into()) });
        assert!(failure(&fails, LIMIT).await.ends_with("failed: vault is sealed"));
        let hangs = Source::provider(std::future::pending);
        assert!(failure(&hangs, Duration::from_millis(20)).await.contains("no answer within 20ms"));
        let panics = Source::provider(|| async { panic!("hunter2") });
        let text = failure(&panics, LIMIT).await;
        assert!(text.contains("panicked") && !text.contains("hunter2"), "{text}");
        let panics_at_once =
            Source::provider(|| -> std::future::Ready<Result<Server, ProviderError>> { panic!("hunter2") });
        assert!(failure(&panics_at_once, LIMIT).await.contains("panicked"));
    }

    #[test]
    fn a_server_does_not_show_its_password() {
        let config: Config = "host=h user=u password=hunter2".parse().unwrap();
        let server = Server::new(config).host_passwords(vec![Some("hunter2".to_owned())]);
        assert!(!format!("{server:?}").contains("hunter2"));
    }

    #[test]
    fn hosts_have_the_names_that_a_person_knows() {
        let config =
            "host=a,/run/postgresql,b hostaddr=10.0.0.1,127.0.0.1,10.0.0.2 port=1,2,3".parse::<Config>();
        let mut names = Vec::new();
        for (name, host) in Server::new(config.unwrap()).hosts().unwrap() {
            assert_eq!(host.config.get_hosts().len(), 1);
            names.push(name);
        }
        assert_eq!(names, ["a:1", "/run/postgresql:2", "b:3"]);
        let address: Config = "hostaddr=::1".parse().unwrap();
        assert_eq!(Server::new(address).hosts().unwrap()[0].0, "[::1]:5432");
    }

    #[test]
    fn each_host_has_its_password() {
        let config: Config = "host=a,b,c user=u password=common".parse().unwrap();
        let server = Server::new(config).host_passwords(vec![None, Some("own".to_owned())]);
        let hosts = server.hosts().unwrap();
        let passwords: Vec<_> = hosts.iter().map(|(_, host)| host.config.get_password().unwrap()).collect();
        assert_eq!(passwords, [&b"common"[..], b"own", b"common"]);
        // By itself, a host is the first one.
        let again: Vec<_> = hosts[1].1.hosts().unwrap();
        assert_eq!(again[0].1.config.get_password(), Some(&b"own"[..]));
    }
}
