//! The server that the demo runs on, and what the demo owns there: a whole private PostgreSQL, or one schema on the
//! user's own.
//!
//! On the user's own server the demo touches nothing but a schema with a random name. It creates
//! the schema with a plain `CREATE SCHEMA`, so that it cannot belong to another program, and drops
//! it at the end.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_sandbox::Sandbox;
use pg_session::ConnectOptions;
use tokio::net::{TcpStream, lookup_host};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use super::print::took;
use super::reporter::{DemoError, Reporter};
use crate::failure::Failure;

/// PostgreSQL's port where a connection string names none.
const DEFAULT_PORT: u16 = 5432;
/// How long the user's server may take to answer.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long dropping the schema may take: it waits for statements of the demo's nodes, which are at their end.
const DROP_WAIT: Duration = Duration::from_secs(15);

/// Where the demo takes place.
pub(super) struct Server {
    postgres: Config,
    schema: String,
    place: Place,
}

enum Place {
    /// Shared with the thread that restarts it.
    Private(Arc<Sandbox>),
    /// The user's. The schema is created and dropped over one connection. So the server keeps that
    /// order, even if the creation was not waited for.
    Yours(Client),
}

impl Server {
    /// Starts a private PostgreSQL, durable as in production, or connects to the one that `url` names.
    ///
    /// # Errors
    /// [`DemoError::Step`] with what to do. Nothing is left behind then.
    pub(super) async fn open(url: Option<&str>, reporter: &Reporter) -> Result<Self, DemoError> {
        match url {
            None => reporter.step("a private PostgreSQL of its own, gone at the end", Self::start()).await,
            Some(url) => reporter.step("connected to your PostgreSQL", Self::connect(url)).await,
        }
    }

    async fn start() -> Result<(String, Self), Failure> {
        let begin = Instant::now();
        let start = || Sandbox::builder().durable(true).start();
        let sandbox = tokio::task::spawn_blocking(start).await??;
        let figure = format!("PostgreSQL {}, ready in {}", sandbox.version(), took(begin.elapsed()));
        let postgres = Config::from_str(&sandbox.url())?;
        Ok((figure, Self { postgres, schema: "public".to_owned(), place: Place::Private(Arc::new(sandbox)) }))
    }

    async fn connect(url: &str) -> Result<(String, Self), Failure> {
        // Its errors name the option and what to do.
        ConnectOptions::parse(url)?;
        // The driver's error does not repeat the string, which may hold a password.
        let mut postgres = Config::from_str(url).map_err(|error| {
            let failure = Failure::from(error);
            Failure::new(format!(
                "{failure}; write --database-url as postgres://user:password@host:5432/database"
            ))
        })?;
        if postgres.get_connect_timeout().is_none() {
            postgres.connect_timeout(CONNECT_WAIT);
        }
        let client = connect(&postgres).await.map_err(|failure| {
            Failure::new(format!("{failure}; correct --database-url, or start the server"))
        })?;
        let row = client.query_one("SELECT current_setting('server_version')", &[]).await?;
        let version: String = row.try_get(0)?;
        let (high, _) = Uuid::new_v4().as_u64_pair();
        // PostgreSQL reserves names that begin with `pg_`.
        let schema = format!("session_demo_{high:016x}");
        let figure = format!("PostgreSQL {}", version.split(' ').next().unwrap_or(&version));
        Ok((figure, Self { postgres, schema, place: Place::Yours(client) }))
    }

    /// Creates the demo's schema on the user's server.
    pub(super) async fn prepare(&self, reporter: &Reporter) -> Result<(), DemoError> {
        let Place::Yours(client) = &self.place else { return Ok(()) };
        let create = async {
            client.batch_execute(&format!("CREATE SCHEMA \"{}\"", self.schema)).await?;
            Ok((self.schema.clone(), ()))
        };
        reporter.step("a schema of its own, dropped at the end", create).await
    }

    pub(super) fn postgres(&self) -> &Config {
        &self.postgres
    }

    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// The private server, which may be restarted. `None` for the user's.
    pub(super) fn sandbox(&self) -> Option<&Arc<Sandbox>> {
        match &self.place {
            Place::Private(sandbox) => Some(sandbox),
            Place::Yours(_) => None,
        }
    }

    /// A connection beside the nodes, to look at the tables.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        connect(&self.postgres).await
    }

    /// Where the server listens; `None` if it is reached through a Unix socket only.
    pub(super) async fn addr(&self) -> Result<Option<SocketAddr>, Failure> {
        for (at, host) in self.postgres.get_hosts().iter().enumerate() {
            let Host::Tcp(host) = host else { continue };
            let ports = self.postgres.get_ports();
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
            for addr in lookup_host((host.as_str(), port)).await? {
                if TcpStream::connect(addr).await.is_ok() {
                    return Ok(Some(addr));
                }
            }
        }
        Ok(None)
    }

    /// The way to the server through a proxy: the same user, password and database at another address.
    pub(super) fn through(&self, proxy: SocketAddr) -> Config {
        let known = &self.postgres;
        let mut config = Config::new();
        config.host(proxy.ip().to_string()).port(proxy.port()).ssl_mode(known.get_ssl_mode());
        if let Some(user) = known.get_user() {
            config.user(user);
        }
        if let Some(password) = known.get_password() {
            config.password(password);
        }
        if let Some(database) = known.get_dbname() {
            config.dbname(database);
        }
        if let Some(name) = known.get_application_name() {
            config.application_name(name);
        }
        if let Some(options) = known.get_options() {
            config.options(options);
        }
        config
    }

    /// Removes what the demo made: the server and its directory, or the schema. Returns what it removed.
    ///
    /// # Errors
    /// With what is left, and how to remove it by hand.
    pub(super) async fn close(self) -> Result<&'static str, Failure> {
        match self.place {
            Place::Private(sandbox) => {
                // A restart in flight holds it, too. Then its thread is the last to drop it, which
                // cleans up as well. The program does not end before.
                if let Some(sandbox) = Arc::into_inner(sandbox) {
                    tokio::task::spawn_blocking(|| sandbox.close()).await??;
                }
                Ok("PostgreSQL and its directory are gone")
            }
            Place::Yours(client) => {
                let dropped = drop_schema(client, &self.postgres, &self.schema);
                match tokio::time::timeout(DROP_WAIT, dropped).await {
                    Ok(Ok(())) => Ok("nothing is left on your server"),
                    Ok(Err(failure)) => Err(left(&self.schema, &failure.to_string())),
                    Err(_) => Err(left(&self.schema, "the server did not answer in time")),
                }
            }
        }
    }
}

async fn connect(postgres: &Config) -> Result<Client, Failure> {
    let (client, connection) = postgres.connect(NoTls).await?;
    // Ends with the client; what goes wrong with it, the client's next statement says.
    tokio::spawn(connection);
    Ok(client)
}

async fn drop_schema(client: Client, postgres: &Config, schema: &str) -> Result<(), Failure> {
    let client = if client.is_closed() { connect(postgres).await? } else { client };
    Ok(client.batch_execute(&format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE")).await?)
}

fn left(schema: &str, failure: &str) -> Failure {
    Failure::new(format!("{failure}; if the schema is still there, run: DROP SCHEMA \"{schema}\" CASCADE"))
}
