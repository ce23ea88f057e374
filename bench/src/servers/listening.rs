//! A bare connection that listens, without the library.

use std::time::Instant;

use anyhow::Context;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::Database;

/// A connection, and when it receives something.
pub(crate) struct Arrivals {
    pub(crate) client: Client,
    received: mpsc::UnboundedReceiver<Instant>,
}

impl Arrivals {
    pub(crate) async fn listen(database: &Database, channel: &str) -> anyhow::Result<Self> {
        let (client, mut connection) = tokio_postgres::connect(&database.url, NoTls).await?;
        let (arrivals, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if matches!(message, AsyncMessage::Notification(_)) && arrivals.send(Instant::now()).is_err()
                {
                    return;
                }
            }
        });
        client.batch_execute(&format!("LISTEN {channel}")).await?;
        Ok(Self { client, received })
    }

    /// When the next notification was received.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Instant> {
        self.received.recv().await.context("the listening connection is gone")
    }
}
