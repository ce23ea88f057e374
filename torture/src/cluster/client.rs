//! Connections to the servers of a run, past the proxies.

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("PostgreSQL does not answer")?;
    // The next use of the client returns the same error.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}
