//! Listens as the nodes do, for what must not be notified: changes that were rolled back.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::sync::watch;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::SqlClient;
use crate::history::Entry;
use crate::plan::SCHEMA;

const PAUSE: Duration = Duration::from_millis(200);
const CONNECT_MAX: Duration = Duration::from_secs(4);

/// The name of the nodes' channel, as an expression.
pub(super) fn channel() -> String {
    format!("'pg_session_' || left(encode(sha256('{SCHEMA}'::bytea || '\\x00'::bytea), 'hex'), 16)")
}

pub(super) async fn run(sql_client: Arc<SqlClient>, mut stopped: watch::Receiver<bool>) {
    let mut received = Received::default();
    loop {
        tokio::select! {
            // Its end is a fault of the wire, or of the server: nothing that was promised.
            _ = received.listen(&sql_client) => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
    }
    let Received { notifications, of_rolled_back, example } = received;
    sql_client.journal.write(&Entry::Notified { notifications, of_rolled_back, example });
}

#[derive(Default)]
struct Received {
    notifications: u64,
    of_rolled_back: u64,
    example: String,
}

impl Received {
    /// Returns when the connection is lost.
    async fn listen(&mut self, sql_client: &SqlClient) -> Result<()> {
        let connecting = tokio_postgres::connect(&sql_client.plan.listener_url, NoTls);
        let (client, mut connection) = tokio::time::timeout(CONNECT_MAX, connecting).await??;
        let mut listening = Box::pin(listen_on(&client));
        let mut is_listening = false;
        loop {
            tokio::select! {
                message = poll_fn(|context| connection.poll_message(context)) => match message {
                    Some(Ok(AsyncMessage::Notification(notification))) => self.receive(sql_client, notification.payload()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(()),
                },
                listens = &mut listening, if !is_listening => {
                    listens?;
                    is_listening = true;
                }
            }
        }
    }

    fn receive(&mut self, sql_client: &SqlClient, payload: &str) {
        self.notifications += 1;
        let Some(session) = sql_client.unchanged() else { return };
        let name = session.simple().to_string();
        // It was created.
        if payload.contains(&name) && payload != format!("1s{name}.1") {
            self.of_rolled_back += 1;
            payload.clone_into(&mut self.example);
        }
    }
}

async fn listen_on(client: &Client) -> Result<()> {
    let row = client.query_one(&format!("SELECT {}", channel()), &[]).await?;
    let channel: String = row.get(0);
    ensure!(channel.len() == "pg_session_".len() + 16, "the channel has another name: {channel}");
    Ok(client.batch_execute(&format!("LISTEN {channel}")).await?)
}
