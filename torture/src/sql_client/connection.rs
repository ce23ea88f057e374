//! [`Connection`]: one connection for scripts, opened again after an error.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};

use crate::cluster::connect;

/// For one script, and for each of its statements.
const TIME_MAX: Duration = Duration::from_secs(4);
const STATEMENT_MAX: &str = "SET statement_timeout = '2s'";

pub(super) struct Connection {
    url: String,
    client: Option<Client>,
}

/// Why a script has no answer.
pub(super) enum Failure {
    /// PS002: the session has ended, or has another id.
    NotThere,
    /// The server has rolled it back, or has not received it.
    Refused(String),
    /// It may have been committed.
    Unknown,
}

impl Connection {
    pub(super) fn new(url: String) -> Self {
        Self { url, client: None }
    }

    /// Sends all statements in one message. Returns their rows.
    pub(super) async fn send(&mut self, script: &str) -> Result<Vec<SimpleQueryRow>, Failure> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => match timeout(TIME_MAX, open(&self.url)).await {
                Ok(opened) => opened.map_err(|error| Failure::Refused(format!("{error:#}")))?,
                Err(_) => return Err(Failure::Refused("no connection in time".to_owned())),
            },
        };
        // With the client, a failed transaction ends.
        let messages = timeout(TIME_MAX, client.simple_query(script)).await;
        let messages = messages.map_err(|_| Failure::Unknown)?.map_err(|error| failure(&error))?;
        self.client = Some(client);
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows.collect())
    }
}

async fn open(url: &str) -> anyhow::Result<Client> {
    let client = connect(url).await?;
    client.batch_execute(STATEMENT_MAX).await?;
    Ok(client)
}

fn failure(error: &Error) -> Failure {
    match error.as_db_error() {
        Some(reply) if reply.code().code() == "PS002" => Failure::NotThere,
        // Anything else than ERROR ends the connection, perhaps behind the commit.
        Some(reply) if reply.severity() == "ERROR" => {
            Failure::Refused(format!("{} {}", reply.code().code(), reply.message()))
        }
        _ => Failure::Unknown,
    }
}
