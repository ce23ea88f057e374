//! The source of a connection's settings: fixed options, or a provider that is called for each attempt.
//!
//! In both cases, files are read for each attempt, because certificates and passwords in them may change.

use std::pin::Pin;
use std::sync::Arc;

use super::connect_options::{ConnectOptions, ServerSettings};
use crate::error::{Error, ErrorKind};

/// The error of a provider.
pub(crate) type ProviderError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = Result<ConnectOptions, ProviderError>> + Send>>;

/// Settings for each attempt to connect.
#[derive(Clone)]
pub(crate) enum Source {
    Fixed(Box<ConnectOptions>),
    Provider(Arc<dyn Fn() -> Answer + Send + Sync>),
}

impl Source {
    pub(crate) fn provider<P, F>(provider: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<ConnectOptions, ProviderError>> + Send + 'static,
    {
        Self::Provider(Arc::new(move || Box::pin(provider())))
    }

    pub(crate) fn is_provider(&self) -> bool {
        matches!(self, Self::Provider(_))
    }

    pub(crate) async fn get(&self) -> Result<ConnectOptions, ProviderError> {
        match self {
            Self::Fixed(options) => Ok(ConnectOptions::clone(options)),
            Self::Provider(provider) => provider().await,
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(options) => options.fmt(f),
            Self::Provider(_) => f.write_str("Provider"),
        }
    }
}

/// The settings of the listener: its own, or the pool's. They protect the connection at least as well as the pool's.
#[derive(Clone, Debug)]
pub(crate) struct ListenerSettings {
    pub(crate) pool: Option<Source>,
    pub(crate) own: Option<ListenOn>,
    /// Whether the connection must be encrypted, as those of the application's pool are.
    pub(crate) is_encrypted: bool,
}

/// The listener's own way to the database.
#[derive(Clone, Debug)]
pub(crate) enum ListenOn {
    /// The driver's configuration cannot ask for verification: it takes over the pool's.
    Driver(Box<tokio_postgres::Config>),
    Source(Source),
}

impl ListenerSettings {
    /// Whether a provider is asked for each attempt.
    pub(crate) fn is_provided(&self) -> bool {
        let own = matches!(&self.own, Some(ListenOn::Source(own)) if own.is_provider());
        own || self.pool.as_ref().is_some_and(Source::is_provider)
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.pool.is_none() && self.own.is_none()
    }

    /// The settings, if no provider is asked.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the listener would be protected less than the pool.
    pub(crate) async fn get_fixed(&self) -> Result<ConnectOptions, Error> {
        self.get().await.map_err(|error| match error.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => Error::new(ErrorKind::Config, other.to_string()),
        })
    }

    /// The application's pool is encrypted, so the listener must be.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if fixed settings do not encrypt. A provider's are checked for each attempt.
    pub(crate) async fn require_encryption(&mut self) -> Result<(), Error> {
        self.is_encrypted = true;
        if !self.is_provided() {
            self.get_fixed().await?;
        }
        Ok(())
    }

    pub(crate) async fn get(&self) -> Result<ConnectOptions, ProviderError> {
        let options = self.chosen().await?;
        if self.is_encrypted {
            options.check_encrypted()?;
        }
        Ok(options)
    }

    async fn chosen(&self) -> Result<ConnectOptions, ProviderError> {
        Ok(match (&self.own, &self.pool) {
            (Some(ListenOn::Driver(own)), Some(pool)) => pool.get().await?.protect((**own).clone())?,
            (Some(ListenOn::Driver(own)), None) => (**own).clone().into(),
            (Some(ListenOn::Source(own)), Some(pool)) => {
                let own = own.get().await?;
                pool.get().await?.check_listener(&own)?;
                own
            }
            (Some(ListenOn::Source(own)), None) => own.get().await?,
            (None, Some(pool)) => pool.get().await?,
            (None, None) => return Err(no_server().into()),
        })
    }
}

pub(crate) fn no_server() -> Error {
    Error::new(
        ErrorKind::Config,
        "no server was given; call `url` or `postgres`, and `listen_on` beside `pool` if the pool's server is another",
    )
}

/// Reads the files that options name, off the async threads.
///
/// # Errors
/// [`ErrorKind::Config`] if one cannot be read.
pub(crate) async fn read_files(options: ConnectOptions) -> Result<ServerSettings, Error> {
    let read = tokio::task::spawn_blocking(move || options.read_files());
    read.await.unwrap_or_else(|error| {
        Err(Error::new(
            ErrorKind::Unavailable,
            "the runtime ended before the files of the connection settings were read; start again",
        )
        .with_source(error.to_string()))
    })
}
