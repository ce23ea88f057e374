//! Where the application's sessions are: the options that all commands share, and the way there.

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use pg_session::{Builder, Config, SessionManager};

use crate::failure::Failure;
use crate::output::waiting;
use crate::signals::Signals;

/// How long the connections may take to close.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// The server and the tables.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// The server, as postgres://user:password@host:5432/database. Without it: DATABASE_URL and libpq's variables.
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    database_url: Option<String>,
    /// The address of the listener, if it differs: PostgreSQL's own behind a pooler.
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    listen_url: Option<String>,
    /// The schema that holds the tables.
    #[arg(long, default_value = "public")]
    schema: String,
    /// The prefix of each table's name.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
}

impl Place {
    /// The settings that name the tables.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.schema.clone_from(&self.schema);
        config.table_prefix.clone_from(&self.prefix);
        config.pool_connections_max = 2;
        config
    }

    /// Nothing is connected yet.
    pub(crate) fn builder(&self) -> Result<Builder, Failure> {
        self.builder_with(|_| ())
    }

    /// Nothing is connected yet.
    pub(crate) fn builder_with(&self, change: impl FnOnce(&mut Config)) -> Result<Builder, Failure> {
        let mut config = self.config();
        change(&mut config);
        let builder = SessionManager::builder(config);
        let builder = match &self.database_url {
            Some(url) => builder.url(url)?,
            None => builder.from_env().map_err(|error| {
                Failure::usage(format!("{}; or give --database-url", Failure::from(error)))
            })?,
        };
        Ok(match &self.listen_url {
            Some(url) => builder
                .listen_on_url(url)
                .map_err(|error| Failure::new(format!("--listen-url: {}", Failure::from(error))))?,
            None => builder,
        })
    }

    /// Runs `work` on a connection, and closes it.
    pub(crate) async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&SessionManager) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let sessions = self.connect().await?;
        let outcome = work(&sessions).await;
        close(&sessions).await;
        outcome
    }

    /// As [`with`](Self::with), for a change. A signal ends nothing by itself: `work` decides, and the connections are closed.
    /// A node that is not shut down stays in the registry for a while.
    pub(crate) async fn with_signals<T>(
        &self,
        work: impl AsyncFnOnce(&SessionManager, &mut Signals) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut signals = Signals::catch()?;
        let sessions = tokio::select! {
            sessions = self.connect() => sessions?,
            signal = signals.next() => return Err(Failure::interrupted(signal, "interrupted; nothing was changed")),
        };
        let outcome = work(&sessions, &mut signals).await;
        close(&sessions).await;
        outcome
    }

    /// Connects with the settings that the application's nodes have published.
    pub(crate) async fn connect(&self) -> Result<SessionManager, Failure> {
        let connecting = Box::pin(self.builder()?.adopt_settings().connect());
        Ok(waiting("connecting", connecting).await?)
    }
}

/// Closes the connections. What was changed is committed before, so a slow close is no failure of the command.
pub(crate) async fn close(sessions: &SessionManager) {
    let _ = sessions.shutdown(CLOSE_WAIT).await;
}
